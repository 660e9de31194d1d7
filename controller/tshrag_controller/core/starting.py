"""PURE: what starts without a choice: on a DUT that its run keeps, or in the controller itself."""

from heapq import heappop, heappush
from typing import TypeGuard

from tshrag_common import ids
from tshrag_common.ids import AgentId, DutId, RunId
from tshrag_common.states import JobCause, JobState, RunCause, RunState
from tshrag_controller.core.consumables import look_again, scarce
from tshrag_controller.core.decision import Decision, SendStart
from tshrag_controller.core.events import JobAssigned, JobMoved, RunMoved
from tshrag_controller.core.follow import after_end
from tshrag_controller.core.lab import Job, Lab, Order, Run
from tshrag_controller.core.ways import way_for

JobQueue = list[tuple[Order, ids.JobId]]
RunQueue = list[tuple[Order, RunId]]


def end_own(decision: Decision) -> None:
    """End comments and nops at once, let sleeps begin: no agent is needed for these."""
    lab = decision.lab
    own = lab.indexes.own
    while own:
        job = lab.jobs.get(own.popleft())
        if job is None or job.state is not JobState.WAITING:
            continue
        run = lab.runs[job.run]
        start_run(decision, run)
        spec = run.spec(job)
        if spec.kind == "sleep" and spec.sleep_s > 0:
            until = decision.now + round(spec.sleep_s * 1e6)
            decision.happen(JobMoved(job=job.id, cause=JobCause.START, until=until))
        else:
            decision.happen(JobMoved(job=job.id, cause=JobCause.PASS))
            after_end(decision, job)


def start_run(decision: Decision, run: Run) -> None:
    if run.state is RunState.WAITING:
        decision.happen(RunMoved(run=run.id, cause=RunCause.START))


def start_kept(decision: Decision) -> None:
    """Start jobs on the DUTs that their runs keep, where something has changed since."""
    lab = decision.lab
    look = [name for name in lab.indexes.look if name in lab.runs]
    for name in sorted(look, key=lambda name: lab.runs[name].order):
        if not start_kept_of(decision, lab.runs[name]):
            lab.indexes.look.discard(name)


def start_kept_of(decision: Decision, run: Run) -> bool:
    """Start what can be; tell whether to look again though nothing of the run changes."""
    lab = decision.lab
    queue = lab.indexes.bound_ready.get(run.id, [])
    free = {role for role, (_, dut) in run.bound.items() if _is_idle(lab, dut)}
    waiting: JobQueue = []
    while queue and free:  # of a thousand jobs for one board all but one stay where they are
        entry = heappop(queue)
        job = lab.jobs.get(entry[1])
        if not is_startable(job, decision.now):
            continue
        role = run.spec(job).need.role
        if role in free and _start_on_kept(decision, run, job):
            free = {role for role in free if _is_idle(lab, run.bound[role][1])}
        else:
            waiting.append(entry)
    for entry in waiting:
        heappush(queue, entry)
    if not queue:
        lab.indexes.bound_ready.pop(run.id, None)
    return bool(queue and free)


def _is_idle(lab: Lab, dut: DutId) -> bool:
    row = lab.duts.get(dut)
    return row is not None and not row.holder


def _start_on_kept(decision: Decision, run: Run, job: Job) -> bool:
    lab = decision.lab
    need = run.spec(job).need
    if need.consumes and scarce(lab, need, decision.now):
        look_again(lab, need, decision.now)
        return False
    row = lab.duts.get(dut := run.bound[need.role][1])
    agent = way_for(lab, need, row, run.id) if row is not None else None
    if agent is None:
        return False
    assign(decision, run, job, agent, dut)
    return True


def is_startable(job: Job | None, now: int) -> TypeGuard[Job]:
    """Tell whether a queued job still wants a place: queues may hold what has moved on."""
    if job is None or job.state is not JobState.WAITING:
        return False
    return job.not_before <= now


def assign(decision: Decision, run: Run, job: Job, agent: AgentId, dut: DutId | None) -> None:
    start_run(decision, run)
    lab = decision.lab
    fence = ids.fence(lab.sequence + 1, lab.turn_fences)
    attempt = job.attempts + 1
    decision.happen(JobAssigned(job=job.id, fence=fence, agent=agent, attempt=attempt, dut=dut))
    decision.then(SendStart(agent, fence))
