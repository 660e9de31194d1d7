"""The scheduler alone: a pass over everything that waits, a turn after one end, growth, groups.

The pure core, without a bus. A pass gives 1,000 DUTs of 50 kinds to 10,000 jobs of 50 classes; a
turn is one job that ends and the next that takes its DUT. The limit of both is the same work with
a tenth of it. Grouping is a week of work on 30 boards with a setup of 60 s, in virtual time, beside
the same work first come first served, and beside what no order could undercut.
"""

import gc
import random
import time
from collections import deque
from heapq import heappop, heappush

from benchmarks.harness import Figure, Scale, figure
from tshrag_common import ids
from tshrag_common.ids import AgentId, DutId, Fence, OrgId
from tshrag_common.inventory import AgentFacts, Dut
from tshrag_common.jobs import Group, JobSpec, Need, Plan, PlannedJob, Target
from tshrag_common.reports import AnyReport, Ended, Hello, ReportBatch
from tshrag_controller.core.apply import forget
from tshrag_controller.core.decision import Decision, ForgetRun, SendStart
from tshrag_controller.core.events import RunAdmitted
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.on_agent import on_reports
from tshrag_controller.core.on_run import on_submit
from tshrag_controller.core.on_tick import next_due, on_tick
from tshrag_controller.core.schedule import MOST_PER_TURN, schedule

BEGAN_US = 1_800_000_000_000_000
CLASSES = 50
SETUP_S = 60
BOARDS = 30
VERSIONS = 20
WEEK_S = 7 * 86_400


def measure(scale: Scale) -> list[Figure]:
    rounds = scale.of(5, 1)
    return [_pass(scale, rounds), *_turns(scale, rounds), *_growth(scale), *_grouping(scale)]


