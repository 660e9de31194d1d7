"""The attempts that a shepherd looks after: who is alive, who is due, what is still held."""

import contextlib
import heapq
import itertools
import os
import time

from tshrag_agent.shepherd import limits, proctree
from tshrag_agent.shepherd.attempt import NEVER, Attempt
from tshrag_agent.shepherd.failpoint import failpoint
from tshrag_agent.shepherd.groups import MARK, Group, Groups
from tshrag_agent.shepherd.hands import Done, Hands, MainEnd, Start
from tshrag_agent.shepherd.output import Output, open_output
from tshrag_agent.shepherd.protocol import Message, Rejected
from tshrag_agent.shepherd.records import Records
from tshrag_agent.shepherd.spawn import Command, Place

_STUBBORN_S = 1.0
_LONGEST_KEY = 200


class Herd:
    """Starts attempts, lets time pass for them, collects those that are over."""

    def __init__(self, groups: Groups, hands: Hands, records: Records, state_id: str) -> None:
        self._groups, self._hands, self._records = groups, hands, records
        self._state_id = state_id
        self.kind = groups.kind
        self.alive: dict[str, Attempt] = {}
        self.fresh_exits: list[Message] = []
        self._starting: dict[str, str] = {}  # and the cause to end it, if that is asked already
        self._mains: dict[int, Attempt] = {}
        self._due: list[tuple[float, int, Attempt]] = []
        self._tickets: dict[str, tuple[float, int]] = {}
        self._numbers = itertools.count()
        self._stubborn: list[Group] = []
        self._stubborn_at = NEVER

    @property
    def due_at(self) -> float:
        """When `tick` has something to do."""
        first = self._due[0][0] if self._due else NEVER
        return min(first, self._stubborn_at, self._hands.due_at)

    def start(self, asked: Message, tell: Done) -> None:
        """Have an attempt started, `tell` what came of it; raise Rejected if it cannot be tried."""
        key = asked["key"]
        if not isinstance(key, str) or not 0 < len(key) <= _LONGEST_KEY:
            raise Rejected("bad_key", ascii(key)[:80], f"1 to {_LONGEST_KEY} characters")
        if key in self.alive or key in self._starting or key in self._records.exits:
            raise Rejected("duplicate_key", ascii(key), "it is known here; forget it first")
        bounds = limits.limits(asked.get("limits") or {})
        grace_s, lease_s = float(asked.get("grace_s", 5.0)), asked.get("lease_s")
        mark = f"{self._state_id}:{key}"
        what = _argv(asked["argv"]), _absolute(asked["cwd"], "cwd"), {**asked["env"], MARK: mark}
        outputs = _open_outputs(asked, bounds.output_bytes)
        try:
            group = self._groups.take(bounds, mark)
        except OSError as error:
            _close(outputs)
            raise Rejected("start_failed", "group", str(error)) from None
        attempt = Attempt(key, group, outputs, bounds, grace_s)
        fds = outputs["stdout"].fd, outputs["stderr"].fd
        command = Command(*what, *fds)
        place = Place(group.birth_fd, group.enter_fds, group.has_extras)

        def done(said: Message) -> None:
            tell(self._started(attempt, said, lease_s))

        self._starting[key] = ""
        self._hands.ask(Start(command, place, bounds.rlimits(group.held), done))

    def _started(self, attempt: Attempt, said: Message, lease_s: float | None) -> Message:
        cause = self._starting.pop(attempt.key)
        if "error" in said:
            _close(attempt.outputs)
            self._let_go(attempt.group)
            return said
        failpoint("shepherd.spawned")
        pid, group = said["pid"], attempt.group
        group.bind(pid)
        attempt.started(pid, time.monotonic(), lease_s)
        self._records.note_start(attempt.key, pid, group.name, attempt.started_us)
        self.alive[attempt.key] = self._mains[pid] = attempt
        if cause:
            attempt.end(time.monotonic(), cause)
        self._schedule(attempt)
        return {"pid": pid, "started_at": attempt.started_us}

    def end(self, key: str, cause: str) -> None:
        """Begin to end an attempt, if it is alive and not ending already."""
        attempt = self.alive.get(key)
        if attempt:
            attempt.end(time.monotonic(), cause)
            self._schedule(attempt)
        elif self._starting.get(key) == "":
            self._starting[key] = cause

    def end_all(self, cause: str) -> None:
        for key in [*self.alive, *self._starting]:
            self.end(key, cause)

    def knows(self, key: str) -> bool:
        """Tell whether an attempt is alive, or about to be."""
        return key in self.alive or key in self._starting

    @property
    def is_empty(self) -> bool:
        return not self.alive and not self._starting

    def renew(self, key: str, lease_s: float | None) -> bool:
        """Lengthen a lease; tell whether the attempt is alive."""
        attempt = self.alive.get(key)
        if attempt:
            attempt.renew(time.monotonic(), lease_s)
            self._schedule(attempt)
        return attempt is not None

    def reap(self) -> None:
        """Collect what has ended: main processes by their hands, orphans by ourselves."""
        with contextlib.suppress(ChildProcessError):
            while (end := os.wait4(-1, os.WNOHANG))[0]:
                pid, status, usage = end
                cpu_us = int((usage.ru_utime + usage.ru_stime) * 1e6)
                self._main_ended(MainEnd(pid, status, cpu_us, usage.ru_maxrss * 1024))
                self._hands.pids.discard(pid)
        while self._hands.ends:
            ends, self._hands.ends = self._hands.ends, []
            for main_end in ends:
                self._main_ended(main_end)

    def _main_ended(self, end: MainEnd) -> None:
        attempt = self._mains.pop(end.pid, None)
        if attempt and not attempt.is_over:
            attempt.main_ended(time.monotonic(), end)
            self._after(attempt)

    def tick(self) -> None:
        """Let everything happen that is due now."""
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due_at, number, attempt = heapq.heappop(self._due)
            if self._tickets.get(attempt.key) != (due_at, number):
                continue  # it is over, or due at another time by now
            del self._tickets[attempt.key]
            attempt.tick(now)
            self._note_ticks(attempt)
            self._after(attempt)
        if now >= self._stubborn_at:
            self._end_stubborn()
        if now >= self._hands.due_at:
            self._hands.tick()

    def _note_ticks(self, attempt: Attempt) -> None:
        # Not at the start: the kernel would let us wait for the exec to be over. Until then
        # group and mark are enough to find what a short job leaves behind.
        if not attempt.has_ticks:
            attempt.has_ticks = True
            self._records.note_ticks(attempt.key, proctree.started_ticks(attempt.pid))

    def _after(self, attempt: Attempt) -> None:
        if not attempt.is_over:
            self._schedule(attempt)
            return
        failpoint("shepherd.ended")
        attempt.close()
        message = attempt.exit_message()
        del self.alive[attempt.key]
        self._tickets.pop(attempt.key, None)
        self._records.note_exit(message)
        self.fresh_exits.append(message)
        self._let_go(attempt.group)

    def _schedule(self, attempt: Attempt) -> None:
        due_at = attempt.due_at
        ticket = self._tickets.get(attempt.key)
        if ticket is None or due_at < ticket[0]:
            number = next(self._numbers)
            self._tickets[attempt.key] = (due_at, number)
            heapq.heappush(self._due, (due_at, number, attempt))

    def _let_go(self, group: Group) -> None:
        if group.is_empty():
            self._groups.give_back(group)
        else:
            group.kill()
            self._stubborn.append(group)
            self._stubborn_at = time.monotonic() + _STUBBORN_S

    def _end_stubborn(self) -> None:
        groups, self._stubborn, self._stubborn_at = self._stubborn, [], NEVER
        for group in groups:
            self._let_go(group)


def _open_outputs(asked: Message, most_bytes: int) -> dict[str, Output]:
    stdout_path = _absolute(asked["stdout"], "stdout")
    stderr_path = _absolute(asked["stderr"], "stderr")
    stdout = open_output(stdout_path, most_bytes)
    if stderr_path == stdout_path:
        return {"stdout": stdout, "stderr": stdout}
    try:
        return {"stdout": stdout, "stderr": open_output(stderr_path, most_bytes)}
    except Rejected:
        stdout.close()
        raise


def _close(outputs: dict[str, Output]) -> None:
    for output in set(outputs.values()):
        output.close()


def _absolute(path: str, where: str) -> str:
    if not path.startswith("/"):
        raise Rejected("bad_path", where, f"{path!a} is not absolute")
    return path


def _argv(argv: list[str]) -> list[str]:
    if not argv or not argv[0]:
        raise Rejected("bad_command", "argv", "it is empty", "name a program")
    return argv
