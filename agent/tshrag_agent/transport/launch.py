"""The lines between the agent and the wrapper on a DUT (``wrap.sh``).

Out goes a launch script in which every hostile value is quoted; back come the lines of the guard
between the bytes of the command. A nonce, which the command never gets to see, tells them apart.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec

from tshrag_agent.transport.base import ShellCommand
from tshrag_common.errors import Refused, shown

RECORD = b"\x1e"
MOST_LINE_BYTES = 8192  # of a line of the guard: its pids that are left

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEPT = frozenset(
    (  # a shell does not let go of these: setting them fails, or is ignored
        *("BASHOPTS", "BASHPID", "BASH_ARGC", "BASH_ARGV", "BASH_VERSINFO", "DIRSTACK", "EUID"),
        *(
            "FUNCNAME",
            "GROUPS",
            "LINENO",
            "OPTIND",
            "PPID",
            "RANDOM",
            "SECONDS",
            "SHELLOPTS",
            "UID",
        ),
        "TSHRAG_MARK",  # by this one the wrapper knows its tree
    )
)


def quote(text: str) -> bytes:
    """Return `text` as one word of any POSIX shell."""
    if "\0" in text:
        raise Refused("command", f"{shown(text)} holds a NUL byte", "no program can be given one")
    return b"'" + text.encode("utf-8", "surrogateescape").replace(b"'", b"'\\''") + b"'"


def words(command: Sequence[str] | ShellCommand) -> bytes:
    """Return what follows ``exec``."""
    if isinstance(command, ShellCommand):
        return b"/bin/sh -c " + quote(command.text)
    if not command or not command[0]:
        raise Refused("command", "there is no program to execute", "name one")
    return b" ".join(quote(word) for word in command)


def launch_script(
    command: Sequence[str] | ShellCommand,
    env: Mapping[str, str],
    cwd: str,
    *,
    prefix: str = "",
    restore: str = "",
) -> bytes:
    """Return shell text that becomes `command`.

    `prefix` are plain words before it (setsid); `restore` is said when nothing that a shell may
    complain about comes any more, to give the command its own stderr.
    """
    lines = [b"export " + _name(name) + b"=" + quote(value) for name, value in env.items()]
    if restore:
        lines.append(restore.encode())
    if cwd:
        lines.append(b"CDPATH='' cd -- " + quote(cwd) + b" || exit 126")
    lines.append(f"exec {prefix}".encode().rstrip() + b" " + words(command) + b" </dev/null")
    return b"\n".join(lines) + b"\n"


def _name(name: str) -> bytes:
    if not _NAME.fullmatch(name) or name in _KEPT:
        what = f"{shown(name)} cannot be set on a DUT"
        raise Refused("env", what, "use letters, digits and _; not a variable of the shell itself")
    return name.encode()


class Splitter:
    """Takes the lines of the guard out of a stream; the rest is the command's, byte for byte.

    ``noise`` is what came before the first line: a login shell's profile, or why the guard did
    not start anything. Of it 4 KiB are kept.
    """

    def __init__(self, nonce: str) -> None:
        self._marker = RECORD + nonce.encode() + b" "
        self._held = b""
        self.noise = b""
        self.began = False

    def feed(self, data: bytes) -> tuple[bytes, list[str]]:
        """Return the output in `data`, and the guard's lines without their marker."""
        held, output, lines = self._held + data, list[bytes](), list[str]()
        while (at := held.find(self._marker)) >= 0:
            self._take(held[:at], output)
            end = held.find(b"\n", at)
            if end < 0 and len(held) - at <= MOST_LINE_BYTES:
                self._held = held[at:]
                return b"".join(output), lines
            end = len(held) if end < 0 else end
            lines.append(held[at + len(self._marker) : end].decode("ascii", "replace").strip())
            self.began = True
            held = held[end + 1 :]
        keep = self._possible(held)
        self._held = held[len(held) - keep :]
        self._take(held[: len(held) - keep], output)
        return b"".join(output), lines

    def rest(self) -> bytes:
        """Return what was held back, at the end of the stream."""
        rest, self._held = self._held, b""
        return rest if self.began else b""

    def _take(self, data: bytes, output: list[bytes]) -> None:
        if self.began:
            output.append(data)
        else:
            self.noise = (self.noise + data)[-4096:]

    def _possible(self, held: bytes) -> int:
        """Return how many bytes at the end may be the begin of a marker."""
        at = held.rfind(RECORD, max(0, len(held) - len(self._marker)))
        return len(held) - at if at >= 0 and self._marker.startswith(held[at:]) else 0


class Ended(msgspec.Struct, frozen=True):
    """What the guard says last: ``ended STATUS CAUSE PIDS``."""

    status: int
    cause: str
    left: tuple[int, ...]


def ended(line: str) -> Ended | None:
    """Return the guard's last word, None for another line or a damaged one."""
    kind, *fields = line.split()
    numbers = [*fields[:1], *fields[2:]]
    if kind != "ended" or len(fields) < 2 or not all(each.isdecimal() for each in numbers):
        return None
    return Ended(int(fields[0]), fields[1], tuple(int(pid) for pid in fields[2:]))


def exit_of(status: int) -> tuple[int | None, int | None]:
    """Return (exit code, signal) of what a shell calls `status`."""
    return (None, status - 128) if 128 < status <= 192 else (status, None)
