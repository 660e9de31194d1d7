"""Things of the core, with everything that a test is not about filled in."""

from collections.abc import Iterable

from tshrag_common import ids
from tshrag_common.ids import AgentId, DutId, Fence, JobId, OrgId, RunId
from tshrag_common.inventory import AgentFacts, Dut
from tshrag_common.jobs import JobSpec, Need, Plan, PlannedJob, Target
from tshrag_common.reports import AnyReport, Ended, Hello, Outcome, ReportBatch, Started
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.events import RunAdmitted
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.on_agent import on_reports
from tshrag_controller.core.on_run import on_submit
from tshrag_controller.core.on_tick import on_tick
from tshrag_controller.core.schedule import schedule

T0 = 1_800_000_000_000_000
ORG = OrgId("default")
S = 1_000_000


def a_run_id(number: int) -> RunId:
    return ids.new_run(1_800_000_000_000 + number, number)


def a_dut(name: str = "board", kind: str = "pi", agent: str = "a1", **more: object) -> Dut:
    return Dut(id=DutId(name), kind=kind, transports=("ssh",), **more)  # type: ignore[arg-type]  # **more


def facts(
    name: str = "a1", slots: int = 2, duts: Iterable[Dut] = (), boot: str = "b1"
) -> AgentFacts:
    return AgentFacts(agent=AgentId(name), boot=boot, version="0", slots=slots, duts=tuple(duts))


def board(kind: str = "pi", role: str = "board", hold: str = "run") -> Need:
    target = Target(runtime="ssh", kind=kind, hold=hold)  # type: ignore[arg-type]  # a word in tests
    return Need(target=target, role=role)


def a_spec(**more: object) -> JobSpec:
    return JobSpec(**{"kind": "command", "argv": ("true",), **more})  # type: ignore[arg-type]


def a_plan(*after: tuple[int, ...], spec: JobSpec | None = None) -> Plan:
    """One job for each tuple: the serials it comes after."""
    jobs = tuple(
        PlannedJob(serial, f"job{serial}", 0, before) for serial, before in enumerate(after, 1)
    )
    return Plan(specs=(spec or a_spec(),), jobs=jobs)


class TestLab:
    """A Lab, a clock that the test turns, and turns as the engine makes them, without a LOG."""

    __test__ = False

    def __init__(self) -> None:
        self.lab = Lab()
        self.now = T0
        self.frames: list[tuple[int, tuple[object, ...]]] = []
        self.decision = Decision(self.lab, self.now)
        self._seqs: dict[str, int] = {}

    def begin(self) -> Decision:
        self.decision = Decision(self.lab, self.now)
        return self.decision

    def end(self) -> Decision:
        """Let timers and the scheduler have their say, and commit."""
        decision = self.decision
        on_tick(decision)
        schedule(decision)
        self.lab.sequence += 1
        self.lab.turn_fences = 0
        self.frames.append((decision.now, tuple(decision.events)))
        return decision

    def pass_time(self, seconds: float) -> Decision:
        self.now += round(seconds * 1e6)
        self.begin()
        return self.end()

    def submit(self, plan: Plan, number: int = 1, park: bool = False, **more: object) -> RunId:
        run = a_run_id(number)
        fields = {
            "run": run, "org": ORG, "by": "jo", "key": "", "name": f"run{number}",
            "priority": 50, "profile": b"{}", "plan": plan, **more,
        }  # fmt: skip
        on_submit(self.begin(), RunAdmitted(**fields), park)  # type: ignore[arg-type]
        self.end()
        return run

    def report(self, agent: str, *reports: AnyReport, spool: str = "s1") -> Decision:
        first = self._seqs.get(agent + spool, 0) + 1
        self._seqs[agent + spool] = first + len(reports) - 1
        batch = ReportBatch(agent=AgentId(agent), spool=spool, first_seq=first, reports=reports)
        on_reports(self.begin(), batch)
        return self.end()

    def hello(self, name: str = "a1", slots: int = 2, duts: Iterable[Dut] = ()) -> Decision:
        return self.report(name, Hello(at=self.now, facts=facts(name, slots, duts)))

    def started(self, fence: Fence) -> Decision:
        agent = self.lab.attempts[fence].agent
        return self.report(agent, Started(at=self.now, fence=fence))

    def ended(self, fence: Fence, outcome: Outcome = "passed", **more: object) -> Decision:
        agent = self.lab.attempts[fence].agent
        ended = Ended(at=self.now, fence=fence, outcome=outcome, started_at=self.now, **more)  # type: ignore[arg-type]
        return self.report(agent, ended)

    def job(self, run: RunId, serial: int = 1) -> JobId:
        return ids.job_of(run, serial)

    def state(self, run: RunId, serial: int = 1) -> str:
        return str(self.lab.jobs[self.job(run, serial)].state)

    def fence(self, run: RunId, serial: int = 1) -> Fence:
        return self.lab.jobs[self.job(run, serial)].fence
