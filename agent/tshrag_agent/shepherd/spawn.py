"""Start one process in its group, in one of two ways, whichever is right now.

*careful*: fork into the group, prepare the child in Python, exec. No race, any limit, and a file
system that hangs holds only the child. Costs about 0.5 ms more than the other.

*swift*: enter the group ourselves, posix_spawn, go home. It needs no copy of this process, but
the kernel makes who enters a group after a pause of 10 ms wait for about as long. So it is for a
rush of starts, and only without limits that a child must carry (docs/decisions/0020).
"""

import contextlib
import errno
import os
import resource
import select
import signal
from collections.abc import Iterator, Mapping
from typing import NamedTuple, NoReturn

from tshrag_agent.shepherd import native
from tshrag_agent.shepherd.limits import Rlimit
from tshrag_agent.shepherd.protocol import Rejected

_START_TIMEOUT_MS = 10_000
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"


class Command(NamedTuple):
    """What to execute."""

    argv: list[str]
    cwd: str
    env: Mapping[str, str]
    stdout_fd: int
    stderr_fd: int


class Place(NamedTuple):
    """The way into a group, see groups.Group."""

    birth_fd: int
    enter_fds: tuple[int, ...]
    has_extras: bool


class Spawner:
    """Starts processes for a process of one thread."""

    def __init__(self, home_fd: int, child_files: Rlimit) -> None:
        self._home_fd = home_fd
        self._child_files = child_files
        self._null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def spawn(self, command: Command, place: Place, rlimits: list[Rlimit], *, rush: bool) -> int:
        """Start `command` in a group; return its pid, or raise Rejected with the reason."""
        swift = not rlimits and not place.has_extras
        if place.enter_fds:
            swift = swift and rush and self._home_fd >= 0
        try:
            path = _find(command)
            if swift:
                return self._swift(path, command, place)
            return self._careful(path, command, place, rlimits)
        except (ValueError, TypeError) as error:
            raise Rejected("bad_command", ascii(command.argv[0]), str(error)) from None

    def _swift(self, path: str, command: Command, place: Place) -> int:
        _, soft, hard = self._child_files
        ours = resource.getrlimit(resource.RLIMIT_NOFILE)
        with _failing(command, "cwd"):
            os.chdir(command.cwd)
        self._go(place.enter_fds)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            with _failing(command, "exec"):
                return os.posix_spawn(
                    path,
                    command.argv,
                    command.env,
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, self._null_fd, 0),
                        (os.POSIX_SPAWN_DUP2, command.stdout_fd, 1),
                        (os.POSIX_SPAWN_DUP2, command.stderr_fd, 2),
                    ],
                    setsid=True,
                    setsigmask=[],
                    setsigdef=_IGNORED_BY_PYTHON,
                )
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, ours)
            if place.enter_fds:
                self._go((self._home_fd,))
            os.chdir("/")

    def _go(self, enter_fds: tuple[int, ...]) -> None:
        for fd in enter_fds:
            os.write(fd, b"0")

    def _careful(self, path: str, command: Command, place: Place, rlimits: list[Rlimit]) -> int:
        told_fd, tell_fd = os.pipe()
        try:
            with _failing(command, "fork"):
                pid = native.fork_into(place.birth_fd) if place.birth_fd >= 0 else os.fork()
            if pid == 0:
                skip = 1 if place.birth_fd >= 0 else 0
                self._become(path, command, place.enter_fds[skip:], rlimits, tell_fd)
            os.close(tell_fd)
            tell_fd = -1
            said = _hear(told_fd)
        finally:
            os.close(told_fd)
            if tell_fd >= 0:
                os.close(tell_fd)
        if said:
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0 if said != b"hung" else os.WNOHANG)
            raise _reason(command, said)
        return pid

    def _become(
        self,
        path: str,
        command: Command,
        enter_fds: tuple[int, ...],
        rlimits: list[Rlimit],
        tell_fd: int,
    ) -> NoReturn:
        """Turn this child into the job; whatever goes wrong, it is told and the child ends."""
        stage = "enter"
        try:
            signal.set_wakeup_fd(-1)
            for signum in _IGNORED_BY_PYTHON:
                signal.signal(signum, signal.SIG_DFL)
            os.setsid()
            self._go(enter_fds)
            stage = "limits"
            for which, soft, hard in (self._child_files, *rlimits):
                resource.setrlimit(which, (soft, hard))
            for number, fd in enumerate((self._null_fd, command.stdout_fd, command.stderr_fd)):
                os.dup2(fd, number)
            stage = "cwd"
            os.chdir(command.cwd)
            stage = "exec"
            os.execve(path, command.argv, command.env)
        except OSError as error:
            os.write(tell_fd, f"{stage} {error.errno}".encode())
        except BaseException as error:
            os.write(tell_fd, f"{stage} 0 {error}".encode("utf-8", "replace")[:400])
        finally:
            os._exit(127)


