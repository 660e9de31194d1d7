"""A hand: a child of the shepherd that starts processes, one at a time, and reaps them.

Starting a process means to wait until it has become the job, on a busy machine for several
milliseconds: a few hands wait side by side, and a file system that hangs holds one hand instead
of the shepherd. A hand knows nothing of attempts. When the shepherd dies it leaves; when it
dies itself, what it has started becomes the shepherd's own child.
"""

import contextlib
import os
import select
import signal
import socket
import sys
from collections import deque
from typing import Any, NoReturn

from tshrag_agent.shepherd import native, protocol
from tshrag_agent.shepherd.limits import Rlimit
from tshrag_agent.shepherd.protocol import Message, Rejected
from tshrag_agent.shepherd.spawn import Command, Place, Spawner

_RECEIVE_BYTES = 64 * 1024  # more would be mapped and unmapped each time
_MOST_FDS = 64
_INT_BYTES = 4


def order(command: Command, place: Place, rlimits: list[Rlimit], *, rush: bool) -> Message:
    """Put a start into words; its descriptors travel beside it, see `descriptors`."""
    return {
        "argv": command.argv,
        "cwd": command.cwd,
        "env": dict(command.env),
        "births": place.birth_fd >= 0,
        "enters": len(place.enter_fds),
        "has_extras": place.has_extras,
        "rlimits": rlimits,
        "rush": rush,
    }


def descriptors(command: Command, place: Place) -> list[int]:
    """Return what a hand needs for an order, in the order in which it takes them."""
    birth = [place.birth_fd] if place.birth_fd >= 0 else []
    return [command.stdout_fd, command.stderr_fd, *birth, *place.enter_fds]


def serve(sock: socket.socket, home_fd: int, lock_fd: int, child_files: Rlimit) -> NoReturn:
    """Be a hand until the other end of `sock` is closed.

    The lock of the shepherd stays open in it, and in what it starts until that has become the
    job: no later shepherd begins before everything of this one can be found.
    """
    try:
        native.die_with_parent()
        _forget_everything_but(sock.fileno(), home_fd, lock_fd)
        native.set_process_name(b"tshrag-hand")
        Hand(sock, Spawner(home_fd, child_files)).serve()
    except ConnectionError:
        pass  # the shepherd is gone
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


class Hand:
    """The loop of a hand."""

    def __init__(self, sock: socket.socket, spawner: Spawner) -> None:
        self._sock, self._spawner = sock, spawner
        self._frames = protocol.inner_frames()
        self._fds: deque[int] = deque()
        self._said = bytearray()
        self._wake, wake_writer = socket.socketpair()
        self._wake.setblocking(False)
        wake_writer.setblocking(False)
        self._wake_fd = wake_writer.detach()
        signal.set_wakeup_fd(self._wake_fd, warn_on_full_buffer=False)
        for signum in (signal.SIGCHLD, signal.SIGTERM):  # the shepherd says when to leave
            signal.signal(signum, lambda signum, frame: None)

    def serve(self) -> None:
        poll = select.poll()
        for one in (self._sock, self._wake):
            poll.register(one, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._wake.fileno() in ready:
                with contextlib.suppress(BlockingIOError):
                    self._wake.recv(4096)
            self._tell_ends()
            if self._sock.fileno() in ready and not self._hear():
                return
            if self._said:
                self._sock.sendall(self._said, socket.MSG_NOSIGNAL)
                self._said.clear()

    def _hear(self) -> bool:
        # Not socket.recv_fds: it drops the flag, and the job would inherit them.
        space = socket.CMSG_SPACE(_MOST_FDS * _INT_BYTES)
        data, beside, _, _ = self._sock.recvmsg(_RECEIVE_BYTES, space, socket.MSG_CMSG_CLOEXEC)
        for _, _, packed in beside:
            self._fds.extend(memoryview(packed).cast("i"))
        for said in self._frames.feed(data):
            self._tell(self._start(said))
        return bool(data)

    def _start(self, said: Message) -> Message:
        count = 2 + said["births"] + said["enters"]
        fds = [self._fds.popleft() for _ in range(count)]
        place = Place(
            birth_fd=fds[2] if said["births"] else -1,
            enter_fds=tuple(fds[count - said["enters"] :]),
            has_extras=said["has_extras"],
        )
        command = Command(said["argv"], said["cwd"], said["env"], fds[0], fds[1])
        rlimits: list[Rlimit] = [(which, soft, hard) for which, soft, hard in said["rlimits"]]
        try:
            return {"pid": self._spawner.spawn(command, place, rlimits, rush=said["rush"])}
        except Rejected as error:
            return error.answer()
        except OSError as error:
            return Rejected("start_failed", ascii(command.argv[0]), str(error)).answer()
        finally:
            for fd in fds:
                os.close(fd)

    def _tell_ends(self) -> None:
        ends: list[list[Any]] = []
        with contextlib.suppress(ChildProcessError):
            while (end := os.wait4(-1, os.WNOHANG))[0]:
                pid, status, usage = end
                cpu_us = int((usage.ru_utime + usage.ru_stime) * 1e6)
                ends.append([pid, status, cpu_us, usage.ru_maxrss * 1024])
        if ends:
            self._tell({"ends": ends})

    def _tell(self, message: Message) -> None:
        self._said += protocol.inner_frame(message)


def _forget_everything_but(*kept: int) -> None:
    """Close what belongs to the shepherd: its sockets, locks and files."""
    signal.set_wakeup_fd(-1)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd not in kept:
            with contextlib.suppress(OSError):  # the listing itself
                os.close(fd)
