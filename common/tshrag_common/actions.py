"""PURE: what a step does with a board: power, boot, console, bootloader, files, flash.

    {"power": "cycle"}
    {"boot": "shell"}               {"boot": {"to": "bootloader", "fresh": true}}
    {"console.send": "version"}     {"console.send": {"text": "q", "enter": false}}
    {"console.expect": "login: "}   {"console.expect": {"regex": ["v[0-9]+"], "within": "2m"}}
    {"bootloader": "printenv"}      {"bootloader": ["setenv a b", "saveenv"]}
    {"shell": "dmesg | tail"}
    {"upload": {"load": "firmware", "path": "image.bin", "to": "/tmp/image.bin"}}
    {"upload": {"load": "firmware", "path": "uImage", "to": "0x40200000", "via": "loady"}}
    {"download": {"path": "/var/log/messages", "to": "messages"}}
    {"flash": {"load": "firmware", "path": "image.bin"}}

A ``shell`` is a command on the DUT; all the others are an `Action`.
"""

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from tshrag_common.fields import Text, Timeout, Token

Words = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=4096)], ...], Meta(max_length=64)
]
RemotePath = Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"^[^\0\r\n]+$")]


def _below(path: str) -> str:
    odd = path.startswith("/") or "\0" in path or ".." in path.split("/")
    return "not a path below the folder" if odd else ""


LocalPath = Annotated[
    str, Meta(min_length=1, max_length=4096, extra={"code": "path", "check": _below})
]
"""A path in a load, or below the artifacts of a job."""


SerialVia = Literal["base64", "xmodem", "ymodem"]
"""How a file goes through the shell on a console."""

LoaderVia = Literal["loadx", "loady"]
"""How U-Boot takes one into its memory, by XMODEM or YMODEM."""


class Boot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bring the DUT to a state; `fresh`: begin without power."""

    to: Token
    fresh: bool = False


class Send(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Type on the console."""

    text: Text = ""
    enter: bool = True
    brk: bool = msgspec.field(name="break", default=False)


class Expect(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Wait for one of several texts on the console; one of `death` fails at once."""

    text: Words = ()
    regex: Words = ()
    death: Words = ()
    within: Timeout = 60.0


class Upload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Copy a file or folder of a load to the DUT; without a path all of the load.

    ``via`` says how it goes over a console; by ``loadx`` and ``loady`` `to` is an address of the
    memory of U-Boot, which must be at its prompt.
    """

    load: Token
    to: RemotePath
    path: LocalPath = "."
    via: SerialVia | LoaderVia | Literal[""] = ""


class Download(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Copy a file or folder of the DUT to the artifacts of the job; ``via``: over a console."""

    path: RemotePath
    to: LocalPath
    via: SerialVia | Literal[""] = ""


class Flash(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Write a file of a load to the DUT by the command that its agent has for that."""

    load: Token
    path: LocalPath
    slot: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""


class Capture(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a board is asked when a job on it has failed: exactly one of these."""

    KINDS: ClassVar[tuple[str, ...]] = ("shell", "sysrq", "bootloader")

    shell: Text = ""
    sysrq: Annotated[str, Meta(pattern=r"^[a-z0-9]?$")] = ""
    bootloader: Text = ""

    @property
    def kind(self) -> str:
        return next((kind for kind in self.KINDS if getattr(self, kind)), "shell")


class Freeze(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Keep the board of a failed job as it is, and hand it to who submitted the run."""

    for_s: Timeout = msgspec.field(name="for")
    capture: Annotated[tuple[Capture, ...], Meta(max_length=32)] = ()


class Action(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one job does with its board: exactly one of these."""

    KINDS: ClassVar[tuple[str, ...]] = (
        "power", "boot", "send", "expect", "bootloader", "upload", "download", "flash",
    )  # fmt: skip

    power: str = ""
    boot: Boot | None = None
    send: Send | None = None
    expect: Expect | None = None
    bootloader: tuple[str, ...] = ()
    upload: Upload | None = None
    download: Download | None = None
    flash: Flash | None = None

    @property
    def kind(self) -> str:
        return next((kind for kind in self.KINDS if getattr(self, kind)), "")

    @property
    def wants(self) -> tuple[str, ...]:
        """Return what a DUT must have for it."""
        match self.kind:
            case "power":
                return ("power",)
            case "send" | "expect":
                return ("console",)
            case "bootloader":
                return ("bootloader",)
            case "flash":
                return ("flash",)
            case "upload" if self.upload and self.upload.via:
                return ("bootloader",) if self.upload.via.startswith("load") else ("console",)
            case "download" if self.download and self.download.via:
                return ("console",)
            case _:
                return ()

    @property
    def load(self) -> str:
        """Return the name of the load that it takes files from; empty: of none."""
        source = self.upload or self.flash
        return source.load if source else ""

    @property
    def said(self) -> str:
        """Return it in words, for people."""
        match self.kind:
            case "power":
                return f"power {self.power}"
            case "boot" if self.boot:
                return f"boot to {self.boot.to}" + (" from no power" if self.boot.fresh else "")
            case "send" if self.send:
                return (
                    f"console.send {self.send.text!a}"
                    if not self.send.brk
                    else "console.send break"
                )
            case "expect" if self.expect:
                return "console.expect " + " or ".join(
                    ascii(each) for each in (*self.expect.text, *self.expect.regex)
                )
            case "bootloader":
                return "bootloader " + "; ".join(self.bootloader)
            case "upload" if self.upload:
                return f"upload {self.upload.load}/{self.upload.path} to {self.upload.to}"
            case "download" if self.download:
                return f"download {self.download.path} to {self.download.to}"
            case _:
                flash = self.flash
                return f"flash {flash.load}/{flash.path}" if flash else "nothing"
