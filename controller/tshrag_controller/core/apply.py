"""apply(lab, event, at): the only writer of the Lab.

Total and deterministic: a legal sequence of events gives one Lab, live or replayed. It never
decides anything; an illegal event raises IllegalMove, and that is a bug of ours.
"""

from collections.abc import Callable
from typing import Any

from tshrag_common import ids
from tshrag_common.contact import lease_s
from tshrag_common.ids import RunId
from tshrag_common.states import (
    AGENT,
    ATTEMPT,
    JOB,
    RUN,
    AgentCause,
    AttemptCause,
    JobCause,
    JobState,
)
from tshrag_controller.core import (
    apply_channels,
    apply_consoles,
    apply_health,
    apply_intent,
    apply_leases,
    apply_live,
    apply_preempt,
    apply_store,
    apply_suspend,
    apply_teardown,
    events as e,
)
from tshrag_controller.core.apply_preempt import note_preemptible
from tshrag_controller.core.freeze_events import BoardKept, BoardLetGo
from tshrag_controller.core.groups import count_open, note_end, set_carried
from tshrag_controller.core.holds import (
    attempt_resolved,
    board_kept,
    board_let_go,
    let_boards_go,
    release,
    release_role,
    take,
)
from tshrag_controller.core.idle import note_agent, note_dut
from tshrag_controller.core.lab import PREEMPTED, Agent, Attempt, Job, Lab, Run, is_kept, set_timer
from tshrag_controller.core.people import place_of
from tshrag_controller.core.queues import enqueue, index_run, leave_gang, rebind, unindex_run
from tshrag_controller.core.resolve_events import AttemptResolved
from tshrag_controller.core.retry import note_fault
from tshrag_controller.core.sched_apply import APPLY as SCHED
from tshrag_controller.core.ways import settle_all, tell

RETIRED_SPOOLS = 16


def apply(lab: Lab, event: e.AnyEvent, at: int) -> None:
    """Let `event` have happened at `at` (microseconds UTC)."""
    _APPLY[type(event)](lab, event, at)


def _leader_chosen(lab: Lab, event: e.LeaderChosen, at: int) -> None:
    lab.epoch = event.epoch


def _run_admitted(lab: Lab, event: e.RunAdmitted, at: int) -> None:
    lab.admitted += 1
    run = Run(
        id=event.run,
        org=event.org,
        by=event.by,
        key=event.key,
        name=event.name,
        order=lab.admitted,
        priority=event.priority,
        created_at=at,
        plan=event.plan,
        loads=event.loads,
        criteria=event.criteria,
        not_before=event.not_before if event.not_before > at else 0,
        deadline=event.deadline,
        duration_us=event.duration_us,
        seed=event.seed,
        open_jobs=len(event.plan.jobs),
        baseline=event.baseline,
        stop_early=event.stop_early,
    )
    lab.runs[run.id] = run
    if event.key:
        lab.keys[f"{event.org} {event.key}"] = run.id
    index_run(lab, run)
    ready: list[Job] = []
    for planned in event.plan.jobs:
        job = Job(
            id=ids.job_of(run.id, planned.serial),
            run=run.id,
            serial=planned.serial,
            spec=planned.spec,
            missing=len(planned.after),
        )
        lab.jobs[job.id] = job
        count_role(lab, run, job, +1)
        if not planned.after:
            ready.append(job)
    for job in ready:
        enqueue(lab, run, job, at)
    if run.deadline:
        set_timer(lab, run.deadline, "expire", run.id)


def count_role(lab: Lab, run: Run, job: Job, more: int) -> None:
    """Keep count of the open jobs of a group, and of a role whose DUT the run keeps."""
    need = run.spec(job).need
    if need.group is not None:
        count_open(lab, need.group.digest, more)
    if is_kept(need):
        users = lab.indexes.role_users
        users[run.id, need.role] = users.get((run.id, need.role), 0) + more


def _roles_bound(lab: Lab, event: e.RolesBound, at: int) -> None:
    run = lab.runs[event.run]
    for role, agent, dut in event.duts:
        run.bound[role] = (agent, dut)
        row = lab.duts[dut]
        row.kept_by = run.id
        note_dut(lab, row)
    lab.indexes.wants_binding.discard(run.id)
    rebind(lab, run)  # it may want others beside those of a gang


