"""What every way to a DUT can do, and how it fails.

A *transport* executes programs and exchanges files, a *console* carries bytes, a *power switch*
cuts and gives power. Which class serves which DUT is known to ``transport/open.py`` alone.
"""

import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from tshrag_agent.transport.board_time import ClockReading
from tshrag_common.errors import Unavailable
from tshrag_common.ids import Fence

Stream = Literal["stdout", "stderr"]
OutputSink = Callable[[Stream, bytes], None]
"""Takes what a program says, as it comes; it must not block, and nothing is kept for it."""

Cause = Literal["exit", "stopped", "deadline", "superseded"]
"""Why a program is over: by itself, by ``end``, at its time limit, by a newer fence."""

TransportCode = Literal[
    "dut_unreachable",  # no route, no answer, or the link was lost on the way
    "ssh_refused",  # the port is closed
    "ssh_auth",  # key or password was not taken
    "ssh_banner",  # what answers does not speak SSH
    "host_key_changed",  # not the host that was pinned: the DUT goes into quarantine
    "no_shell",  # no shell that can hold a lease
    "fence_failed",  # the fence file is locked, damaged or cannot be written
    "not_ended",  # something of an attempt cannot be ended
    "transfer_failed",  # a file did not arrive whole
    "serial_missing",
    "serial_busy",
    "serial_perm",
    "serial_lost",  # the device went away while it was in use
    "console_login",  # the prompt was not reached
    "dut_rebooted",  # in the middle of a command
    "power_failed",
    "boot_failed",  # a bootloader or a boot did not come where it was led
    "command_failed",  # a command of this host that acts on the DUT
    "port_closed",  # a port of the DUT that is not reached
    "no_console",  # what was asked needs a console, and the DUT has none
]


class TransportFailed(Unavailable):
    """A DUT was not reached, or the way to it broke; another DUT may still serve the job."""

    code = "dut_unreachable"

    def __init__(self, code: TransportCode, where: str, what: str, fix: str = "") -> None:
        super().__init__(where, what, fix, code=code)

    @property
    def quarantines(self) -> bool:
        """Tell whether the DUT must not be granted again before a person has looked."""
        return self.code in ("host_key_changed", "not_ended")


class ShellCommand(msgspec.Struct, frozen=True):
    """Text for the shell of the DUT; an argv, in contrast, is never read by a shell."""

    text: str


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """How a program ended. Nothing of its tree is alive when this is handed out.

    ``exit_code`` is None where a signal ended it. A shell reports both in one number, so 129 to
    192 are read as a signal. ``guarded``: a wrapper on the DUT held lease and fence; without it
    a lost link may leave processes behind.
    """

    exit_code: int | None
    signal: int | None = None
    cause: Cause = "exit"
    guarded: bool = True
    duration_s: float = 0.0
    note: str = ""

    @property
    def succeeded(self) -> bool:
        return self.exit_code == 0 and self.cause == "exit"

    @property
    def said(self) -> str:
        """Return the end in words, for a person."""
        if self.signal is None:
            return f"exit code {self.exit_code}"
        try:
            return f"killed by {signal.Signals(self.signal).name}"
        except ValueError:
            return f"killed by signal {self.signal}"


class DutProbe(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a DUT says of itself, and what it has for guarding an attempt.

    ``boot`` is new after every reboot. ``shell`` is one that can hold a lease, empty where there
    is none; ``guarded`` says whether commands run under the wrapper.
    """

    os: str
    arch: str
    kernel: str = ""
    hostname: str = ""
    user: str = ""
    boot: str = ""
    uptime_s: float = 0.0
    shell: str = ""
    run_dir: str = ""
    guarded: bool = False
    lacks: tuple[str, ...] = ()  # what the wrapper would need or like: flock, setsid, ...


ProcReading = dict[str, str]
"""Raw text by its path, e.g. ``/proc/stat``; what a DUT lacks is left out."""


class DutTransport(Protocol):
    """A device that can execute programs: over SSH, its console, or the host itself."""

    @property
    def is_exclusive(self) -> bool:
        """Tell whether nothing else can be asked while a command executes."""
        ...

    async def execute(
        self,
        command: Sequence[str] | ShellCommand,
        *,
        env: Mapping[str, str],
        cwd: str,
        timeout_s: float,
        fence: Fence,
        on_output: OutputSink,
    ) -> Completed:
        """Start `command`, wait for its end, and see that nothing of it is left.

        An empty `cwd` is the home of the user. Steps of one attempt share its fence. Cancelling
        the call ends the tree too, within the grace for SIGTERM.

        Raises:
            StaleFence: the DUT has seen a newer fence, or this one from somebody else.
            TransportFailed: the DUT was not reached, or the link broke; then the DUT itself
                ends the tree when the lease is over.

        """
        ...

    async def upload(self, source: Path, target: str, *, timeout_s: float) -> None:
        """Copy a file or a directory with its modes; `target` is the path that it gets."""
        ...

    async def download(
        self, source: str, target: Path, *, most_bytes: int, timeout_s: float
    ) -> int:
        """Copy a file or a directory of the DUT; return the bytes; more than `most_bytes` fail."""
        ...

    async def probe(self, *, timeout_s: float) -> DutProbe:
        """Ask the DUT what it is, and prepare it for commands."""
        ...

    async def read_proc(self, *, timeout_s: float) -> ProcReading:
        """Return what the sampler of a DUT needs, in one round trip."""
        ...

    async def read_clock(self, *, timeout_s: float) -> ClockReading | None:
        """Ask the DUT what time it is; None: it has no answer, or its console is in use."""
        ...

    async def end(self, fence: Fence) -> None:
        """End everything that executes under `fence`; return when it is gone."""
        ...

    async def close(self) -> None:
        """End what executes and let go of the device; a second time does nothing."""
        ...


class Console(Protocol):
    """A console: every byte is recorded; one driver writes, any number of watchers read."""

    def watch(self) -> AsyncIterator[bytes]:
        """Return the bytes from now on; a slow watcher loses the oldest, not the record."""
        ...

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        """Type `data`, at the pace that the line can take."""
        ...

    async def close(self) -> None:
        """Let go of the line."""
        ...


PowerState = Literal["on", "off", "unknown"]


class PowerSwitch(Protocol):
    """What gives a DUT its power."""

    async def on(self) -> None: ...

    async def off(self) -> None: ...

    async def cycle(self) -> None:
        """Cut the power, wait, give it back; raise TransportFailed where nothing can do that."""
        ...

    async def status(self) -> PowerState: ...

    async def read(self) -> float:
        """Return the watts that the DUT takes; raise TransportFailed where nothing measures."""
        ...
