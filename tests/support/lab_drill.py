"""A lab under drill: turns as the engine makes them, agents that do what real ones may do.

`Drill` has one method for everything that can befall a lab; `check` holds the Lab against a
count of its own, `heal` brings everything to its end. Its frames are a LOG.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from tests.support.builders import ORG, T0, S, a_dut, a_run_id, a_spec, board, facts
from tshrag_common import ids
from tshrag_common.contact import is_over
from tshrag_common.criteria import CompiledCriterion, Evidence
from tshrag_common.errors import ErrorReport, LabError
from tshrag_common.ids import AgentId, DutId, Epoch, Fence, JobId, RunId
from tshrag_common.inventory import AgentFacts
from tshrag_common.jobs import Group, JobSpec, Need, Plan, PlannedJob
from tshrag_common.reports import (
    Accepted,
    AnyReport,
    DutChanged,
    Ended,
    Goodbye,
    Hello,
    Outcome,
    ReportBatch,
    Started,
)
from tshrag_common.states import JOB, RUN, AgentCause, AgentState, AttemptState, JobState, RunState
from tshrag_controller.core.apply import forget
from tshrag_controller.core.decision import Decision, ForgetRun
from tshrag_controller.core.events import (
    JobAssigned,
    JobJudged,
    JobMoved,
    LeaderChosen,
    RunAdmitted,
)
from tshrag_controller.core.intent_events import IntentSet, Kind
from tshrag_controller.core.lab import Lab, is_kept
from tshrag_controller.core.lease_events import (
    DutReserved,
    LeaseAsked,
    LeaseGranted,
    LeaseHanded,
)
from tshrag_controller.core.leases import on_release, on_renew, on_share, on_take, on_transfer
from tshrag_controller.core.on_agent import GapError, on_beat, on_reports, on_silence
from tshrag_controller.core.on_attempt import on_stored
from tshrag_controller.core.on_intent import on_clear, on_set
from tshrag_controller.core.on_lease import on_leases_over, on_resolve
from tshrag_controller.core.on_reserve import on_give_up, on_reserve
from tshrag_controller.core.on_run import on_cancel, on_evidence, on_submit
from tshrag_controller.core.on_suspend import on_hold, on_let_go, on_reschedule
from tshrag_controller.core.on_tick import on_tick
from tshrag_controller.core.owners import owner_of
from tshrag_controller.core.people import Ask, Lease
from tshrag_controller.core.policy import Consumable, Policy
from tshrag_controller.core.replay import apply_frame
from tshrag_controller.core.resume import on_resume
from tshrag_controller.core.revive import recorded, revive
from tshrag_controller.core.sched_events import PolicySet
from tshrag_controller.core.schedule import schedule
from tshrag_controller.core.why import explain
from tshrag_controller.log.frames import Frame, decode, encode

AGENTS = ("a1", "a2", "a3")
DUTS = {"a1": ("b1", "b2", "s1"), "a2": ("h1", "s1"), "a3": ("s1",)}
ALL_DUTS = ("b1", "b2", "h1", "s1")
"""``s1`` is reached by all three."""
OUTCOMES: tuple[Outcome, ...] = ("passed", "failed", "error", "timeout", "cancelled", "refused")
LIVE = (AttemptState.ASSIGNED, AttemptState.PREPARING, AttemptState.RUNNING)
CRITERION = CompiledCriterion(name="latency", key="net.latency", statistic="avg", bounds=())

SPECS: tuple[JobSpec, ...] = (
    a_spec(timeout_s=60.0, disconnect_s=40.0),
    a_spec(need=Need(slots=2), timeout_s=60.0, attempts=1),
    a_spec(need=board(), timeout_s=60.0),
    a_spec(need=board("hub", "hub"), timeout_s=60.0, on_fail="continue"),
    a_spec(need=board(hold="job", role="any"), timeout_s=60.0, attempts=2),
    a_spec(need=board(role="second"), timeout_s=60.0),
    JobSpec(kind="sleep", sleep_s=2.0),
    JobSpec(kind="comment", text="hi", on_fail="continue"),
    a_spec(need=Need(resources={"cpus": 1}, consumes={"licence": 1}), timeout_s=60.0),
    a_spec(need=replace(board("pi", "lic", "job"), consumes={"licence": 2}), timeout_s=60.0),
)
GROUPED = tuple(
    a_spec(
        need=replace(board("pi", role, hold), group=Group(key=key, digest=key, max_jobs=2)),
        timeout_s=60.0,
    )
    for key, role, hold in (("v1", "g1", "job"), ("v2", "g2", "job"), ("v2", "g2k", "run"))
)
GIVING_WAY = (
    a_spec(need=board(hold="job", role="any"), timeout_s=60.0, preemptible=True),
    a_spec(need=board(), timeout_s=60.0, preemptible=True),
    a_spec(timeout_s=60.0, preemptible=True),
)
FREEZING = tuple(
    a_spec(need=board(hold=hold, role=f"f{hold}"), timeout_s=60.0, attempts=1, freeze_s=90.0)
    for hold in ("run", "job")
)
SPECS = (*SPECS, *GROUPED, *GIVING_WAY, *FREEZING)
POLICY = Policy(consumables={"licence": Consumable(count=2, every_s=1.0)}, preempt_after_s=2.0)


class SimAgent:
    """What an agent has told so far; each batch may come again."""

    def __init__(self, name: str) -> None:
        self.name = AgentId(name)
        self.spool_no = self.boot_no = 1
        self.seq = 0
        self.records: list[AnyReport] = []  # of its spool
        self.unsaid = 1
        self.told: list[ReportBatch] = []

    @property
    def spool(self) -> str:
        return f"s{self.spool_no}"

    def facts(self, slots: int, duts: Sequence[str]) -> AgentFacts:
        boards = [
            a_dut(name, "hub" if name[0] == "h" else "pi", shared=name[0] == "s") for name in duts
        ]
        return facts(self.name, slots, boards, boot=f"boot{self.boot_no}")

    def batch(self, *reports: AnyReport) -> ReportBatch:
        made = ReportBatch(
            agent=self.name, spool=self.spool, first_seq=self.seq + 1, reports=reports
        )
        self.seq += len(reports)
        self.records += reports
        self.told.append(made)
        return made

    def from_seq(self, seq: int) -> ReportBatch:
        """Return the spool from `seq` on, as it is sent when the controller asks for it."""
        records = tuple(self.records[seq - 1 :])
        return ReportBatch(agent=self.name, spool=self.spool, first_seq=seq, reports=records)

    def new_spool(self) -> None:
        self.spool_no, self.seq, self.records = self.spool_no + 1, 0, []


class Drill:
    """One lab and its world."""

    def __init__(self) -> None:
        self.lab, self.now = Lab(), T0
        self.replayed = Lab()
        self.frames: list[tuple[int, Frame]] = []
        self.agents = {name: SimAgent(name) for name in AGENTS}
        self.marks: dict[AgentId, tuple[int, int]] = {}
        self.submitted = 0
        self.keys: dict[str, RunId] = {}
        self.final: dict[JobId, JobState] = {}
        self.newest: dict[DutId, Fence] = {}
        self.known_fences: list[Fence] = []
        self.torn = False  # the LOG ends in the middle of a decision
        self.broken = False  # something did not hold: there is nothing to heal
        self.lead()

    # what the engine does

    def turn(self, decide: Callable[[Decision], Any] | None = None) -> Any:
        """Decide, apply, append, let go; a LabError is what comes of it instead of a value."""
        lab = self.lab
        decision = Decision(lab, self.now)
        value: Any = None
        try:
            value = decide(decision) if decide else None
        except (LabError, GapError) as refused:
            value = refused
        on_tick(decision)
        schedule(decision)
        if decision.events:
            frame = Frame(
                epoch=lab.epoch, at=self.now, ev_hi=lab.ev_hi, events=tuple(decision.events)
            )
            lab.sequence, lab.turn_fences = lab.sequence + 1, 0
            self._commit(lab.sequence, decode(encode(frame)))
        for effect in decision.effects:
            if isinstance(effect, ForgetRun) and effect.run in lab.runs:
                forget(lab, effect.run)
        return value

    def _commit(self, sequence: int, frame: Frame) -> None:
        self.frames.append((sequence, frame))
        for event in frame.events:
            self._watch(event)
        apply_frame(self.replayed, sequence, frame.at, frame.ev_hi, frame.events)

    def _watch(self, event: object) -> None:
        if isinstance(event, JobAssigned | LeaseGranted) and event.dut is not None:
            self._watch_service(event)
            self._watch_reservations(event)
        if isinstance(event, JobAssigned):
            assert not self.lab.jobs[event.job].held, "it was held back"
        if isinstance(event, JobAssigned | JobMoved | JobJudged):
            assert event.job not in self.final, f"{event} after {self.final[event.job]}"
        if isinstance(event, JobAssigned | LeaseGranted | LeaseHanded):
            fence = event.new if isinstance(event, LeaseHanded) else event.fence
            self.known_fences.append(fence)
            assert fence > max(self.known_fences[:-1], default=0)
        if isinstance(event, JobAssigned | LeaseGranted) and event.dut is not None:
            assert event.fence > self.newest.get(event.dut, 0), "fences of a DUT only grow"
            self.newest[event.dut] = event.fence

    def _watch_reservations(self, event: JobAssigned | LeaseGranted) -> None:
        """Let nothing start that could, by its limit, run into a time that is promised."""
        if isinstance(event, LeaseGranted):
            until = event.until
        else:
            job = self.lab.jobs[event.job]
            until = self.now + round(self.lab.runs[job.run].spec(job).timeout_s * 1e6)
        for each in self.lab.people.reservations.values():
            own = isinstance(event, LeaseGranted) and event.lease == each.id
            if each.dut == event.dut and each.end > self.now and not own:
                assert until <= each.start, f"{event} runs into {each}"

    def _watch_service(self, event: JobAssigned | LeaseGranted) -> None:
        """Let nothing new go to what is out of service, but for runs that have it already."""
        intents = self.lab.people.intents
        for name in (f"agent/{event.agent}", f"dut/{event.dut}"):
            intent = intents.get(name)
            kept = self.lab.duts[event.dut].kept_by if event.dut in self.lab.duts else None
            own = isinstance(event, JobAssigned) and kept == ids.run_of(event.job)
            assert intent is None or (own and intent.what == "cordoned"), f"{event}: {intent}"

    def lead(self) -> None:
        """Begin an epoch, as a controller does that has just started."""
        epoch = Epoch(self.lab.epoch + 1)

        def begin(decision: Decision) -> None:
            decision.happen(LeaderChosen(epoch=epoch, node="n"))
            if decision.lab.policy != POLICY:
                decision.happen(PolicySet(policy=POLICY))
            on_resume(decision)
            assert self.torn or len(decision.events) <= 2, "nothing was half decided"

        self.turn(begin)
        self.torn = False
        for agent, (samples, output) in self.marks.items():
            self.stored(agent, samples, output)

    def restart(self, whole: bool = True) -> None:
        """Lose all memory; go on from the frames, or from what a checkpoint would hold."""
        if whole:
            fresh = Lab()
            for sequence, frame in self.frames:
                apply_frame(fresh, sequence, frame.at, frame.ev_hi, frame.events)
            self.compare(fresh)
            self.lab = revive(recorded(fresh), self.now)
        else:
            self.lab = revive(recorded(self.lab), self.now)
            self.compare(self.lab)
        self.lead()

    def tear(self, keep: float) -> None:
        """Lose the end of the newest frame, as when it was cut and its writer died."""
        large = [n for n, (_, frame) in enumerate(self.frames) if len(frame.events) > 2]
        del self.frames[max(large, default=len(self.frames) - 1) + 1 :]
        sequence, frame = self.frames[-1]
        kept = frame.events[: max(1, round(len(frame.events) * keep))]
        self.frames[-1] = (sequence, replace(frame, events=kept))
        self.torn = True
        self.final.clear()
        self.known_fences.clear()
        self.newest.clear()
        self.lab, self.replayed = Lab(), Lab()
        for number, each in self.frames:
            for lab in (self.lab, self.replayed):
                apply_frame(lab, number, each.at, each.ev_hi, each.events)
            for event in each.events:
                self._watch(event)
        for agent in self.agents.values():  # what was not confirmed comes again
            row = self.lab.agents.get(agent.name)
            agent.unsaid = row.applied + 1 if row and row.spool == agent.spool else 1
        self.lab = revive(recorded(self.lab), self.now)
        self.lead()
        for agent in self.agents.values():
            if agent.unsaid <= agent.seq:
                again = agent.from_seq(agent.unsaid)
                self.turn(partial(on_reports, batch=again))

    def compare(self, other: Lab) -> None:
        for name in ("sequence", "epoch", "runs", "jobs", "attempts", "agents", "duts", "keys",
                     "counters", "admitted", "orgs", "consumed", "policy", "setups",
                     "people"):  # fmt: skip
            assert getattr(other, name) == getattr(self.lab, name), name

    # what people do

    def submit(
        self, after: Sequence[Sequence[int]], specs: Sequence[int], **more: Any
    ) -> RunId | LabError:
        self.submitted += 1
        run = a_run_id(self.submitted)
        used = tuple(dict.fromkeys(specs)) or (0,)
        plan = Plan(
            specs=tuple(SPECS[each] for each in used),
            jobs=tuple(
                PlannedJob(
                    serial,
                    f"job{serial}",
                    used.index(specs[(serial - 1) % len(specs)]),
                    tuple(sorted(set(before))),
                )
                for serial, before in enumerate(after, 1)
            ),
        )
        fields = {
            "run": run, "org": ORG, "by": "jo", "key": "", "name": f"run{self.submitted}",
            "priority": 50, "profile": b"{}", "plan": plan, **more,
        }  # fmt: skip
        admitted = RunAdmitted(**fields)
        answer = self.turn(lambda decision: on_submit(decision, admitted, park=True))
        key = str(fields["key"])
        if key and answer.run in self.lab.runs:
            known = self.keys.get(key)
            assert answer.created == (known is None or known not in self.lab.runs or
                                      known == run)  # fmt: skip
            self.keys[key] = answer.run
        found: RunId | LabError = answer.run
        return found

    def cancel(self, number: int, job: int = 0) -> Any:
        runs = list(self.lab.runs.values())
        if not runs:
            return None
        run = runs[number % len(runs)]
        name: str = run.id
        if job:
            name = ids.job_of(run.id, 1 + job % len(run.plan.jobs))
        return self.turn(lambda decision: on_cancel(decision, ORG, name))

    def lease(self, number: int, by: str, what: str, for_s: int, wait: bool) -> Any:
        """Take a DUT by name or by kind, or keep a place in the line."""
        asked = LeaseAsked(
            lease=f"lease-{number}", org=ORG, by=by, alive_until=self.now + 40 * S,
            for_us=for_s * S, dut=what if what in ALL_DUTS else "",
            kind="" if what in ALL_DUTS else what, idle_us=30 * S if number % 3 == 0 else 0,
        )  # fmt: skip
        return self.turn(lambda decision: on_take(decision, asked, wait))

    def reserve(self, number: int, dut: str, in_s: int, for_s: int) -> Any:
        """Have a DUT promised for a time to come."""
        start = self.now + in_s * S
        asked = DutReserved(
            reservation=f"lease-r{number}", dut=DutId(dut), org=ORG, by="jo", start=start,
            end=start + for_s * S,
        )  # fmt: skip
        return self.turn(lambda each: on_reserve(each, asked, "", {}))

    def lease_done(self, number: int, how: str) -> Any:
        """Let the owner of some lease, or of a place in the line, do something with it."""
        people = self.lab.people
        if how == "give_up":
            promised = list(people.reservations.values())
            return self.turn(lambda each: promised and on_give_up(each, ORG, "jo", promised[0]))
        found: list[Lease | Ask] = [*people.leases.values(), *people.asks.values()]
        if not found:
            return None
        one = found[number % len(found)]
        match how:
            case "renew":
                return self.turn(lambda each: on_renew(each, one.org, one.by, one.id, 90 * S))
            case "hand":
                taker = (ORG, "al")
                return self.turn(
                    lambda each: on_transfer(each, (one.org, one.by), one.id, taker, "")
                )
            case "share":
                return self.turn(lambda each: on_share(each, one.org, one.by, one.id, ("radio",)))
        return self.turn(lambda each: on_release(each, one.org, one.by, one.id))

    def suspend(self, number: int, job: int, how: str, seconds: int) -> Any:
        """Hold some run or job back, let it go, move its window."""
        runs = list(self.lab.runs.values())
        if not runs:
            return None
        run = runs[number % len(runs)]
        name: str = ids.job_of(run.id, 1 + job % len(run.plan.jobs)) if job else run.id
        if how == "hold":
            return self.turn(lambda each: on_hold(each, ORG, "jo", name, ""))
        if how == "release":
            return self.turn(lambda each: on_let_go(each, ORG, "jo", name))
        opens, closes = self.now + seconds * S, self.now + (seconds + 50) * S
        return self.turn(lambda each: on_reschedule(each, ORG, "jo", run.id, opens, closes))

    def intend(self, thing: str, what: str, for_s: int, now_too: bool) -> Any:
        """Take a host or a DUT out of service, or back."""
        kind: Kind = "agent" if thing in AGENTS else "dut"
        if what == "in_service":
            return self.turn(lambda each: on_clear(each, kind, thing, "op"))
        until = self.now + for_s * S if for_s else 0
        asked = IntentSet(kind=kind, name=thing, what=what, by="op", until=until)
        return self.turn(lambda each: on_set(each, asked, now_too))

    def judge(self, number: int, verdict: str) -> None:
        waiting = [run for run in self.lab.runs.values() if run.state is RunState.EVALUATING]
        if not waiting:
            return
        evidence = Evidence(
            criterion="latency", metric="net.latency", statistic="avg",
            verdict=verdict, reason="it is so",  # type: ignore[arg-type]  # a word of the drill
        )  # fmt: skip
        run = waiting[number % len(waiting)].id
        self.turn(lambda decision: on_evidence(decision, run, (evidence,), None))

    def pass_time(self, seconds: float) -> None:
        self.now += round(seconds * S)
        self.turn()

    # what agents do

    def report(self, agent: SimAgent, *reports: AnyReport) -> Any:
        batch = agent.batch(*reports)
        answer = self.turn(lambda decision: on_reports(decision, batch))
        if isinstance(answer, GapError):
            whole = agent.from_seq(answer.again_from)
            answer = self.turn(lambda decision: on_reports(decision, whole))
        return answer

    def hello(
        self, name: str, slots: int = 2, duts: Sequence[str] | None = None, fresh: bool = False,
        forgets: int = 0,
    ) -> None:  # fmt: skip
        """Say hello: with what it holds, less what it `forgets`; `fresh`: a new journal."""
        agent = self.agents[name]
        row = self.lab.agents.get(agent.name)
        holds = sorted(row.fences) if row else []
        if fresh:
            agent.new_spool()
            holds = []
        agent.boot_no += 1
        told = agent.facts(slots, DUTS[name] if duts is None else duts)
        kept = tuple(holds[forgets:])
        self.report(agent, Hello(at=self.now, facts=told, holds=kept))

    def goodbye(self, name: str) -> None:
        if self.agents[name].records:
            self.report(self.agents[name], Goodbye(at=self.now, reason="reboot"))

    def say(self, name: str, kind: str, number: int, **more: Any) -> None:
        """Report of some attempt: mostly one of its own, sometimes a stale or foreign one."""
        agent = self.agents[name]
        row = self.lab.agents.get(agent.name)
        own = sorted(row.fences) if row else []
        pool = own if own and number % 8 != 7 else self.known_fences[-20:]
        if not pool or not agent.records:  # a journal begins with a hello
            return
        fence = pool[number // 8 % len(pool)]
        report: AnyReport
        if kind == "accepted":
            report = Accepted(at=self.now, fence=fence)
        elif kind == "started":
            report = Started(at=self.now, fence=fence)
        else:
            more |= self._what_is_carried(fence, str(more.get("outcome")))
            if more.get("outcome") in ("error", "refused"):
                more["error"] = ErrorReport(code="broken", message="it broke")
            report = Ended(at=self.now, fence=fence, **more)
        self.report(agent, report)

    def _what_is_carried(self, fence: Fence, outcome: str) -> dict[str, Any]:
        """Return what an agent says of the setup of a group: made the first time, then found."""
        attempt = self.lab.attempts.get(fence)
        if attempt is None or attempt.dut is None or attempt.dut not in self.lab.duts:
            return {}
        job = self.lab.jobs[attempt.job]
        group = self.lab.runs[job.run].spec(job).need.group
        row = self.lab.duts[attempt.dut].dut
        if outcome == "refused":
            return {"carries": ()}
        if group is None:
            undone = outcome == "passed" or not row.carries
            return {"carries": (), "owes": () if undone else row.owes}
        if outcome == "error":
            return {"carries": (), "setup": "failed"}
        there = group.digest in self.lab.duts[attempt.dut].dut.carries
        carries = (group.digest,) if outcome in ("passed", "failed") else ()
        setup = "found" if there else "made"
        return {"carries": carries, "owes": (group.digest,), "setup": setup, "setup_us": 5 * S}

    def again(self, name: str, number: int) -> None:
        """Let an old batch come a second time, perhaps of a spool that is gone."""
        agent = self.agents[name]
        if not agent.told:
            return
        batch = agent.told[number % len(agent.told)]
        before = {fence: each.state for fence, each in self.lab.attempts.items()}
        self.turn(lambda decision: on_reports(decision, batch))
        for fence, state in before.items():
            attempt = self.lab.attempts.get(fence)
            assert attempt is None or attempt.state is state, "a repeated report counted"

    def gap(self, name: str) -> None:
        """Lose a report on the way; the next batch is refused and counts for nothing."""
        agent = self.agents[name]
        row = self.lab.agents.get(agent.name)
        applied = row.applied if row and row.spool == agent.spool else 0
        missing = ReportBatch(
            agent=agent.name, spool=agent.spool, first_seq=agent.seq + 2,
            reports=(Goodbye(at=self.now),),
        )  # fmt: skip
        answer = self.turn(lambda decision: on_reports(decision, missing))
        assert isinstance(answer, GapError)
        assert answer.again_from == applied + 1

    def dut(self, name: str, faulty: str) -> None:
        owner = next((agent for agent, duts in DUTS.items() if name in duts), "a1")
        if self.agents[owner].records:
            report = DutChanged(at=self.now, dut=DutId(name), faulty=faulty)
            self.report(self.agents[owner], report)

    def silence(self, name: str, cause: AgentCause) -> None:
        self.turn(lambda decision: on_silence(decision, AgentId(name), cause))

    def contact_over(self, name: str, silent_s: float) -> None:
        """Hear nothing of an agent for so long: what it holds under a lease is lost."""
        agent = AgentId(name)
        if agent not in self.lab.agents:
            return
        for cause, after_s in ((AgentCause.DOUBT, 15.0), (AgentCause.LOSE, 30.0)):
            if silent_s >= after_s:
                self.silence(name, cause)
        if silent_s < 30.0:
            return
        self.turn(lambda decision: on_leases_over(decision, agent, silent_s))
        left = (self.lab.attempts[fence] for fence in self.lab.agents[agent].fences)
        known = ((each, min(silent_s, (self.now - each.assigned_at) / 1e6)) for each in left)
        over = [each for each, for_s in known if is_over(each.lease_s, for_s)]
        assert not over, "a lease outlived its end"

    def resolve(self, number: int) -> Any:
        """Let a person give up an attempt, whoever holds it."""
        live = [each for each in self.lab.attempts.values() if each.state in LIVE]
        if not live:
            return None
        one = live[number % len(live)]
        away = self.lab.agents[one.agent].state in (AgentState.LOST, AgentState.OFFLINE)
        name = f"{one.job}.{one.number}"
        answer = self.turn(lambda decision: on_resolve(decision, ORG, name, "jo", "powered off"))
        assert isinstance(answer, LabError) is not away, "only who is away can be given up"
        return answer

    def beat(self, name: str, draining: bool) -> None:
        if AgentId(name) in self.lab.agents:
            self.turn(lambda decision: on_beat(decision, AgentId(name), draining))

    def stored(self, name: str, samples: int, output: int) -> None:
        agent = AgentId(name)
        row = self.lab.agents.get(agent)
        if row is None:
            return
        had = self.marks.get(agent, (0, 0))
        self.marks[agent] = (max(samples, had[0]), max(output, had[1]))
        marks = self.marks[agent]
        self.turn(lambda decision: on_stored(decision, agent, *marks))

    # what must hold

    def check(self) -> None:
        self.broken = True
        self._check()
        self.broken = False

    def _check(self) -> None:
        lab = self.lab
        self.compare(self.replayed)
        self._check_holders()
        self._check_runs()
        for job in lab.jobs.values():
            if JOB.is_final(job.state):
                assert self.final.setdefault(job.id, job.state) is job.state
            else:
                assert job.id not in self.final
                said = explain(lab, job, self.now).sentence
                assert "this very moment" not in said, f"{job.id} could have started"

    def _check_holders(self) -> None:
        lab = self.lab
        owners = Counter(filter(None, (owner_of(lab, row) for row in lab.duts.values())))
        counted = {owner: count for owner, count in lab.indexes.idle.owned.items() if count}
        assert counted == dict(owners), "the index of who has what is wrong"
        slots: Counter[AgentId] = Counter()
        taken: dict[AgentId, Counter[str]] = defaultdict(Counter)
        consumed: Counter[str] = Counter()
        fences: dict[AgentId, set[Fence]] = defaultdict(set)
        on: dict[DutId, Fence] = {}
        live: Counter[RunId] = Counter()
        for attempt in lab.attempts.values():
            if attempt.state not in LIVE:
                continue
            job = lab.jobs[attempt.job]
            run = lab.runs[job.run]
            live[run.id] += 1
            taken[attempt.agent].update(run.spec(job).need.resources)
            consumed.update(run.spec(job).need.consumes)
            fences[attempt.agent].add(attempt.fence)
            if attempt.dut is None:
                slots[attempt.agent] += run.spec(job).need.slots
            else:
                assert attempt.dut not in on, "a DUT is held twice"
                on[attempt.dut] = attempt.fence
        for name, agent in lab.agents.items():
            assert agent.host_slots == slots[name]
            assert agent.taken == taken[name]
            assert agent.fences == fences[name]
        leased: dict[AgentId, set[Fence]] = defaultdict(set)
        for lease in lab.people.leases.values():
            assert lease.dut not in on, "a DUT is held twice"
            assert lease.until > self.now, "a lease outlives its time"
            on[lease.dut] = lease.fence
            leased[lease.agent].add(lease.fence)
        for name, agent in lab.agents.items():
            assert agent.leases == leased[name]
        assert {name: use.taken for name, use in lab.consumed.items() if use.taken} == consumed
        assert consumed["licence"] <= 2
        assert on == {name: row.holder for name, row in lab.duts.items() if row.holder}
        for run in lab.runs.values():
            assert run.live == live[run.id]

    def _check_runs(self) -> None:
        lab = self.lab
        users: Counter[tuple[RunId, str]] = Counter()
        kept = {name: row.kept_by for name, row in lab.duts.items() if row.kept_by}
        for run in lab.runs.values():
            jobs = [lab.jobs[ids.job_of(run.id, each.serial)] for each in run.plan.jobs]
            ended = Counter(job.state for job in jobs if JOB.is_final(job.state))
            assert run.ended == ended
            assert run.open_jobs == len(jobs) - ended.total()
            over = RUN.is_final(run.state) or run.state is RunState.EVALUATING
            assert over == (not run.open_jobs)
            assert not RUN.is_final(run.state) or run.live, "it should have been forgotten"
            for job in jobs:
                need = run.spec(job).need
                if is_kept(need) and not JOB.is_final(job.state):
                    users[run.id, need.role] += 1
        counted = {key: count for key, count in lab.indexes.role_users.items() if count}
        assert counted == dict(users)
        for run in lab.runs.values():
            assert all(kept.get(name) == run.id for name in run.awaits)
            assert not (run.awaits and RUN.is_final(run.state)), "its verdict is there"
        for name, run_id in kept.items():
            if name in lab.runs[run_id].awaits:
                continue
            holders = [role for role, (_, dut) in lab.runs[run_id].bound.items() if dut == name]
            assert holders, "kept by a run that does not know of it"
            assert any(users[run_id, role] for role in holders) or lab.duts[name].holder

    def _let_all_go(self) -> None:
        for thing in (*AGENTS, *ALL_DUTS):
            self.intend(thing, "in_service", 0, False)
        for number in range(len(self.lab.runs)):
            self.suspend(number, 0, "release", 0)

    def heal(self) -> None:
        """Let everybody come back and work; every accepted run must end."""
        self._let_all_go()
        for _ in range(60):
            for name in AGENTS:
                self.hello(name, slots=4)
                for dut in DUTS[name]:
                    self.dut(dut, "")
            for name in AGENTS:
                for fence in sorted(self.lab.agents[AgentId(name)].fences):
                    ended = Ended(at=self.now, fence=fence, outcome="passed", started_at=self.now)
                    self.report(self.agents[name], ended)
                self.check()
            self.judge(0, "pass")
            self.pass_time(61)
            self.check()
            people = self.lab.people
            waiting = people.leases or people.asks or people.reservations
            if not self.lab.runs and not waiting:
                break
        assert not self.lab.runs, [
            (job.id, job.state, job.missing, self.lab.attempts.get(job.fence))
            for job in self.lab.jobs.values()
        ]
        assert all(not row.holder and not row.kept_by for row in self.lab.duts.values())
        assert not self.lab.attempts
        assert not self.lab.people.leases
        assert not self.lab.people.asks


def history(seed: int, steps: int = 60) -> Drill:
    """Return a lab that has been through `steps` things, chosen by `seed`."""
    chance = random.Random(seed)
    drill = Drill()
    for name in AGENTS:
        drill.hello(name)
    for _ in range(steps):
        _one_thing(drill, chance)
    return drill


def _one_thing(drill: Drill, chance: random.Random) -> None:
    name = chance.choice(AGENTS)
    number = chance.randrange(1000)
    things: dict[Callable[[], Any], int] = {
        lambda: drill.submit(*a_shape(chance), **some_terms(chance, drill.now)): 4,
        lambda: drill.say(name, "accepted", number): 5,
        lambda: drill.say(name, "started", number): 5,
        lambda: drill.say(name, "ended", number, outcome=chance.choice(OUTCOMES)): 10,
        lambda: drill.pass_time(chance.choice((0.1, 1.0, 3.0, 61.0, 100.0))): 4,
        lambda: drill.cancel(number, chance.randrange(3)): 2,
        lambda: drill.judge(number, chance.choice(("pass", "fail", "error"))): 2,
        lambda: drill.hello(name, fresh=chance.random() < 0.3, forgets=chance.randrange(2)): 2,
        lambda: drill.again(name, number): 1,
        lambda: drill.contact_over(name, chance.choice((15.0, 30.0, 70.0))): 1,
        lambda: drill.resolve(number): 1,
        lambda: drill.restart(chance.random() < 0.5): 1,
    }
    chance.choices(list(things), list(things.values()))[0]()


def a_shape(chance: random.Random) -> tuple[list[list[int]], list[int]]:
    count = chance.randrange(1, 6)
    after = [
        [before for before in range(1, serial) if chance.random() < 0.4]
        for serial in range(1, count + 1)
    ]
    return after, [chance.randrange(len(SPECS)) for _ in range(chance.randrange(1, 4))]


def some_terms(chance: random.Random, now: int) -> dict[str, Any]:
    return {
        "priority": chance.choice((0, 50, 100)),
        "criteria": (CRITERION,) if chance.random() < 0.3 else (),
        "not_before": now + 5 * S if chance.random() < 0.2 else 0,
        "deadline": now + 60 * S if chance.random() < 0.2 else 0,
        "duration_us": 90 * S if chance.random() < 0.2 else 0,
    }
