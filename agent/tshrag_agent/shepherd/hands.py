"""The hands of a shepherd: who is free takes the next start; one that hangs is replaced."""

import contextlib
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from tshrag_agent.shepherd import hand, protocol
from tshrag_agent.shepherd.limits import Rlimit
from tshrag_agent.shepherd.protocol import BadFrame, Message, Rejected
from tshrag_agent.shepherd.spawn import Command, Place

_RECEIVE_BYTES = 64 * 1024  # more would be mapped and unmapped each time
_MOST_HANDS = 4
_MOST_AT_ONCE = 4  # starts in one message to a hand
_MUCH_BYTES = 64 * 1024
_RUSH_S = 0.01  # starts that follow each other so closely are a rush (spawn.py)
_SEND_S = 2  # to a hand that is free, and so is listening

Done = Callable[[Message], None]


class MainEnd(NamedTuple):
    """How a main process ended; without a status when its hand died along with that."""

    pid: int
    status: int | None
    cpu_us: int
    max_rss_bytes: int


class Start(NamedTuple):
    """A start that is asked for, and who wants to know of it: ``{"pid": ...}`` or an error."""

    command: Command
    place: Place
    rlimits: list[Rlimit]
    done: Done


class _Hand:
    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid, self.sock, self.fd = pid, sock, sock.fileno()
        self.frames = protocol.inner_frames()
        self.starts: deque[Start] = deque()
        self.until = float("inf")
        self.hangs = False
        self.mains: set[int] = set()


class Hands:
    """Up to four hands, made when they are first needed."""

    def __init__(
        self, patience_s: float, fds: tuple[int, int], files: Rlimit, watch: Callable[[int], None]
    ) -> None:
        """Take what a hand is made of: `fds` of home and lock, the open files of a job."""
        self._patience_s, self._fds, self._files, self._watch = patience_s, fds, files, watch
        self._hands: dict[int, _Hand] = {}
        self._waiting: deque[Start] = deque()
        self._rush_until = 0.0
        self.pids: set[int] = set()  # for who walks /proc: our children, and no orphans
        self.ends: list[MainEnd] = []

    @property
    def due_at(self) -> float:
        """When a hand has taken too long."""
        return min((one.until for one in self._hands.values()), default=float("inf"))

    def be_ready(self) -> None:
        """Make the first hand, so that the first start need not wait for it."""
        if not self._hands:
            self._make()

    def ask(self, start: Start) -> None:
        """Have something started: at the next `hand_out`, or when a hand is free."""
        self._waiting.append(start)

    def owns(self, fd: int) -> bool:
        return fd in self._hands

    def hear(self, fd: int) -> None:
        """Take what a hand says; what it started and what ended."""
        one = self._hands[fd]
        try:
            data = one.sock.recv(_RECEIVE_BYTES)
            for message in one.frames.feed(data):
                self._take(one, message)
        except (OSError, BadFrame):
            data = b""
        if not data:
            self._bury(one)

    def tick(self) -> None:
        """Give up hands that hang; the kernel may keep them for ever, we do not."""
        now = time.monotonic()
        for one in [one for one in self._hands.values() if one.until <= now]:
            self._give_up(one)

    def hand_out(self) -> None:
        """Give what waits to who is free: a few starts each, told about all at once."""
        while self._waiting and (one := self._free()):
            now = time.monotonic()
            rush = len(self._waiting) > 1 or now < self._rush_until
            self._rush_until = now + _RUSH_S
            share = min(-(-len(self._waiting) // _MOST_HANDS), _MOST_AT_ONCE)
            data, fds = b"", list[int]()
            while self._waiting and len(one.starts) < share and len(data) < _MUCH_BYTES:
                start = self._waiting.popleft()
                one.starts.append(start)
                said = hand.order(start.command, start.place, start.rlimits, rush=rush)
                data += protocol.inner_frame(said)
                fds += hand.descriptors(start.command, start.place)
            one.until = now + self._patience_s
            try:
                _send(one.sock, data, fds)
            except OSError:
                self._give_up(one)

    def _free(self) -> _Hand | None:
        able = [one for one in self._hands.values() if not one.hangs]
        for one in able:
            if not one.starts:
                return one
        return self._make() if len(able) < _MOST_HANDS else None

    def _take(self, one: _Hand, message: Message) -> None:
        if "ends" in message:
            for pid, status, cpu_us, max_rss_bytes in message["ends"]:
                one.mains.discard(pid)
                self.ends.append(MainEnd(pid, status, cpu_us, max_rss_bytes))
        elif not one.hangs:  # else it is too late: the group is being killed
            start = one.starts.popleft()
            one.until = time.monotonic() + self._patience_s if one.starts else float("inf")
            if "pid" in message:
                one.mains.add(message["pid"])
            start.done(message)

    def _make(self) -> _Hand:
        ours, theirs = socket.socketpair()
        ours.settimeout(_SEND_S)
        pid = os.fork()
        if pid == 0:
            hand.serve(theirs, *self._fds, self._files)
        theirs.close()
        made = _Hand(pid, ours)
        self._hands[made.fd] = made
        self.pids.add(pid)
        self._watch(made.fd)
        return made

    def _give_up(self, one: _Hand) -> None:
        """Kill a hand that does not answer; it is buried when the kernel lets go of it."""
        one.hangs, one.until = True, float("inf")
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
        self._fail(one, "start_hung", f"did not start within {self._patience_s:g} s")

    def _bury(self, one: _Hand) -> None:
        """Let go of a hand that has died; what it started is ours from now on."""
        if self._hands.pop(one.fd, None) is None:
            return
        one.sock.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(one.pid, 0)  # only then are its children ours
        self.pids.discard(one.pid)
        for pid in one.mains:
            self._inherit(pid)
        self._fail(one, "start_failed", "the process that was to start it died")

    def _fail(self, one: _Hand, code: str, what: str) -> None:
        while one.starts:
            start = one.starts.popleft()
            name = ascii(start.command.argv[0])
            start.done(Rejected(code, name, what, "look at the host, then try again").answer())

    def _inherit(self, pid: int) -> None:
        """Look whether a process of a dead hand is our child now; its end may have been lost."""
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            self.ends.append(MainEnd(pid, None, 0, 0))


def _send(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    sent = socket.send_fds(sock, [data], fds, socket.MSG_NOSIGNAL)
    if sent < len(data):
        sock.sendall(data[sent:], socket.MSG_NOSIGNAL)
