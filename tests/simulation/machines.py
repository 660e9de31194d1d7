"""Lab hosts and boards: what lives there whether or not an agent looks.

A host keeps its processes as the shepherd does: over the death of the agent, under their limits,
at most 60 s without anybody. A board reached by SSH checks fences and holds a lease of the session,
as the wrapper does; a board on a console does neither: there the agent alone keeps order.
"""

import random
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.disk import JournalDisk
from tests.simulation.history import History
from tests.simulation.vloop import VirtualLoop
from tshrag_agent.attempts.host import (
    AliveHost,
    HostExit,
    HostStart,
    Listing,
    Started,
    StartRefused,
)
from tshrag_common.errors import StaleFence

WALL_0 = 1_790_000_000_000_000
ORPHAN_S = 60.0
_STDIN_S, _LEASE_S = 0.6, 10.0
_TERM_S, _KILL_S = 0.05, 5.0


class WallClock:
    """The clocks of one machine: the wall may jump, the monotonic one does not."""

    def __init__(self, loop: VirtualLoop, base_s: float, *, honest: bool = True) -> None:
        self._loop, self._base_s, self._honest = loop, base_s, honest
        self.offset_s = 0.0

    def now(self) -> int:
        return WALL_0 + round((self._loop.time() + self.offset_s) * 1e6)

    def monotonic(self) -> float:
        jumps_s = 0.0 if self._honest else self.offset_s
        return self._base_s + self._loop.time() + jumps_s


@dataclass(frozen=True)
class Script:
    """What a job does: ``sim seconds=2.5 ends=pass lines=3``."""

    seconds: float
    ends: str  # pass, fail, hang, deaf (hangs, and does not mind SIGTERM), poison
    lines: int

    @classmethod
    def of(cls, argv: tuple[str, ...]) -> "Script":
        said = dict(word.split("=", 1) for word in argv[1:])
        return cls(float(said["seconds"]), said["ends"], int(said["lines"]))

    @property
    def lasts_s(self) -> float:
        return self.seconds if self.ends in ("pass", "fail", "poison") else 1e9


class Work:
    """Something that runs, on a host or on a board, and says lines."""

    def __init__(self, name: str, fence: int, job: str, script: Script, began: float) -> None:
        self.name, self.fence, self.job, self.script, self.began = name, fence, job, script, began
        self.started_at = 0
        self.ended: float | None = None
        self.cause = ""
        self.is_ending = False
        self.on_end: list[Callable[[Work], None]] = []

    def said(self, now: float) -> int:
        """Return how many lines there are by now."""
        last = now if self.ended is None else self.ended
        lasts = min(self.script.lasts_s, 10.0)
        share = (last - self.began + 1e-6) / lasts if lasts else 1.0
        return min(self.script.lines, int(self.script.lines * share + 1e-9))


class Machine:
    """A lab host: its disk, its clocks, its processes, its boards."""

    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        chance: random.Random,
        history: History,
        folder: Path,
        slots: int,
        *,
        honest_clock: bool,
    ) -> None:
        self.name, self.loop, self.history, self.slots = name, loop, history, slots
        self.disk = JournalDisk(loop, chance, folder)
        self.clock = WallClock(loop, chance.uniform(1e5, 1e6), honest=honest_clock)
        self.boards: dict[str, Board] = {}
        self.poison: Callable[[], None] = lambda: None
        self._works: dict[str, Work] = {}
        self._exits: dict[str, HostExit] = {}
        self._tell: Callable[[HostExit], None] | None = None
        self._agent: Context | None = None
        self._alone_since = 0.0

    def meet(self, tell: Callable[[HostExit], None], agent: Context) -> None:
        """Let an agent be the one that is told of exits."""
        self._tell, self._agent = tell, agent

    def leave(self) -> None:
        """The agent is gone; after a while so is what it left."""
        self._tell = self._agent = None
        self._alone_since = self.loop.time()
        self.loop.call_later(ORPHAN_S, self._end_orphans, self._alone_since, context=Context())

    def start(self, what: HostStart, fence: int, job: str) -> Started:
        if what.key in self._works or what.key in self._exits:
            raise StartRefused("", what.key, code="duplicate_key")
        work = Work(what.key, fence, job, Script.of(what.argv), self.loop.time())
        work.started_at = self.clock.now()
        self._works[what.key] = work
        self.history.note(self.loop.time(), "host_began", self.name, fence, job)
        ends_s, limit_s = work.script.lasts_s, what.limits.wall_s or 1e9
        cause = "exited" if ends_s <= limit_s else "timeout"
        self._later(min(ends_s, limit_s), lambda: self._over(work, cause))
        if work.script.ends == "poison":
            self._later(work.script.seconds / 2, self.poison)
        return Started(key=what.key, pid=1, started_at=work.started_at)

    def end(self, key: str, cause: str) -> HostExit | None:
        """Begin to end a process; return its exit where it has ended already."""
        work = self._works.get(key)
        if work is None:
            if key not in self._exits:
                raise StartRefused("", f"no process {key} is known", code="unknown_key")
            return self._exits[key]
        if not work.is_ending:
            work.is_ending = True
            wait_s = _KILL_S if work.script.ends == "deaf" else _TERM_S
            self._later(wait_s, lambda: self._over(work, cause))
        return None

    def work(self, key: str) -> Work | None:
        return self._works.get(key)

    def listing(self) -> Listing:
        alive = tuple(
            AliveHost(
                key=work.name,
                pid=1,
                started_at=work.started_at,
                ending=work.is_ending,
                age_us=round((self.loop.time() - work.began) * 1e6),
            )
            for work in self._works.values()
            if work.ended is None
        )
        return Listing(alive=alive, exits=tuple(self._exits.values()))

    def forget(self, keys: tuple[str, ...]) -> None:
        for key in keys:
            if self._exits.pop(key, None) is not None:
                self._works.pop(key, None)

    def alive(self) -> list[Work]:
        return [work for work in self._works.values() if work.ended is None]

    def lose_power(self) -> None:
        """End everything here at once; nobody remembers it."""
        for work in self.alive():
            work.ended, work.cause = self.loop.time(), "power"
            self.history.note(self.loop.time(), "host_ended", self.name, work.fence, "power")
        self._works, self._exits = {}, {}

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self.loop.call_later(seconds, act, context=Context())

    def _over(self, work: Work, cause: str) -> None:
        if work.ended is not None:
            return
        now = self.loop.time()
        work.ended, work.cause = now, cause
        self.history.note(now, "host_ended", self.name, work.fence, cause)
        by_itself = cause == "exited"
        failed = work.script.ends == "fail"
        exit = HostExit(
            key=work.name,
            cause=cause,
            exit_code=int(failed) if by_itself else None,
            signal=None if by_itself else 15,
            started_at=work.started_at,
            ended_at=self.clock.now(),
        )
        self._exits[work.name] = exit
        if self._tell is not None and self._agent is not None:
            self.loop.call_later(0.001, self._tell, exit, context=self._agent)

    def _end_orphans(self, since: float) -> None:
        if self._tell is None and self._alone_since == since:
            for work in self.alive():
                self.end(work.name, "orphaned")


