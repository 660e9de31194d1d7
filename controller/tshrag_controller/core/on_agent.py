"""PURE: what agents say of themselves: hello, reports in order, goodbye, silence."""

from tshrag_common.errors import ErrorReport
from tshrag_common.ids import AgentId, Fence
from tshrag_common.reports import (
    Accepted,
    AnyReport,
    ChannelTold,
    ConsoleSigned,
    DutChanged,
    Ended,
    Goodbye,
    Hello,
    ReportBatch,
    Started,
)
from tshrag_common.states import AGENT, AgentCause, AgentState, AttemptState, JobCause, JobState
from tshrag_controller.core.decision import Decision, SendSync
from tshrag_controller.core.events import (
    AgentMoved,
    AgentSeen,
    DutMarked,
    ReportRefused,
    SpoolApplied,
)
from tshrag_controller.core.follow import end_job
from tshrag_controller.core.lab import Lab, set_timer
from tshrag_controller.core.on_attempt import lose, on_accepted, on_ended, on_started
from tshrag_controller.core.on_channel import on_told
from tshrag_controller.core.on_console import on_signed
from tshrag_controller.core.on_run import open_jobs
from tshrag_controller.core.ways import AWAY, is_reachable, reaches

GONE_US = 600_000_000
"""How long a run waits for the host of a DUT that it keeps."""
GRACE_US = 30_000_000
"""How long after its own limit an attempt on a lost agent is given up."""


class GapError(Exception):
    """Reports are missing before a batch; ``again_from`` is the first of them."""

    def __init__(self, agent: AgentId, again_from: int) -> None:
        super().__init__(f"{agent}: reports from {again_from} are missing")
        self.agent, self.again_from = agent, again_from


def on_reports(decision: Decision, batch: ReportBatch, confirmed: int = 0) -> int:
    """Apply the reports of a batch that are new, each once and in order; return how far it is.

    A batch of a spool that the agent had before comes late or again: it counts for nothing.
    `confirmed` is what the agent was told to be stored: it has no more before that, so where we
    have lost it (a lab made anew), it is not waited for.

    Raises:
        GapError: reports before the batch have not come; nothing of it was applied.

    """
    lab = decision.lab
    agent = lab.agents.get(batch.agent)
    if agent is not None and batch.spool in agent.retired:
        refused = ReportRefused(
            agent=batch.agent, seq=batch.first_seq, code="stale_spool", what=batch.spool
        )
        decision.happen(refused)
        return 0
    applied = agent.applied if agent is not None and agent.spool == batch.spool else 0
    applied = max(applied, min(confirmed, batch.first_seq - 1))
    if agent is None and any(isinstance(report, Hello) for report in batch.reports):
        # What it said to an earlier lab counts for nothing here, and may be more than one batch.
        applied = max(applied, batch.first_seq - 1)
    if batch.first_seq > applied + 1:
        raise GapError(batch.agent, applied + 1)
    is_new = agent is not None and bool(agent.spool) and agent.spool != batch.spool
    upto = applied
    for seq, report in enumerate(batch.reports, batch.first_seq):
        if seq <= applied:
            continue
        _on_report(decision, batch.agent, seq, report, is_new)
        upto = seq
    if upto > applied and batch.agent in lab.agents:
        decision.happen(SpoolApplied(agent=batch.agent, spool=batch.spool, upto=upto))
    return upto


def _on_report(
    decision: Decision, agent: AgentId, seq: int, report: AnyReport, new_spool: bool
) -> None:
    if isinstance(report, Hello):
        on_hello(decision, agent, seq, report, new_spool)
        return
    if agent not in decision.lab.agents:
        decision.happen(ReportRefused(agent=agent, seq=seq, code="unknown_job", what="no hello"))
    elif isinstance(report, ChannelTold):
        on_told(decision, agent, report)
    else:
        _on_known(decision, agent, seq, report)


def _on_known(
    decision: Decision,
    agent: AgentId,
    seq: int,
    report: Accepted | Started | Ended | DutChanged | ConsoleSigned | Goodbye,
) -> None:
    match report:
        case Accepted():
            on_accepted(decision, agent, seq, report)
        case Started():
            on_started(decision, agent, seq, report)
        case Ended():
            on_ended(decision, agent, seq, report)
        case DutChanged() | ConsoleSigned():
            on_dut(decision, agent, seq, report)
        case Goodbye():
            on_goodbye(decision, agent, report)


def on_hello(decision: Decision, agent: AgentId, seq: int, report: Hello, new_spool: bool) -> None:
    """Take the facts in; what the agent no longer knows of is lost; then bring it into step."""
    if report.facts.agent != agent:
        decision.happen(ReportRefused(agent=agent, seq=seq, code="not_holder", what="hello"))
        return
    known = decision.lab.agents.get(agent)
    before = set(known.fences) if known else set()
    decision.happen(AgentSeen(facts=report.facts, holds=report.holds))
    for fence in sorted(before - set(report.holds)):
        attempt = decision.lab.attempts[fence]
        if new_spool or attempt.state is not AttemptState.ASSIGNED:
            lose(decision, fence, f"agent {agent} started anew and does not know the attempt")
    decision.then(SendSync(agent))


