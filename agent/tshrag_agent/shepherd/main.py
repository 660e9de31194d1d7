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
from tshrag_agent.shepherd.herd import Herd
from tshrag_agent.shepherd.protocol import Message, Rejected
from tshrag_agent.shepherd.records import Records
from tshrag_agent.shepherd.spawn import Spawner

_STARTS_A_TURN = 8  # then who has ended comes first
_RUSH = 4  # so many waiting starts are a rush (spawn.py)
_LONGEST_WAIT_S = 60.0

Asked = tuple[Connection, int, str, Message]


class Shepherd:
    """The loop: hear, reap, start, let time pass, write down, answer."""

    def __init__(self, folder: str, herd: Herd, records: Records, kind: str) -> None:
        self._herd, self._records, self._kind = herd, records, kind
        self._listener = connection.listen(folder)
        self._connections: dict[int, Connection] = {}
        self._asked: deque[Asked] = deque()
        self._waiting_starts = 0
        self._alone_since = time.monotonic()
        self._is_stopping = False
        self._poll = select.epoll()
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
            self._records.flush()  # before anybody hears of it
            self._talk()

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
        return not self._herd.alive and (self._is_stopping or is_orphan)

    def _wait_s(self, orphan_s: float) -> float:
        if self._asked:
            return 0.0
        due_at = self._herd.due_at
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
            elif fd in self._connections:
                self._hear_agent(self._connections[fd], event)

    def _welcome(self) -> None:
        agent = connection.accept(self._listener)
        if agent is None:
            return
        self._connections[agent.fd] = agent
        self._poll.register(agent.fd, select.EPOLLIN)
        hello = {"version": protocol.VERSION, "pid": os.getpid(), "groups": self._kind}
        agent.send({"hello": hello})

    def _hear_agent(self, agent: Connection, event: int) -> None:
        if event & select.EPOLLOUT:
            agent.flush()
        if event & ~select.EPOLLOUT:
            for message in agent.receive():
                self._take(agent, message)
        self._mind(agent)

    def _take(self, agent: Connection, message: Message) -> None:
        try:
            for number, verb, asked in message["ops"]:
                self._waiting_starts += verb == "start"
                self._asked.append((agent, number, verb, asked))
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
        starts = 0
        while self._asked and starts < _STARTS_A_TURN:
            agent, number, verb, asked = self._asked.popleft()
            if verb == "start":
                starts += 1
                self._waiting_starts -= 1
            agent.answers.append((number, self._answer(verb, asked)))

    def _answer(self, verb: str, asked: Message) -> Message:
        try:
            return self._do(verb, asked)
        except Rejected as error:
            return error.answer()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            return Rejected("bad_request", ascii(verb)[:80], what[:400]).answer()
        except OSError as error:
            return Rejected("start_failed", ascii(verb)[:80], str(error)).answer()

    def _do(self, verb: str, asked: Message) -> Message:
        if verb == "start":
            if self._is_stopping:
                raise Rejected("stopping", "shepherd", "it is being stopped")
            return self._herd.start(asked, rush=self._waiting_starts >= _RUSH)
        if verb == "end":
            self._herd.end(asked["key"], asked["cause"])
            key = asked["key"]
            return {"exit": self._records.exits.get(key), "alive": key in self._herd.alive}
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
            }
            for one in self._herd.alive.values()
        ]
        return {"alive": alive, "exits": list(self._records.exits.values())}

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


def main(folder: str, options: str) -> None:
    """Serve the state folder of an agent; leave at once when another shepherd does."""
    if os.fork():
        os._exit(0)  # whoever started us need not wait for us
    said = json.loads(options)
    lock_fd = os.open(f"{folder}/{protocol.LOCK_NAME}", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
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
    herd = Herd(made, Spawner(made.home_fd, child_files), records, state_id)
    try:
        Shepherd(folder, herd, records, made.kind).serve(float(said.get("orphan_s", 60.0)))
    finally:
        records.flush()
        made.close()
