"""What an operator says of how a DUT boots: ``[dut.boot]`` of ``agent.toml``.

A move leads from one state of a board to another by its acts, in order. Moves that follow from the
power switch, the bootloader and the login need no word; ``[[dut.boot.move]]`` adds others.
"""

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tshrag_agent.transport.ways import Seconds
from tshrag_common.console_patterns import pattern_fault
from tshrag_common.ids import TOKEN


def _pattern(text: str) -> str:
    fault = pattern_fault(text) if text else None
    return "; ".join(filter(None, fault)) if fault else ""


Pattern = Annotated[str, Meta(max_length=1024, extra={"code": "bad_pattern", "check": _pattern})]
State = Annotated[str, Meta(pattern=TOKEN)]
EnvName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:#+-]{1,100}$")]
EnvValue = Annotated[str, Meta(pattern=r"^[^'\r\n\0]*$", max_length=4096)]
Line = Annotated[str, Meta(pattern=r"^[^\r\n\0]+$", max_length=4096)]
Words = Annotated[tuple[str, ...], Meta(min_length=1, max_length=1000)]


class BootloaderWay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the bootloader is stopped and spoken to; the defaults are those of U-Boot."""

    interrupt: Pattern = "Hit any key to stop autoboot"
    key: str = " "
    prompt: Pattern = "^=> "
    enter: str = "\r"
    setenv: str = "setenv {name} '{value}'"
    status: str = "echo $?"
    environment: dict[EnvName, EnvValue] = {}
    commands: tuple[Line, ...] = ()
    boot: Line = "boot"
    timeout_s: Seconds = 30.0


class Act(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing of a move."""

    KINDS: ClassVar[tuple[str, ...]] = (
        "power", "interrupt", "bootloader", "prepare", "login", "send", "expect", "command",
        "wait_s",
    )  # fmt: skip

    power: Literal["on", "off", "cycle"] | UnsetType = UNSET
    interrupt: bool | UnsetType = UNSET
    bootloader: Line | UnsetType = UNSET
    prepare: bool | UnsetType = UNSET
    login: bool | UnsetType = UNSET
    send: str | UnsetType = UNSET
    expect: Pattern | UnsetType = UNSET
    command: Words | UnsetType = UNSET
    wait_s: Seconds | UnsetType = UNSET

    @property
    def kind(self) -> str:
        return next((kind for kind in self.KINDS if getattr(self, kind) is not UNSET), "")


class Move(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A way from one state to another; of two with the same ends the later one is taken."""

    source: State = msgspec.field(name="from")
    to: State
    acts: Annotated[tuple[Act, ...], Meta(min_length=1, max_length=100)]


class BootWay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a board comes from one state to another."""

    strategy: str = ""
    bootloader: BootloaderWay | None = None
    reboot: Line = "reboot"
    up: Pattern = "Please press Enter to activate"
    death: tuple[Pattern, ...] = ("Kernel panic - not syncing",)
    quiet_s: Seconds = 15.0
    timeout_s: Seconds = 180.0
    tries: Annotated[int, Meta(ge=1, le=10)] = 2
    move: tuple[Move, ...] = ()