@dataclass
class Board:
    """A DUT. One session lives on it; whoever begins a second one is seen."""

    name: str
    way: str  # ssh, serial
    machine: Machine
    checks_fences: bool = True
    fence: int = 0
    is_reachable: bool = True
    is_shared: bool = False  # more than one agent reaches it
    sessions: list[Work] = field(default_factory=list)
    _driver: dict[str, object] = field(default_factory=dict)

    def begin(self, fence: int, job: str, script: Script, driver: object) -> Work:
        """Begin a session; an SSH board ends an older one first and refuses an old fence."""
        loop, history = self.machine.loop, self.machine.history
        if self.way == "ssh" and self.checks_fences:
            if fence <= self.fence:
                raise StaleFence(fence, self.fence)
            self._end_all("replaced")
            self.fence = fence
        elif self.way == "serial":  # what an earlier agent left on the line is ended by a step
            for work in [one for one in self.sessions if self._driver[one.name] is not driver]:
                self.end(work, "replaced")
        work = Work(f"{self.name}.{fence}.{loop.time()}", fence, job, script, loop.time())
        work.started_at = self.machine.clock.now()
        if self.sessions:
            others = [one.fence for one in self.sessions]
            history.violate(loop.time(), "I3", f"{self.name} has {fence} beside {others}")
        self.sessions.append(work)
        self._driver[work.name] = driver
        history.note(loop.time(), "board_began", self.name, fence, job)
        loop.call_later(script.lasts_s, self.end, work, "exited", context=Context())
        return work

    def end(self, work: Work, cause: str) -> None:
        if work not in self.sessions:
            return
        loop = self.machine.loop
        self.sessions.remove(work)
        del self._driver[work.name]
        work.ended, work.cause = loop.time(), cause
        self.machine.history.note(loop.time(), "board_ended", self.name, work.fence, cause)
        for tell in work.on_end:
            tell(work)

    def sweep(self, fence: int) -> None:
        """End what lives under a fence, whoever began it."""
        for work in [one for one in self.sessions if one.fence == fence]:
            self.end(work, "swept")

    def _driven_by(self, driver: object) -> list[Work]:
        return [work for work in self.sessions if self._driver[work.name] is driver]

    def driver_died(self, driver: object) -> None:
        """The other end of a session is gone: its lease runs out; on a console nothing notices."""
        if self.way == "ssh":
            for work in self._driven_by(driver):
                self.machine.loop.call_later(_STDIN_S, self.end, work, "lease", context=Context())

    def driver_froze(self, driver: object, is_frozen_still: Callable[[], bool]) -> None:
        """The lease is not renewed any more; in time, or the session is over."""
        self._let_lapse(self._driven_by(driver), is_frozen_still)

    def _let_lapse(self, works: list[Work], is_silent_still: Callable[[], bool]) -> None:
        for work in works:
            self.machine.loop.call_later(
                _LEASE_S, self._lapse, work, is_silent_still, context=Context()
            )

    def _lapse(self, work: Work, is_silent_still: Callable[[], bool]) -> None:
        if self.way == "ssh" and is_silent_still():
            self.end(work, "lease")

    def unplug(self) -> None:
        self.is_reachable = False
        self._let_lapse(list(self.sessions), lambda: not self.is_reachable)

    def plug(self) -> None:
        self.is_reachable = True

    def reboot(self) -> None:
        """Everything on it is gone, its memory of fences too."""
        self._end_all("reboot")
        self.fence = 0

    def _end_all(self, cause: str) -> None:
        for work in list(self.sessions):
            self.end(work, cause)