def _job_assigned(lab: Lab, event: e.JobAssigned, at: int) -> None:
    job = lab.jobs[event.job]
    run = lab.runs[job.run]
    job.state = JOB.next(job.state, JobCause.ASSIGN)
    lab.attempts.pop(job.fence, None)  # the one before has ended: a late report of it is stale
    job.attempts, job.fence = event.attempt, event.fence
    if gang := run.plan.jobs[job.serial - 1].gang:
        leave_gang(lab, run, gang, job)
    row = lab.duts.get(event.dut) if event.dut else None
    held_s = lease_s(run.spec(job).disconnect_s, shared=row is not None and bool(row.ways))
    lab.attempts[event.fence] = Attempt(
        event.fence, job.id, event.attempt, event.agent, event.dut, at, lease_s=held_s
    )
    lab.turn_fences += 1
    note_preemptible(lab, run, job)
    run.live += 1
    take(lab, run, lab.attempts[event.fence])


def _job_moved(lab: Lab, event: e.JobMoved, at: int) -> None:
    job = lab.jobs[event.job]
    run = lab.runs[job.run]
    job.state = JOB.next(job.state, event.cause)
    job.error = event.error or job.error
    if event.cause is JobCause.REQUEUE:
        job.not_before = event.until
        job.stop = "" if job.stop == PREEMPTED else job.stop
        enqueue(lab, run, job, at)
    elif event.cause is JobCause.START:
        job.started_at, job.not_before = at, event.until
        set_timer(lab, event.until, "sleep", job.id)
    elif JOB.is_final(job.state):
        _end_job(lab, run, job, at)


def _end_job(lab: Lab, run: Run, job: Job, at: int) -> None:
    job.ended_at = at
    run.open_jobs -= 1
    run.ended[job.state] = run.ended.get(job.state, 0) + 1
    count_role(lab, run, job, -1)
    release_role(lab, run, run.spec(job).need.role)
    for serial in lab.indexes.children[run.id].get(job.serial, ()):
        child = lab.jobs[ids.job_of(run.id, serial)]
        child.missing -= 1
        if not child.missing and child.state is JobState.WAITING and not blocks(run, job):
            enqueue(lab, run, child, at)


def blocks(run: Run, job: Job) -> bool:
    """Tell whether what needs `job`, which has ended, must not start."""
    if job.state is JobState.PASSED:
        return False
    return run.spec(job).on_fail == "stop" or job.state in (JobState.SKIPPED, JobState.CANCELLED)


def _attempt_accepted(lab: Lab, event: e.AttemptAccepted, at: int) -> None:
    attempt = lab.attempts[event.fence]
    attempt.state = ATTEMPT.next(attempt.state, AttemptCause.ACCEPT)
    job = lab.jobs[attempt.job]
    if job.fence == event.fence and not JOB.is_final(job.state):
        job.state = JOB.next(job.state, JobCause.PREPARE)


def _attempt_started(lab: Lab, event: e.AttemptStarted, at: int) -> None:
    attempt = lab.attempts[event.fence]
    attempt.state = ATTEMPT.next(attempt.state, AttemptCause.START)
    attempt.started_at = at
    job = lab.jobs[attempt.job]
    if job.fence == event.fence and not JOB.is_final(job.state):
        job.state = JOB.next(job.state, JobCause.START)
        job.started_at = job.started_at or event.at


def _attempt_ended(lab: Lab, event: e.AttemptEnded, at: int) -> None:
    ended = event.ended
    attempt = lab.attempts[ended.fence]
    attempt.state = ATTEMPT.next(attempt.state, AttemptCause.END)
    attempt.outcome, attempt.setup = ended.outcome, ended.setup
    attempt.samples_upto, attempt.output_upto = ended.samples_upto, ended.output_upto
    place = attempt.dut or place_of("agent", attempt.agent)
    apply_health.note_outcome(lab, place, ended.outcome, ended.fence)
    job = lab.jobs[attempt.job]
    if job.fence == ended.fence and not JOB.is_final(job.state):
        job.state = JOB.next(job.state, JobCause.COLLECT)
        job.started_at = job.started_at or ended.started_at
        job.error = job.error if job.stop and job.stop != PREEMPTED else ended.error
        note_fault(job, lab.runs[job.run].spec(job), attempt, ended.outcome)
    note_end(lab, attempt, ended, at)
    release(lab, attempt, at)


def _attempt_lost(lab: Lab, event: e.AttemptLost, at: int) -> None:
    attempt = lab.attempts[event.fence]
    attempt.state = ATTEMPT.next(attempt.state, AttemptCause.LOSE)
    attempt.outcome = "lost"
    job = lab.jobs[attempt.job]
    if job.fence == event.fence and not JOB.is_final(job.state):
        note_fault(job, lab.runs[job.run].spec(job), attempt, "lost")
    if attempt.dut in lab.duts:
        set_carried(lab, lab.duts[attempt.dut], ())  # nobody knows how it was left
    release(lab, attempt, at)


