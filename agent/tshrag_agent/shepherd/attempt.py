"""One host process and its tree, from its start until nothing of it is alive.

running --(end asked, limit, lease)--> ending --(grace is over)--> killing --> over
running --(main process ended, something left)--> ending ...
running --(main process ended, nothing left)--> over
"""

import contextlib
import os
import signal
import time
from typing import NamedTuple

from tshrag_agent.shepherd.groups import Group, command_of
from tshrag_agent.shepherd.hands import MainEnd
from tshrag_agent.shepherd.limits import Limits
from tshrag_agent.shepherd.output import Output
from tshrag_agent.shepherd.protocol import Message

NEVER = float("inf")
_LEFTOVER_GRACE_S = 1.0  # the job is over: what it left behind gets a moment, not a grace
_GIVE_UP_S = 5.0  # after SIGKILL; what is alive then hangs in the kernel
_LOOK_S = 0.02
_MOST_NAMED = 100  # processes named in an exit; a fork bomb has thousands


class Stopped(NamedTuple):
    """A process that did not end by itself, and which signal it got last."""

    command: str
    how: str


class Attempt:
    """A host process that is alive; the shepherd calls `tick` when `due_at` has come."""

    def __init__(
        self,
        key: str,
        group: Group,
        outputs: dict[str, Output],
        limits: Limits,
        grace_s: float,
    ) -> None:
        self.key, self.group, self.outputs, self.limits = key, group, outputs, limits
        self.pid = 0
        self.is_over = False
        self.has_ticks = False  # is its start time on record?
        self.unkillable: list[int] = []
        self._grace_s = grace_s
        self._state = "running"
        self._cause = ""
        self._main_end: MainEnd | None = None
        self._left_behind = 0
        self._stopped: dict[int, Stopped] = {}
        self._wall_until = self._lease_until = self._kill_at = self._give_up_at = NEVER
        self._look_at = NEVER

    def started(self, pid: int, now: float, lease_s: float | None) -> None:
        """Begin to count: the main process is there."""
        self.pid = pid
        self.started_us = time.time_ns() // 1000
        self._started = self._checked = now
        self._check_at = now + 0.1
        if self.limits.wall_s is not None:
            self._wall_until = now + self.limits.wall_s
        self.renew(now, lease_s)

    @property
    def age_us(self) -> int:
        """Return how long it has lived, by the monotonic clock."""
        return int((time.monotonic() - self._started) * 1e6)

    @property
    def due_at(self) -> float:
        """When `tick` has something to do."""
        if self._state == "running":
            return min(self._check_at, self._wall_until, self._lease_until)
        return min(self._check_at, self._look_at)

    @property
    def is_ending(self) -> bool:
        return self._state != "running"

    def renew(self, now: float, lease_s: float | None) -> None:
        """Live for `lease_s` from now; None: without a lease."""
        self._lease_until = NEVER if lease_s is None else now + lease_s

    def end(self, now: float, cause: str) -> None:
        """Begin to end everything; the first cause stays."""
        if self._state == "running":
            self._cause = cause
            self._begin_end(now, self._grace_s)

    def main_ended(self, now: float, end: MainEnd) -> None:
        """Take note that the main process has been reaped."""
        self._main_end, self._ended, self._ended_us = end, now, time.time_ns() // 1000
        cause = "exited" if end.status is not None else "lost"
        if self._state != "running":
            self._look(now)
        elif self.group.is_empty():
            self._cause, self.is_over = cause, True
        else:
            self._cause = cause
            self._left_behind = len(self.group.pids())
            self._begin_end(now, min(self._grace_s, _LEFTOVER_GRACE_S))

    def tick(self, now: float) -> None:
        """Do what is due: bound the output, hold limit and lease, go on with the end."""
        if now >= self._check_at:
            elapsed, self._checked = now - self._checked, now
            pauses = [output.check(elapsed) for output in self.outputs.values()]
            self._check_at = now + min(pauses)
        if self._state != "running":
            self._look(now)
        elif now >= self._wall_until:
            self.end(now, "timeout")
        elif now >= self._lease_until:
            self.end(now, "lease")

    def exit_message(self) -> Message:
        """Say what came of it, once it is over."""
        main = self._main_end
        status = (
            os.waitstatus_to_exitcode(main.status) if main and main.status is not None else None
        )
        named = sorted(self._stopped.items())[:_MOST_NAMED]
        return {
            "key": self.key,
            "pid": self.pid,
            "cause": self._cause,
            "exit_code": status if status is not None and status >= 0 else None,
            "signal": -status if status is not None and status < 0 else None,
            "started_at": self.started_us,
            "ended_at": self._ended_us if main else time.time_ns() // 1000,
            "wall_us": int(((self._ended if main else time.monotonic()) - self._started) * 1e6),
            "cpu_us": main.cpu_us if main else 0,
            "max_rss_bytes": main.max_rss_bytes if main else 0,
            "oom_kills": self.group.oom_kills(),
            "left_behind": self._left_behind,
            "stopped": [[pid, one.command, one.how] for pid, one in named],
            "stopped_count": len(self._stopped),
            "unkillable": self.unkillable,
            "written_bytes": {name: out.written_bytes for name, out in self.outputs.items()},
            "cut_bytes": {name: out.cut_bytes for name, out in self.outputs.items()},
        }

    def close(self) -> None:
        for output in set(self.outputs.values()):
            output.close()

    def _begin_end(self, now: float, grace_s: float) -> None:
        self._state = "ending"
        self._kill_at = now + grace_s
        self._look_at = now + min(_LOOK_S, grace_s)
        for pid in self.group.pids():
            self._note(pid, "term")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGCONT)  # a stopped process hears SIGTERM only then

    def _look(self, now: float) -> None:
        if self._main_end and self.group.is_empty():
            self.is_over = True
        elif now >= self._give_up_at:
            self.unkillable = self.group.pids() or [self.pid]
            self.is_over = True
        elif now >= self._kill_at:
            self._kill(now)
        self._look_at = min(now + _LOOK_S, max(self._kill_at, now + 0.001))

    def _kill(self, now: float) -> None:
        if self._state == "ending":
            self._state = "killing"
            self._give_up_at = now + _GIVE_UP_S
            for pid in self.group.pids():
                self._note(pid, "kill")
        self.group.kill()

    def _note(self, pid: int, how: str) -> None:
        known = self._stopped.get(pid)
        if known or len(self._stopped) < 10 * _MOST_NAMED:
            command = known.command if known else command_of(pid)
            self._stopped[pid] = Stopped(command, how)