@contextlib.contextmanager
def _failing(command: Command, stage: str) -> Iterator[None]:
    """Turn an OSError at this stage into a reason that a person understands."""
    try:
        yield
    except OSError as error:
        raise _reason(command, f"{stage} {error.errno}".encode()) from None


def _hear(told_fd: int) -> bytes:
    """Return what the child says before it has become the job: nothing, when all went well."""
    poll = select.poll()
    poll.register(told_fd, select.POLLIN)
    if not poll.poll(_START_TIMEOUT_MS):
        return b"hung"
    return os.read(told_fd, 512)


def _find(command: Command) -> str:
    """Return the path of the executable, as a shell would find it; raise Rejected."""
    name = command.argv[0]
    if "/" in name:
        return name
    found_but = ""
    for folder in command.env.get("PATH", _DEFAULT_PATH).split(":"):
        path = os.path.join(command.cwd, folder, name)
        with contextlib.suppress(ValueError):
            if os.access(path, os.X_OK) and not os.path.isdir(path):
                return path
            found_but = found_but or (path if os.path.isfile(path) else "")
    if found_but:
        raise Rejected("not_executable", ascii(found_but), "no right to execute it", "chmod +x")
    fix = "install it, or name it with its folder"
    raise Rejected("not_found", ascii(name), "no such program in PATH", fix)


def _reason(command: Command, said: bytes) -> Rejected:
    if said == b"hung":
        what = f"did not start within {_START_TIMEOUT_MS // 1000} s"
        return Rejected("start_hung", ascii(command.argv[0]), what, "does its file system answer?")
    stage, number, *more = said.decode("utf-8", "replace").split(" ", 2)
    if more:
        return Rejected("bad_command", ascii(command.argv[0]), more[0])
    if stage == "cwd":
        return Rejected("bad_cwd", ascii(command.cwd), os.strerror(int(number)))
    if stage == "exec":
        return _exec_reason(command, int(number))
    what = f"{stage}: {os.strerror(int(number))}"
    return Rejected("start_failed", ascii(command.argv[0]), what)


def _exec_reason(command: Command, number: int) -> Rejected:
    name = command.argv[0]
    where, what = ascii(name), os.strerror(number)
    if number in (errno.ENOENT, errno.ENOTDIR):
        if os.path.exists(os.path.join(command.cwd, name)):
            what = "its interpreter is not here"
            return Rejected("not_found", where, what, "look at its first line")
        return Rejected("not_found", where, "no such file")
    if number in (errno.EACCES, errno.EPERM, errno.EISDIR):
        return Rejected("not_executable", where, what, "chmod +x")
    if number == errno.ENOEXEC:
        fix = "a script begins with #! and its interpreter"
        return Rejected("not_executable", where, "no program of this machine", fix)
    if number == errno.E2BIG:
        return Rejected("too_large", where, "arguments and environment are too long")
    return Rejected("start_failed", where, what)