def _job_judged(lab: Lab, event: e.JobJudged, at: int) -> None:
    job = lab.jobs[event.job]
    job.state = JOB.next(job.state, event.cause)
    job.error = event.error or job.error
    _end_job(lab, lab.runs[job.run], job, at)


def _run_moved(lab: Lab, event: e.RunMoved, at: int) -> None:
    run = lab.runs[event.run]
    run.state = RUN.next(run.state, event.cause)
    if not run.started_at:
        run.started_at = at
        if run.duration_us:
            set_timer(lab, at + run.duration_us, "duration", run.id)


def _run_judged(lab: Lab, event: e.RunJudged, at: int) -> None:
    run = lab.runs[event.run]
    run.state = RUN.next(run.state, event.cause)
    run.ended_at, run.evidence = at, event.evidence
    let_boards_go(lab, run)
    if run.id in lab.indexes.undoing:
        lab.indexes.undo_look.add(lab.indexes.undoing[run.id])


def forget(lab: Lab, run: RunId) -> None:
    """Let a final run without live attempts leave the memory; the projection keeps it."""
    gone = lab.runs.pop(run)
    lab.keys.pop(f"{gone.org} {gone.key}", None)
    for planned in gone.plan.jobs:
        job = lab.jobs.pop(ids.job_of(run, planned.serial))
        lab.attempts.pop(job.fence, None)
    indexes = lab.indexes
    unindex_run(lab, gone)
    indexes.look.discard(run)
    indexes.bound_ready.pop(run, None)
    indexes.wants_binding.discard(run)
    for role in gone.bound:
        indexes.role_users.pop((run, role), None)


def _agent_seen(lab: Lab, event: e.AgentSeen, at: int) -> None:
    facts = event.facts
    agent = lab.agents.get(facts.agent)
    if agent is None:
        lab.agents[facts.agent] = Agent(facts=facts, since=at)
    else:
        agent.facts, agent.since = facts, at
        agent.state = AGENT.next(agent.state, AgentCause.HELLO)
    tell(lab, facts)
    note_agent(lab, lab.agents[facts.agent])


def _agent_moved(lab: Lab, event: e.AgentMoved, at: int) -> None:
    agent = lab.agents[event.agent]
    agent.state = AGENT.next(agent.state, event.cause)
    agent.since = at
    settle_all(lab, agent.facts)


def _dut_marked(lab: Lab, event: e.DutMarked, at: int) -> None:
    lab.duts[event.dut].faulty = event.faulty


def _spool_applied(lab: Lab, event: e.SpoolApplied, at: int) -> None:
    agent = lab.agents[event.agent]
    if agent.spool != event.spool:
        if agent.spool:
            agent.retired = (*agent.retired, agent.spool)[-RETIRED_SPOOLS:]
        agent.spool = event.spool
        lab.indexes.marks.pop(event.agent, None)
    agent.applied = event.upto


def _report_refused(lab: Lab, event: e.ReportRefused, at: int) -> None:
    lab.count(f"reports_refused.{event.code}")


_APPLY: dict[type, Callable[[Lab, Any, int], None]] = {
    e.LeaderChosen: _leader_chosen,
    e.RunAdmitted: _run_admitted,
    e.RolesBound: _roles_bound,
    e.JobAssigned: _job_assigned,
    e.JobMoved: _job_moved,
    e.AttemptAccepted: _attempt_accepted,
    e.AttemptStarted: _attempt_started,
    e.AttemptEnded: _attempt_ended,
    e.AttemptLost: _attempt_lost,
    e.JobJudged: _job_judged,
    e.RunMoved: _run_moved,
    e.RunJudged: _run_judged,
    e.AgentSeen: _agent_seen,
    e.AgentMoved: _agent_moved,
    e.DutMarked: _dut_marked,
    e.SpoolApplied: _spool_applied,
    e.ReportRefused: _report_refused,
    **apply_health.APPLY,
    **apply_intent.APPLY,
    **apply_leases.APPLY,
    **apply_live.APPLY,
    **apply_preempt.APPLY,
    **apply_suspend.APPLY,
    **SCHED,
    **apply_teardown.APPLY,
    AttemptResolved: attempt_resolved,
    BoardKept: board_kept,
    BoardLetGo: board_let_go,
    **apply_consoles.APPLY,
    **apply_channels.APPLY,
    **apply_store.APPLY,
}
