"""What a channel is opened for: one struct each, a union for the wire.

The agent serves a want by a handler of its own; a new want is a struct here and a handler there.
"""

from typing import Annotated, Literal

import msgspec


class ConsoleWant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="console"):
    """The console of a DUT: first the last ``scrollback_bytes``, then what happens."""

    scrollback_bytes: int = 4096
    take: bool = False  # the right to write, from another who shares the lease
    exact: bool = False  # the scrollback too: else what a terminal answers or obeys is left out


class EchoWant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="echo"):
    """All that is said comes back: measures the way to an agent."""


class ForwardWant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="forward"):
    """A TCP port of a DUT; 22 is its SSH server, wherever that listens."""

    port: int
    via: Literal["auto", "tcp", "ssh"] = "auto"  # from the lab host, or from the DUT itself


class SshFactsWant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="ssh"):
    """How the DUT is reached by SSH: one `SshFacts` as a word."""


class PowerWant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="power"):
    """Switch the power, or ask for it; a `BoardWord` tells what came of it."""

    what: Literal["on", "off", "cycle", "status", "read"]


class BootWant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="boot"):
    """Bring the DUT to a state: what its console says comes as bytes, then a `BoardWord`."""

    to: str
    fresh: bool = False


class PutWant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="put"):
    """A tar of one file or folder goes in, to be `path` on the DUT; then a `BoardWord`.

    Where its sum is told, one that was cut off before goes on: a `FilePart` says from where.
    """

    path: str
    sha256: str = ""  # of the tar


class GetWant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="get"):
    """A tar of `path` on the DUT comes out, behind a `FilePart` where ``parts`` asks for that.

    With a sum: the rest of one that was cut off, from an offset.
    """

    path: str
    most_bytes: int = 1 << 30
    parts: bool = False
    sha256: str = ""
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0


class ExecWant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="exec"):
    """Start a process on the lab host; one `ExecView` as a word. It goes on without a channel."""

    argv: tuple[str, ...]
    cwd: str = ""  # empty: the home of the agent's user
    env: dict[str, str] = {}
    stdin: bool = False  # false: it reads nothing
    secret_args: bool = False  # only the program is named on record and in lists


class ExecActWant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="exec_act"):
    """Ask for a process, wait for its end, signal its group, forget it; `ExecView` as words."""

    what: Literal["list", "status", "wait", "signal", "remove"]
    id: str = ""
    signal: int = 15


class ExecOutputWant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="exec_output"):
    """What a process has said, from an offset; with ``follow`` up to its end."""

    id: str
    stream: Literal["stdout", "stderr"] = "stdout"
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0
    follow: bool = False


class ExecInputWant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="exec_input"):
    """The stdin of a process: what comes on the channel, and its end."""

    id: str


class ExecView(msgspec.Struct, frozen=True, kw_only=True):
    """A process on a lab host. ``lost``: what kept it died, how it ended is not known."""

    id: str
    argv: tuple[str, ...]
    by: str
    state: Literal["running", "ended", "failed", "lost"]
    pid: int = 0
    code: int | None = None  # negative: the signal that ended it
    error: str = ""  # why it could not be started
    started_at: int = 0
    ended_at: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    cut_bytes: int = 0  # of its output that was not stored


class SshFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Of a DUT. ``host_keys`` are the pinned keys, as OpenSSH writes them."""

    user: str
    port: int
    host_keys: tuple[str, ...]


class FilePart(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a tar is there already, of how much, and what it must be in the end."""

    offset: int = 0
    total: int = 0
    sha256: str = ""


class BoardWord(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: the states that a DUT went through, or the one that it is in."""

    states: tuple[str, ...] = ()
    note: str = ""
    watts: float | None = None  # that the DUT takes, where that was asked for


AnyWant = (
    ConsoleWant
    | EchoWant
    | ForwardWant
    | SshFactsWant
    | PowerWant
    | BootWant
    | PutWant
    | GetWant
    | ExecWant
    | ExecActWant
    | ExecOutputWant
    | ExecInputWant
)


OPERATORS_ONLY = (ExecWant, ExecActWant, ExecOutputWant, ExecInputWant)


def veiled(want: ExecWant) -> tuple[str, ...]:
    """Return the words of a command as others may see them."""
    if not want.secret_args or len(want.argv) < 2:
        return want.argv
    return want.argv[0], f"({len(want.argv) - 1} secret)"


def name_of(want: AnyWant) -> str:
    """Return what a channel is for in one word, as audit and CLI say it."""
    return str(want.__struct_config__.tag)


def detail_of(want: AnyWant) -> str:
    """Return the particulars of a want in some words."""
    match want:
        case ForwardWant(port=port):
            return f"port {port}"
        case PowerWant(what=what):
            return what
        case BootWant(to=to):
            return f"to {to}"
        case PutWant(path=path) | GetWant(path=path):
            return path
        case ExecWant():
            return " ".join(veiled(want))
        case ExecActWant(what=what, id=name):
            return f"{what} {name}".strip()
        case ExecOutputWant(id=name) | ExecInputWant(id=name):
            return name
        case _:
            return ""
