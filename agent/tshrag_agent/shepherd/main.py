"""The shepherd: one small process beside an agent, of one thread and the standard library.

It starts host processes, bounds them, waits for them and ends them; it outlives the agent, which
connects again and goes on where it was. `agent/tshrag_agent/attempts/host.py` is its client.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from functools import partial
from typing import Any

from tshrag_agent.shepherd import (
    cgroups,
    connection,
    groups,
    limits,
    native,
    proctree,
    protocol,
    recover,
)
from tshrag_agent.shepherd.attempt import NEVER
from tshrag_agent.shepherd.connection import Connection
from tshrag_agent.shepherd.groups import Groups
from tshrag_agent.shepherd.hands import Done, Hands
from tshrag_agent.shepherd.herd import Herd
from tshrag_agent.shepherd.protocol import Message, Rejected
from tshrag_agent.shepherd.records import Records

_LONGEST_WAIT_S = 60.0
_LINGER_S = 0.001
_LOCK_TRIES = 100
_LOCK_PAUSE_S = 0.01

Asked = tuple[Connection, int, str, Message]


class Shepherd:
    """The loop: hear, reap, start, let time pass, write down, answer."""

    def __init__(
        self, folder: str, poll: select.epoll, hands: Hands, herd: Herd, records: Records
    ) -> None:
        self._poll, self._hands, self._herd, self._records = poll, hands, herd, records
        self._listener = connection.listen(folder)
        self._connections: dict[int, Connection] = {}
        self._asked: deque[Asked] = deque()
        self._alone_since = time.monotonic()
        self._is_stopping = False
        self._talk_at = 0.0  # who has just talked lets the next news gather for a moment
        self._poll.register(self._listener, select.EPOLLIN)
        self._wake, self._wake_writer = socket.socketpair()
        self._listen_to_signals()

    def serve(self, orphan_s: float) -> None:
        """Work until there is no agent and no attempt any more, or SIGTERM ended all of them."""
        while not self._is_done(orphan_s):
            self._hear(self._wait_s(orphan_s))
            self._herd.reap()
            self._do_what_is_asked()
            self._herd.tick()
            self._hands.hand_out()
            if not self._has_news():
                self._records.flush()
            elif time.monotonic() >= self._talk_at:
                self._records.flush()  # before anybody hears of it
                self._talk()
                self._talk_at = time.monotonic() + _LINGER_S
        self._records.flush()
        self._talk()  # what the last turn brought

    def _listen_to_signals(self) -> None:
        for sock in (self._wake, self._wake_writer):
            sock.setblocking(False)
        self._poll.register(self._wake, select.EPOLLIN)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        signal.signal(signal.SIGTERM, lambda signum, frame: self._stop())

    def _stop(self) -> None:
        self._is_stopping = True

    def _is_done(self, orphan_s: float) -> bool:
        is_orphan = not self._connections and time.monotonic() >= self._alone_since + orphan_s
        if self._is_stopping:
            self._herd.end_all("shepherd_stopped")
        elif is_orphan:
            self._herd.end_all("orphaned")
        return self._herd.is_empty and (self._is_stopping or is_orphan)

    def _wait_s(self, orphan_s: float) -> float:
        due_at = min(self._herd.due_at, self._talk_at if self._has_news() else NEVER)
        if not self._connections:
            # When that time is over, what is being ended has a time of its own.
            until = self._alone_since + orphan_s
            due_at = min(due_at, until if until > time.monotonic() else NEVER)
        return min(max(due_at - time.monotonic(), 0.0), _LONGEST_WAIT_S)

    def _hear(self, wait_s: float) -> None:
        for fd, event in self._poll.poll(wait_s):
            if fd == self._listener.fileno():
                self._welcome()
            elif fd == self._wake.fileno():
                with contextlib.suppress(BlockingIOError):
                    self._wake.recv(4096)
            elif self._hands.owns(fd):
                self._hands.hear(fd)
            elif fd in self._connections:
                self._hear_agent(self._connections[fd], event)

    def _welcome(self) -> None:
        agent = connection.accept(self._listener)
        if agent is None:
            return
        self._connections[agent.fd] = agent
        self._poll.register(agent.fd, select.EPOLLIN)
        hello = {"version": protocol.VERSION, "pid": os.getpid(), "groups": self._herd.kind}
        agent.send({"hello": hello})
        self._mind(agent)

    def _hear_agent(self, agent: Connection, event: int) -> None:
        if event & select.EPOLLOUT:
            agent.flush()
        if event & ~select.EPOLLOUT:
            for message in agent.receive():
                self._take(agent, message)
        self._mind(agent)

    def _take(self, agent: Connection, message: Message) -> None:
        try:
            self._asked.extend(
                (agent, number, verb, asked) for number, verb, asked in message["ops"]
            )
        except (KeyError, TypeError, ValueError):
            agent.close()

    def _mind(self, agent: Connection) -> None:
        """Forget an agent that has gone; wait for one that does not read."""
        if agent.is_open:
            if agent.is_stuck != agent.waits_for_room:
                agent.waits_for_room = agent.is_stuck
                more = select.EPOLLOUT if agent.is_stuck else 0
                self._poll.modify(agent.fd, select.EPOLLIN | more)
        elif self._connections.pop(agent.fd, None) and not self._connections:
            self._alone_since = time.monotonic()

    def _do_what_is_asked(self) -> None:
        while self._asked:
            agent, number, verb, asked = self._asked.popleft()
            tell = partial(agent.note_answer, number)
            answer = self._answer(verb, asked, tell)
            if answer is not None:
                tell(answer)

    def _answer(self, verb: str, asked: Message, tell: Done) -> Message | None:
        """Return the answer; None where `tell` gives it later."""
        try:
            return self._do(verb, asked, tell)
        except Rejected as error:
            return error.answer()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            return Rejected("bad_request", ascii(verb)[:80], what[:400]).answer()
        except OSError as error:
            return Rejected("start_failed", ascii(verb)[:80], str(error)).answer()

    def _do(self, verb: str, asked: Message, tell: Done) -> Message | None:
        if verb == "start":
            if self._is_stopping:
                raise Rejected("stopping", "shepherd", "it is being stopped")
            self._herd.start(asked, tell)
            return None
        if verb == "end":
            self._herd.end(asked["key"], asked["cause"])
            key = asked["key"]
            return {"exit": self._records.exits.get(key), "alive": self._herd.knows(key)}
        if verb == "renew":
            leases: dict[str, float] = asked["leases"]
            return {"unknown": [k for k, s in leases.items() if not self._herd.renew(k, s)]}
        if verb == "list":
            return self._list()
        if verb == "forget":
            self._records.note_forgotten(asked["keys"])
            return {}
        raise Rejected("bad_request", ascii(verb)[:80], "this shepherd does not know it")

    def _list(self) -> Message:
        alive = [
            {
                "key": one.key,
                "pid": one.pid,
                "started_at": one.started_us,
                "ending": one.is_ending,
                "age_us": one.age_us,
            }
            for one in self._herd.alive.values()
        ]
        return {"alive": alive, "exits": list(self._records.exits.values())}

    def _has_news(self) -> bool:
        has_answers = any(agent.answers for agent in self._connections.values())
        return bool(self._herd.fresh_exits) or has_answers

    def _talk(self) -> None:
        exits, self._herd.fresh_exits = self._herd.fresh_exits, []
        for agent in list(self._connections.values()):
            message: dict[str, Any] = {}
            if agent.answers:
                message["answers"], agent.answers = agent.answers, []
            if exits:
                message["exits"] = exits
            if message:
                agent.send(message)
                self._mind(agent)


def open_groups(kind: str, name: str) -> Groups:
    """Open groups of the best kind that works here, or of exactly the kind that is asked for."""
    if kind not in ("auto", *groups.KINDS):
        raise ValueError(f"groups: {kind!r} is none of auto, {', '.join(groups.KINDS)}")
    mountinfo = groups.read_text("/proc/self/mountinfo")
    own = groups.read_text("/proc/self/cgroup")
    for one in ("v2", "v1") if kind == "auto" else (kind,):
        try:
            if one != "proc":
                return cgroups.open_cgroups(one, name, mountinfo, own)
        except OSError as error:
            print(f"no groups by cgroup {one}: {error}", file=sys.stderr)  # noqa: T201 -- its log
            if kind != "auto":
                raise
    return proctree.TreeGroups()


def _lock(folder: str, lock_fd: int) -> bool:
    """Become the one shepherd here; what a killed one has left may hold the lock for a moment."""
    for _ in range(_LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if connection.is_served(folder):
            return False
        time.sleep(_LOCK_PAUSE_S)
    return False


def main(folder: str, options: str) -> None:
    """Serve the state folder of an agent; leave at once when another shepherd does."""
    if os.fork():
        os._exit(0)  # whoever started us need not wait for us
    said = json.loads(options)
    lock_fd = os.open(f"{folder}/{protocol.LOCK_NAME}", os.O_RDWR | os.O_CREAT, 0o600)
    if not _lock(folder, lock_fd):
        return
    os.chdir("/")
    os.umask(0o027)
    native.set_process_name(b"tshrag-shepherd")
    native.become_subreaper()
    if not said.get("new_privileges"):
        native.give_up_new_privileges()
    child_files = limits.widen_open_files()
    status = os.stat(folder)
    state_id = f"{status.st_dev:x}-{status.st_ino:x}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{folder}/shepherd", 0o700)
    records = Records(f"{folder}/shepherd/attempts.jsonl")
    recover.end_what_is_left(records, state_id)
    made = open_groups(said.get("groups", "auto"), f"tshrag-{state_id}")
    records.begin(made.folders)
    poll = select.epoll()
    fds = made.home_fd, lock_fd
    patience_s = float(said.get("start_s", 15.0))
    hands = Hands(patience_s, fds, child_files, lambda fd: poll.register(fd, select.EPOLLIN))
    if isinstance(made, proctree.TreeGroups):
        made.spared = hands.pids
    hands.be_ready()
    herd = Herd(made, hands, records, state_id)
    try:
        Shepherd(folder, poll, hands, herd, records).serve(float(said.get("orphan_s", 60.0)))
    finally:
        records.flush()
        made.close()