def on_goodbye(decision: Decision, agent: AgentId, report: Goodbye) -> None:
    lab = decision.lab
    decision.happen(AgentMoved(agent=agent, cause=AgentCause.LEAVE, reason=report.reason))
    for fence in sorted(lab.agents[agent].fences):
        if lab.attempts[fence].state is AttemptState.ASSIGNED:
            lose(decision, fence, f"agent {agent} left before it took the attempt")
        else:  # it should hold nothing; whatever it left alive ends at its own limit
            watch_overdue(lab, fence, decision.now)


def on_dut(
    decision: Decision, agent: AgentId, seq: int, report: DutChanged | ConsoleSigned
) -> None:
    row = decision.lab.duts.get(report.dut)
    if row is None or not reaches(row, agent):
        decision.happen(ReportRefused(agent=agent, seq=seq, code="unknown_dut", what=report.dut))
    elif isinstance(report, ConsoleSigned):
        on_signed(decision, agent, report)
    else:
        decision.happen(DutMarked(agent=agent, dut=report.dut, faulty=report.faulty))


def on_beat(decision: Decision, agent: AgentId, draining: bool) -> None:
    """Note that an agent that was silent speaks again, or that it takes nothing new."""
    state = decision.lab.agents[agent].state
    if draining and state is not AgentState.DRAINING:
        decision.happen(AgentMoved(agent=agent, cause=AgentCause.DRAIN, reason="agent drains"))
    elif not draining and state is AgentState.DRAINING:
        decision.happen(AgentMoved(agent=agent, cause=AgentCause.RESUME))
    elif AGENT.may(state, AgentCause.BEAT):
        decision.happen(AgentMoved(agent=agent, cause=AgentCause.BEAT))
        decision.then(SendSync(agent))


def on_silence(decision: Decision, agent: AgentId, cause: AgentCause) -> None:
    """Doubt or lose an agent that has not been heard; its attempts go on until their limits."""
    lab = decision.lab
    row = lab.agents.get(agent)
    if row is None or not AGENT.may(row.state, cause):
        return
    decision.happen(AgentMoved(agent=agent, cause=cause, reason="no heartbeat"))
    if cause is AgentCause.LOSE:
        set_timer(lab, decision.now + GONE_US, "gone", agent)
        for fence in row.fences:
            watch_overdue(lab, fence, decision.now)


def watch_overdue(lab: Lab, fence: Fence, now: int) -> None:
    """Look again at an attempt whose agent is away when its time must be over."""
    set_timer(lab, max(now, give_up_at(lab, fence)), "overdue", str(fence))


def on_gone(decision: Decision, agent: AgentId) -> None:
    """End the jobs of runs that keep a DUT of an agent which has stayed away for too long.

    They cannot go elsewhere: what earlier jobs of the run did was done on that very DUT.
    """
    lab = decision.lab
    if lab.agents[agent].state not in AWAY:
        return
    own = (row for row in lab.duts.values() if reaches(row, agent) and not row.holder)
    kept = {row.kept_by: row for row in own if not is_reachable(lab, row)}
    for name, row in kept.items():
        run = lab.runs.get(name) if name else None
        if run is None:
            continue
        what = f"its DUT {row.dut.id} is gone: host {agent} is away for {GONE_US / 6e7:g} min"
        error = ErrorReport(code="dut_gone", message=what)
        roles = {role for role, (_, dut) in run.bound.items() if dut == row.dut.id}
        for job in open_jobs(lab, run):
            if job.state is JobState.WAITING and run.spec(job).need.role in roles:
                end_job(decision, job, JobCause.BREAK, error)


def give_up_at(lab: Lab, fence: Fence) -> int:
    """Return when an attempt on a lost agent counts as lost: its own limit, and a grace.

    Until then its agent may well be working: losing the bus ends no work.
    """
    attempt = lab.attempts[fence]
    run = lab.runs[lab.jobs[attempt.job].run]
    limit_us = round(run.spec(lab.jobs[attempt.job]).timeout_s * 1e6)
    return (attempt.started_at or attempt.assigned_at) + limit_us + GRACE_US


def on_overdue(decision: Decision, fence: Fence) -> None:
    """Give up an attempt whose agent is still away beyond its limit."""
    attempt = decision.lab.attempts.get(fence)
    if attempt is None:
        return
    agent = decision.lab.agents[attempt.agent]
    if give_up_at(decision.lab, fence) > decision.now:  # it started after the timer was set
        watch_overdue(decision.lab, fence, decision.now)
    elif agent.state in AWAY:
        lose(decision, fence, f"agent {attempt.agent} is {agent.state}, the time limit is over")