class Boards:
    """A Lab with DUTs of many kinds, ten behind an agent, driven as the engine drives it."""

    def __init__(self, duts: int, kinds: int) -> None:
        self.lab, self.now = Lab(), BEGAN_US
        self.live: deque[tuple[AgentId, Fence]] = deque()
        self._runs, self._seqs = 0, dict[AgentId, int]()
        self.decision = Decision(self.lab, self.now)
        for first in range(0, duts, 10):
            name = AgentId(f"agent-{first // 10}")
            told = tuple(
                Dut(id=DutId(f"dut-{each}"), kind=f"kind-{each % kinds}", transports=("ssh",))
                for each in range(first, min(duts, first + 10))
            )
            facts = AgentFacts(agent=name, boot="b", version="0", slots=0, duts=told)
            self.report(name, Hello(at=self.now, facts=facts))
        self.turn()

    def submit(self, spec: JobSpec, jobs: int = 1) -> None:
        """Admit one run with so many equal jobs."""
        self._runs += 1
        planned = tuple(PlannedJob(serial, "job", 0) for serial in range(1, jobs + 1))
        admitted = RunAdmitted(
            run=ids.new_run(BEGAN_US // 1000 + self._runs, self._runs), org=OrgId("default"),
            by="bench", key="", name="bench", priority=50, profile=b"{}",
            plan=Plan(specs=(spec,), jobs=planned),
        )  # fmt: skip
        on_submit(self.decision, admitted, park=True)

    def turn(self) -> list[Fence]:
        """End the turn; return what was given."""
        decision, lab = self.decision, self.lab
        on_tick(decision)
        schedule(decision)
        lab.sequence += 1
        lab.turn_fences = 0
        given: list[Fence] = []
        for effect in decision.effects:
            if isinstance(effect, SendStart):
                self.live.append((effect.agent, effect.fence))
                given.append(effect.fence)
            elif isinstance(effect, ForgetRun) and effect.run in lab.runs:
                forget(lab, effect.run)
        self.now += 1
        self.decision = Decision(lab, self.now)
        return given

    def end(self, agent: AgentId, fence: Fence, **more: object) -> None:
        ended = Ended(at=self.now, fence=fence, outcome="passed", started_at=self.now, **more)  # type: ignore[arg-type]  # fields of Ended
        self.report(agent, ended)

    def report(self, agent: AgentId, *reports: AnyReport) -> None:
        first = self._seqs.get(agent, 0) + 1
        self._seqs[agent] = first + len(reports) - 1
        batch = ReportBatch(agent=agent, spool="s", first_seq=first, reports=reports)
        on_reports(self.decision, batch)


def a_spec(kind: int, hold: str = "job", group: Group | None = None) -> JobSpec:
    target = Target(runtime="ssh", kind=f"kind-{kind}", hold=hold)  # type: ignore[arg-type]  # a word
    need = Need(target=target, role=f"{hold}-{kind}", group=group)
    return JobSpec(kind="command", argv=("true",), need=need)


def waiting(duts: int, jobs: int, classes: int) -> Boards:
    """Return a lab in which all of that waits for a pass; one in ten jobs keeps its DUT."""
    classes = min(classes, duts)
    boards = Boards(duts, classes)
    for number in range(jobs):
        boards.submit(a_spec(number % classes, "run" if number % 10 == 0 else "job"))
    return boards


def _pass_ms(duts: int, jobs: int, classes: int) -> float:
    boards = waiting(duts, jobs, classes)
    gc.collect()
    gc.disable()
    try:
        began = time.perf_counter()
        given = len(boards.turn())
        while given < min(duts, jobs) and given % MOST_PER_TURN == 0:  # a frame holds no more
            given += len(boards.turn())
        took = time.perf_counter() - began
    finally:
        gc.enable()
    if given != min(duts, jobs):
        raise AssertionError(f"{given} of {duts} DUTs were given")
    return 1e3 * took


def _pass(scale: Scale, rounds: int) -> Figure:
    duts, jobs = scale.of(1000, 50), scale.of(10_000, 500)
    ours = [_pass_ms(duts, jobs, CLASSES) for _ in range(rounds)]
    tenth = [_pass_ms(max(1, duts // 10), jobs // 10, CLASSES) for _ in range(rounds)]
    return figure(
        "schedule_pass",
        f"one pass that gives {duts} DUTs to {jobs} waiting jobs of {CLASSES} classes",
        "ms",
        ours=ours,
        limits=tenth,
        limit_is="a tenth of the DUTs and of the jobs",
        aim=50.0,
        better="lower",
    )


def _turn_ms(duts: int, jobs: int, turns: int) -> tuple[float, float]:
    """Return p50 and p99 of turns in which one job ends and the next takes its DUT."""
    boards = waiting(duts, jobs, CLASSES)
    boards.turn()
    took: list[float] = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(min(turns, jobs - len(boards.live))):
            agent, fence = boards.live.popleft()
            boards.now += 1000
            boards.decision = Decision(boards.lab, boards.now)
            began = time.perf_counter()
            boards.end(agent, fence)
            boards.turn()
            took.append(1e3 * (time.perf_counter() - began))
    finally:
        gc.enable()
    took.sort()
    return took[len(took) // 2], took[int(len(took) * 0.99)]


def _turns(scale: Scale, rounds: int) -> list[Figure]:
    duts, jobs, turns = scale.of(1000, 50), scale.of(10_000, 500), scale.of(1000, 50)
    ours = [_turn_ms(duts, jobs, turns) for _ in range(rounds)]
    tenth = [
        _turn_ms(max(1, duts // 10), jobs // 10, min(turns, jobs // 20)) for _ in range(rounds)
    ]
    return [
        figure(
            f"schedule_turn_{name}",
            f"a job ends, the next takes its DUT, {duts} DUTs and {jobs} waiting jobs, {name}",
            "ms",
            ours=[each[index] for each in ours],
            limits=[each[index] for each in tenth],
            limit_is="a tenth of the DUTs and of the jobs",
            aim=1.0 if name == "p99" else None,
            better="lower",
        )
        for index, name in enumerate(("p50", "p99"))
    ]


def _growth(scale: Scale) -> list[Figure]:
    """Return the cost of a pass a placement, and of a turn, as jobs and DUTs grow."""
    jobs = scale.of(100_000, 2000)
    duts = scale.of(10_000, 200)
    few = jobs // 10
    by_jobs = {count: _turn_ms(scale.of(1000, 50), count, 100)[0] for count in (few, jobs)}
    by_duts = {
        count: 1e3 * _pass_ms(count, 2 * count, CLASSES) / count for count in (duts // 100, duts)
    }
    return [
        figure(
            "schedule_growth_jobs",
            f"a turn with {jobs} waiting jobs, p50",
            "ms",
            ours=[by_jobs[jobs]],
            limits=[by_jobs[few]],
            limit_is=f"with {few} waiting jobs",
            better="lower",
        ),
        figure(
            "schedule_growth_duts",
            f"a placement in a pass over {duts} DUTs",
            "us",
            ours=[by_duts[duts]],
            limits=[by_duts[duts // 100]],
            limit_is=f"over {duts // 100} DUTs",
            better="lower",
        ),
    ]


class Week:
    """Work that comes over time, boards that make a setup where it is not in place."""

    def __init__(self, work: list[tuple[int, int, int]], grouped: bool) -> None:
        self._boards = Boards(BOARDS, 1)
        self._work, self._grouped = work, grouped
        self._ends: list[tuple[int, Fence]] = []
        self._on: dict[DutId, int] = {}
        self._took: dict[Fence, tuple[int, bool]] = {}
        self.setups = 0

    def makespan_s(self) -> float:
        """Let all of it happen; return when the last job ended, from the first submission."""
        boards, ends = self._boards, self._ends
        queue = deque(self._work)
        jobs_s: dict[str, int] = {}
        last = BEGAN_US
        while queue or ends or boards.lab.runs:
            due = [BEGAN_US + queue[0][0] * 1_000_000] if queue else []
            due += [ends[0][0]] if ends else []
            timer = next_due(boards.lab)
            due += [timer] if timer else []
            boards.now = max(boards.now + 1, min(due))
            boards.decision = Decision(boards.lab, boards.now)
            while queue and BEGAN_US + queue[0][0] * 1_000_000 <= boards.now:
                _, version, seconds = queue.popleft()
                self._submit(version, seconds, jobs_s)
            while ends and ends[0][0] <= boards.now:
                self._finish(heappop(ends)[1])
                last = boards.now
            for fence in boards.turn():
                self._begin(fence, jobs_s)
        return (last - BEGAN_US) / 1e6

    def _submit(self, version: int, seconds: int, jobs_s: dict[str, int]) -> None:
        key = f"v{version}"
        group = Group(key=key, digest=key) if self._grouped else None
        spec = a_spec(0, "job", group)
        spec = JobSpec(kind=spec.kind, argv=(key, str(seconds)), need=spec.need)
        self._boards.submit(spec)

    def _begin(self, fence: Fence, jobs_s: dict[str, int]) -> None:
        lab = self._boards.lab
        attempt = lab.attempts[fence]
        run = lab.runs[lab.jobs[attempt.job].run]
        version, seconds = run.plan.specs[0].argv
        assert attempt.dut is not None
        made = self._on.get(attempt.dut) != int(version[1:])
        self._on[attempt.dut] = int(version[1:])
        self.setups += made
        took_s = int(seconds) + (SETUP_S if made else 0)
        self._took[fence] = (took_s, made)
        heappush(self._ends, (self._boards.now + took_s * 1_000_000, fence))

    def _finish(self, fence: Fence) -> None:
        attempt = self._boards.lab.attempts[fence]
        assert attempt.dut is not None
        made = self._took.pop(fence)[1]
        more: dict[str, object] = {}
        if self._grouped:
            more = {
                "carries": (f"v{self._on[attempt.dut]}",), "setup": "made" if made else "found",
                "setup_us": SETUP_S * 1_000_000,
            }  # fmt: skip
        self._boards.end(attempt.agent, fence, **more)


def a_week(jobs: int, span_s: int, seed: int) -> list[tuple[int, int, int]]:
    """Return (submitted at, version, seconds) of jobs: versions come in bursts, as CI has them."""
    chance = random.Random(seed)
    work: list[tuple[int, int, int]] = []
    while len(work) < jobs:
        at, version = chance.randrange(span_s), chance.randrange(VERSIONS)
        for _ in range(min(jobs - len(work), chance.randrange(1, 20))):
            work.append((at + chance.randrange(600), version, chance.randrange(10, 120)))
    return sorted(work)


def _grouping(scale: Scale) -> list[Figure]:
    """Return makespan and setups of the same work with groups, against FIFO and the bound."""
    jobs = scale.of(12_000, 300)
    together = [(0, version, seconds) for _, version, seconds in a_week(jobs, WEEK_S, 7)]
    work_s = sum(seconds for _, _, seconds in together)
    bound = (work_s + VERSIONS * SETUP_S) / BOARDS
    grouped, fifo = Week(together, True), Week(together, False)
    ours, plain = grouped.makespan_s(), fifo.makespan_s()
    spread = a_week(jobs, scale.of(WEEK_S // 7, 3600), 11)
    week, week_fifo = Week(spread, True), Week(spread, False)
    week.makespan_s()
    week_fifo.makespan_s()
    facts: dict[str, float] = {
        "setups": grouped.setups,
        "setups_fifo": fifo.setups,
        "bound_s": round(bound),
    }
    what = f"{jobs} jobs of {VERSIONS} versions on {BOARDS} boards, setup {SETUP_S} s"
    return [
        figure(
            "grouping_makespan",
            f"makespan of {what}, all at once, with groups",
            "s",
            ours=[ours],
            limits=[plain],
            limit_is="first come, first served",
            better="lower",
            facts=facts,
        ),
        figure(
            "grouping_bound",
            f"makespan of {what}, all at once, with groups",
            "s",
            ours=[ours],
            limits=[bound],
            limit_is="all work and one setup a version, spread evenly: no order can do better",
            better="lower",
        ),
        figure(
            "grouping_setups",
            f"setups of {what}, coming in bursts over time, with groups",
            "setups",
            ours=[float(week.setups)],
            limits=[float(week_fifo.setups)],
            limit_is="first come, first served",
            better="lower",
        ),
    ]
