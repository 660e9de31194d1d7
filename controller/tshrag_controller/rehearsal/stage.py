"""PURE: the lab and the clock of a rehearsal: jobs last as long as their lines say.

The core is driven as the engine drives it, from one instant at which something happens to the
next; agents do what they are told at once, make a setup where it is not in place, and report.
"""

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

import msgspec
from msgspec.structs import replace

from tshrag_common import ids
from tshrag_common.errors import Invalid
from tshrag_common.ids import AgentId, DutId, Fence, OrgId, RunId
from tshrag_common.inventory import AgentFacts
from tshrag_common.reports import AnyReport, Ended, Hello, ReportBatch, Started
from tshrag_common.states import JOB
from tshrag_common.work import WorkFaults, WorkLine
from tshrag_controller.core.apply import forget
from tshrag_controller.core.decision import Decision, Effect, ForgetRun, SendCancel, SendStart
from tshrag_controller.core.events import RunAdmitted
from tshrag_controller.core.lab import PREEMPTED, Lab
from tshrag_controller.core.on_agent import on_reports
from tshrag_controller.core.on_run import on_submit
from tshrag_controller.core.on_tick import next_due, on_tick
from tshrag_controller.core.sched_events import PolicySet
from tshrag_controller.core.schedule import schedule
from tshrag_controller.rehearsal.files import WorkRun
from tshrag_controller.rehearsal.persons import BEGAN_US, Persons, chance
from tshrag_controller.rehearsal.variants import Variant

NO_FAULTS = WorkFaults()


class Played(msgspec.Struct, frozen=True):
    """A job that had its turn; instants in seconds from the beginning of the work."""

    line: WorkLine
    ready_s: float  # submitted, and all that it comes after had ended
    began_s: float
    ended_s: float
    place: str  # DUT, or host
    on_dut: bool
    setup: str  # made, found, or "": it needs none


class Outcome(msgspec.Struct, frozen=True):
    """All that came of the work: what was played, what fits no place, what never got one."""

    played: tuple[Played, ...]
    unfit: tuple[str, ...]  # why, one a job
    left: int
    preempted: int = 0  # attempts that gave way
    faults: int = 0  # attempts that the lab failed
    given_up: int = 0  # jobs that were failed too often
    leases: tuple[float, ...] = ()  # seconds that each had to wait
    unleased: int = 0  # leases that were refused, or never got a board


class _Live(msgspec.Struct, frozen=True):
    agent: AgentId
    dut: DutId | None
    line: WorkLine
    run: RunId
    began: int
    setup: str
    digest: str
    fails: bool = False


