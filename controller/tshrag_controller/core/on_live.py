"""PURE: what samples decide while a run is alive: it ends early, a job stops, a gate opens."""

from typing import Literal

from tshrag_common import ids
from tshrag_common.errors import ErrorReport
from tshrag_common.ids import JobId, RunId
from tshrag_common.states import JOB, JobCause, JobState, RunState
from tshrag_controller.core.decision import Decision, SendCancel
from tshrag_controller.core.events import JobMoved
from tshrag_controller.core.follow import settle_run
from tshrag_controller.core.lab import Job, Lab, Run
from tshrag_controller.core.live_events import GateOpened, JobStopped, RunDecided


def on_decided(
    decision: Decision, name: RunId, criterion: str, verdict: Literal["pass", "fail"], said: str
) -> bool:
    """End early what is left of a run whose verdict cannot change; tell whether there was any.

    Jobs that wait are skipped. What lives is ended, and judged by all samples that it has brought:
    its job is skipped when those are stored.
    """
    run = decision.lab.runs.get(name)
    if run is None or run.state is not RunState.RUNNING or run.decided:
        return False
    saved_s = _left_s(decision.lab, run, decision.now)
    why = ErrorReport(code="decided", message=f"not needed any more: {said}"[:500])
    decision.happen(
        RunDecided(run=name, criterion=criterion, verdict=verdict, said=said, saved_s=saved_s)
    )
    for job in _open(decision.lab, run):
        if job.state is JobState.WAITING:
            decision.happen(JobMoved(job=job.id, cause=JobCause.SKIP, error=why))
        else:
            _stop(decision, job, "skip", why)
    settle_run(decision, run)
    return True


def on_guard(decision: Decision, name: JobId, kind: Literal["until", "abort"], said: str) -> bool:
    """End a job on a condition of its own: it has done enough, or must not go on."""
    job = decision.lab.jobs.get(name)
    if job is None or job.state is not JobState.RUNNING or job.stop:
        return False
    if kind == "until":
        _stop(decision, job, "pass", None)
    else:
        _stop(decision, job, "fail", ErrorReport(code="aborted", message=said[:500]))
    return True


def on_gate(decision: Decision, name: JobId, said: str) -> bool:
    """Let a job start that waited for its condition."""
    job = decision.lab.jobs.get(name)
    if job is None or job.state is not JobState.WAITING or job.is_open:
        return False
    decision.happen(GateOpened(job=name, said=said[:500]))
    return True


def _stop(
    decision: Decision, job: Job, end: Literal["pass", "fail", "skip"], error: ErrorReport | None
) -> None:
    attempt = decision.lab.attempts.get(job.fence)
    decision.happen(JobStopped(job=job.id, end=end, error=error))
    if attempt is not None and not attempt.outcome:
        decision.then(SendCancel(attempt.agent, attempt.fence))


def _open(lab: Lab, run: Run) -> list[Job]:
    jobs = (lab.jobs[ids.job_of(run.id, planned.serial)] for planned in run.plan.jobs)
    return [job for job in jobs if not JOB.is_final(job.state)]


def _left_s(lab: Lab, run: Run, now: int) -> float:
    """Return the longest time that a job which runs could still have taken."""
    left = [0.0]
    for job in _open(lab, run):
        attempt = lab.attempts.get(job.fence)
        if attempt is not None and attempt.started_at:
            gone_s = (now - attempt.started_at) / 1e6
            left.append(run.spec(job).timeout_s - gone_s)
    return round(max(left), 3)
