"""The pure core of the controller, driven as the engine drives it, without a LOG."""

from collections import deque

from tshrag_common import ids
from tshrag_common.ids import AgentId, DutId, Fence, OrgId
from tshrag_common.inventory import AgentFacts, Dut
from tshrag_common.jobs import MAX_JOBS, JobSpec, Need, Plan, PlannedJob
from tshrag_common.reports import AnyReport, Ended, Hello, ReportBatch
from tshrag_controller.core.apply import forget
from tshrag_controller.core.decision import Decision, ForgetRun, SendStart
from tshrag_controller.core.events import RunAdmitted
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.on_agent import on_reports
from tshrag_controller.core.on_run import on_submit
from tshrag_controller.core.on_tick import on_tick
from tshrag_controller.core.schedule import schedule

BEGAN_MS = 1_800_000_000_000
ANYWHERE = Need()


class CoreLab:
    """A Lab with agents that end what they are given, when they are told to."""

    def __init__(self, agents: int, slots: int, duts_each: int = 0) -> None:
        self._lab = Lab()
        self._now = BEGAN_MS * 1000
        self._runs = 0
        self._seqs: dict[AgentId, int] = {}
        self._live: deque[tuple[AgentId, Fence]] = deque()
        self._decision = Decision(self._lab, self._now)
        for number in range(agents):
            name = AgentId(f"agent-{number}")
            duts = tuple(
                Dut(id=DutId(f"dut-{number}-{each}"), kind="board", transports=("ssh",))
                for each in range(duts_each)
            )
            facts = AgentFacts(agent=name, boot="b", version="0", slots=slots, duts=duts)
            self._report(name, Hello(at=self._now, facts=facts))
        self.turn()

    def submit(self, jobs: int, *, need: Need = ANYWHERE, jobs_each: int = MAX_JOBS) -> None:
        """Admit runs with so many jobs in all, all of them ready."""
        spec = JobSpec(kind="command", argv=("/bin/true",), need=need)
        while jobs > 0:
            count = min(jobs, jobs_each)
            planned = tuple(PlannedJob(serial, "job", 0) for serial in range(1, count + 1))
            self._runs += 1
            admitted = RunAdmitted(
                run=ids.new_run(BEGAN_MS + self._runs, self._runs),
                org=OrgId("default"),
                by="bench",
                key="",
                name="bench",
                priority=50,
                profile=b"{}",
                plan=Plan(specs=(spec,), jobs=planned),
            )
            on_submit(self._decision, admitted)
            jobs -= count

    def turn(self) -> None:
        """End the turn: timers, the scheduler, what its effects mean; and begin the next one."""
        decision = self._decision
        on_tick(decision)
        schedule(decision)
        self._lab.sequence += 1
        self._lab.turn_fences = 0
        for effect in decision.effects:
            if isinstance(effect, SendStart):
                self._live.append((effect.agent, effect.fence))
            elif isinstance(effect, ForgetRun) and effect.run in self._lab.runs:
                forget(self._lab, effect.run)
        self._now += 1000
        self._decision = Decision(self._lab, self._now)

    def end_some(self, most: int) -> int:
        """Let the oldest attempts end well; return how many."""
        count = min(most, len(self._live))
        by_agent: dict[AgentId, list[AnyReport]] = {}
        for _ in range(count):
            agent, fence = self._live.popleft()
            ended = Ended(at=self._now, fence=fence, outcome="passed", started_at=self._now)
            by_agent.setdefault(agent, []).append(ended)
        for agent, reports in by_agent.items():
            self._report(agent, *reports)
        return count

    def _report(self, agent: AgentId, *reports: AnyReport) -> None:
        first = self._seqs.get(agent, 0) + 1
        self._seqs[agent] = first + len(reports) - 1
        on_reports(
            self._decision,
            ReportBatch(agent=agent, spool="s", first_seq=first, reports=reports),
        )