class Stage:
    """One rehearsal; `play` lets all of it happen."""

    def __init__(
        self,
        hosts: Sequence[AgentFacts],
        work: Sequence[WorkRun],
        variant: Variant,
        faults: WorkFaults = NO_FAULTS,
    ) -> None:
        self._lab, self._now = Lab(), BEGAN_US
        self._decision = Decision(self._lab, self._now)
        self._queue = deque(work)
        self._variant = variant
        self._ends: list[tuple[int, Fence]] = []
        self._live: dict[Fence, _Live] = {}
        self._seqs: dict[AgentId, int] = {}
        self._carried: dict[DutId, str] = {}
        self._lines: dict[RunId, tuple[WorkRun, dict[int, int]]] = {}  # and ends by serial
        self._jobs = 0
        self._played: list[Played] = []
        self._unfit: list[str] = []
        self._preempted = self._faulted = self._given_up = 0
        self._faults = faults
        self._people = Persons(run.lines[0] for run in work)
        self._decision.happen(PolicySet(policy=variant.policy))
        for facts in hosts:
            self._report(facts.agent, Hello(at=self._now, facts=facts))
        self._people.reserve(self._decision)
        self._turn()

    def play(self, tell: Callable[[int], None] = lambda _: None) -> Outcome:
        """Let all of it happen; `tell` hears now and then how many jobs have ended."""
        steps = 0
        while (at := self._next()) is not None:
            self._now = max(self._now + 1, at)
            self._decision = Decision(self._lab, self._now)
            while self._queue and self._due(self._queue[0]) <= self._now:
                self._submit(self._queue.popleft())
            while self._ends and self._ends[0][0] <= self._now:
                self._finish(heappop(self._ends)[1])
            self._turn()
            steps += 1
            if steps % 256 == 0:
                tell(len(self._played))
        left = self._jobs - len(self._played) - len(self._unfit) - self._given_up
        waits, unleased = self._people.result()
        return Outcome(
            tuple(self._played), tuple(self._unfit), left, self._preempted, self._faulted,
            self._given_up, waits, unleased,
        )  # fmt: skip

    def _next(self) -> int | None:
        """Return the next instant at which something happens; None: nothing ever will."""
        due = [self._due(self._queue[0])] if self._queue else []
        due += [self._ends[0][0]] if self._ends else []
        timer = next_due(self._lab)
        if timer and (due or self._lab.runs):
            due.append(timer)
        return min(due, default=None)

    @staticmethod
    def _due(run: WorkRun) -> int:
        return BEGAN_US + round(run.at * 1e6)

    def _submit(self, run: WorkRun) -> None:
        shown = run if self._variant.groups else WorkRun(run.at, tuple(map(_ungrouped, run.lines)))
        first = run.lines[0]
        if first.what == "lease":
            self._people.ask(self._decision, first)
            return
        name = ids.new_run(BEGAN_US // 1000, len(self._lines) + 1)
        placed = sum(line.what == "job" for line in run.lines)
        self._jobs += placed
        admitted = RunAdmitted(
            run=name, org=OrgId(first.org), by="rehearsal", key="", name=first.name[:60],
            priority=first.priority if self._variant.priorities else 50, profile=b"{}",
            plan=shown.plan,
        )  # fmt: skip
        self._lines[name] = (run, {})
        try:
            on_submit(self._decision, admitted)
        except Invalid as error:
            self._unfit += [error.problems[0].what] * placed

    def _turn(self) -> None:
        """End the turn as the engine does; a frame holds only so much, so there may be several."""
        while True:
            decision = self._decision
            on_tick(decision)
            schedule(decision)
            self._lab.sequence += 1
            self._lab.turn_fences = 0
            self._people.look(self._lab, self._now)
            begun, stopped = self._carry_out(decision.effects)
            self._decision = Decision(self._lab, self._now)
            for fence in begun:
                if self._live[fence].line.preemptible:
                    self._report(self._live[fence].agent, Started(at=self._now, fence=fence))
            for fence in stopped:
                self._stop(fence)
            if not begun and not stopped:
                return

    def _carry_out(self, effects: Sequence[Effect]) -> tuple[list[Fence], list[Fence]]:
        """Return which attempts have begun, and which have to give way."""
        begun: list[Fence] = []
        stopped: list[Fence] = []
        for effect in effects:
            if isinstance(effect, SendStart):
                self._begin(effect.agent, effect.fence)
                begun.append(effect.fence)
            elif isinstance(effect, SendCancel) and self._gives_way(effect.fence):
                stopped.append(effect.fence)
            elif isinstance(effect, ForgetRun) and effect.run in self._lab.runs:
                forget(self._lab, effect.run)
        return begun, stopped

    def _gives_way(self, fence: Fence) -> bool:
        attempt = self._lab.attempts.get(fence)
        is_stopped = attempt is not None and self._lab.jobs[attempt.job].stop == PREEMPTED
        return is_stopped and fence in self._live

    def _stop(self, fence: Fence) -> None:
        """End what gives way: its work is lost, its job begins anew later."""
        live = self._live.pop(fence)
        self._preempted += 1
        if live.dut is not None:
            self._carried.pop(live.dut, None)
        ended = Ended(
            at=self._now, fence=fence, outcome="cancelled", started_at=live.began,
            carries=() if live.dut is not None else None,
        )  # fmt: skip
        self._report(live.agent, ended)

    def _begin(self, agent: AgentId, fence: Fence) -> None:
        attempt = self._lab.attempts[fence]
        job = self._lab.jobs[attempt.job]
        run, _ = self._lines[job.run]
        line = run.lines[job.serial - 1]
        need = self._lab.runs[job.run].spec(job).need
        digest, setup, extra_s = "", "", 0.0
        if attempt.dut is not None and (line.group or line.need.group is not None):
            digest = need.group.digest if need.group is not None else str(fence)
            setup = "found" if self._carried.get(attempt.dut) == digest else "made"
            extra_s = line.setup_s if setup == "made" else 0.0
        if attempt.dut is not None:
            self._carried[attempt.dut] = digest
        place = attempt.dut or agent
        fails = chance(self._faults.seed, fence) < self._faults.at.get(place, self._faults.ratio)
        self._live[fence] = _Live(
            agent, attempt.dut, line, job.run, self._now, setup, digest, fails
        )
        whole_s = line.seconds + extra_s
        lasts_s = whole_s * chance(~self._faults.seed, fence) if fails else whole_s
        heappush(self._ends, (self._now + round(lasts_s * 1e6), fence))

    def _finish(self, fence: Fence) -> None:
        live = self._live.pop(fence, None)
        if live is None:
            return  # it gave way meanwhile
        if live.fails:
            self._fail(live, fence)
            return
        ended = Ended(
            at=self._now, fence=fence, outcome=live.line.outcome, started_at=live.began,
            carries=(live.digest,) if live.digest else () if live.dut is not None else None,
            setup=live.setup, setup_us=round(live.line.setup_s * 1e6),  # type: ignore[arg-type]  # a word
        )  # fmt: skip
        run, ends = self._lines[live.run]
        ends[live.line.serial] = self._now
        ready = max([self._due(run), *(ends.get(each, 0) for each in live.line.after)])
        self._played.append(
            Played(
                line=live.line,
                ready_s=(ready - BEGAN_US) / 1e6,
                began_s=(live.began - BEGAN_US) / 1e6,
                ended_s=(self._now - BEGAN_US) / 1e6,
                place=live.dut or live.agent,
                on_dut=live.dut is not None,
                setup=live.setup,
            )
        )
        self._report(live.agent, ended)

    def _fail(self, live: _Live, fence: Fence) -> None:
        """Let the lab fail an attempt: the core tries its job again, elsewhere, or gives it up."""
        self._faulted += 1
        if live.dut is not None:
            self._carried.pop(live.dut, None)
        job = self._lab.jobs[self._lab.attempts[fence].job]
        ended = Ended(
            at=self._now, fence=fence, outcome="error", started_at=live.began,
            carries=() if live.dut is not None else None,
        )  # fmt: skip
        self._report(live.agent, ended)
        if JOB.is_final(job.state) or job.faults >= self._lab.runs[live.run].spec(job).attempts:
            self._given_up += 1
            self._lines[live.run][1][live.line.serial] = self._now

    def _report(self, agent: AgentId, *reports: AnyReport) -> None:
        first = self._seqs.get(agent, 0) + 1
        self._seqs[agent] = first + len(reports) - 1
        batch = ReportBatch(agent=agent, spool="s", first_seq=first, reports=reports)
        on_reports(self._decision, batch)


def _ungrouped(line: WorkLine) -> WorkLine:
    return replace(line, group="", need=replace(line.need, group=None))
