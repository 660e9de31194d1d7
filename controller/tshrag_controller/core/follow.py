"""PURE: what follows when a job has ended: dependants skipped, the run judged or forgotten."""

from tshrag_common import ids
from tshrag_common.errors import ErrorReport
from tshrag_common.states import JOB, RUN, JobCause, JobState, RunCause, RunState, worst
from tshrag_controller.core.apply import blocks
from tshrag_controller.core.decision import Decision, ForgetRun, JudgeRun
from tshrag_controller.core.events import JobJudged, JobMoved, RunJudged, RunMoved
from tshrag_controller.core.lab import Job, Lab, Run

_TELLING = (JobState.ERROR, JobState.FAILED, JobState.TIMEOUT)
"""Jobs in these states say why a run did not pass; skipped and cancelled ones only follow."""


def end_job(
    decision: Decision, job: Job, cause: JobCause, error: ErrorReport | None = None
) -> None:
    """Give `job` its final state by `cause`, and let follow what follows."""
    if job.state is JobState.COLLECTING:
        decision.happen(JobJudged(job=job.id, cause=cause, error=error))
    else:
        decision.happen(JobMoved(job=job.id, cause=cause, error=error))
    after_end(decision, job)


def after_end(decision: Decision, job: Job) -> None:
    """Skip what can no longer start, breadth first; then see whether the run is over."""
    lab = decision.lab
    run = lab.runs[job.run]
    children = lab.indexes.children[run.id]
    ended = [job]
    for done in ended:
        if not blocks(run, done):
            continue
        for serial in children.get(done.serial, ()):
            child = lab.jobs[ids.job_of(run.id, serial)]
            if child.state is JobState.WAITING:
                why = ErrorReport(code="dependency", message=f"{done.id} ended {done.state}")
                decision.happen(JobMoved(job=child.id, cause=JobCause.SKIP, error=why))
                ended.append(child)
    skip_shut(decision, run)
    settle_run(decision, run)


def skip_shut(decision: Decision, run: Run) -> None:
    """Skip jobs whose gates nobody can open any more: everything else of the run has ended."""
    if run.open_jobs > decision.lab.indexes.gated.get(run.id, 0):
        return  # one that is open has no gate: no look at all the others at each end
    jobs = _open_jobs(decision.lab, run)
    if not jobs or any(not is_shut(run, job) or job.missing for job in jobs):
        return
    for job in jobs:
        if JOB.is_final(job.state):
            continue  # it was skipped with one before it
        message = "what it waited for has not come about, and nothing else runs"
        error = ErrorReport(code="gate", message=message)
        decision.happen(JobMoved(job=job.id, cause=JobCause.SKIP, error=error))
        after_end(decision, job)


def is_shut(run: Run, job: Job) -> bool:
    """Tell whether a job waits for a condition on samples."""
    return run.spec(job).when is not None and not job.is_open and job.state is JobState.WAITING


def _open_jobs(lab: Lab, run: Run) -> list[Job]:
    jobs = (lab.jobs[ids.job_of(run.id, planned.serial)] for planned in run.plan.jobs)
    return [job for job in jobs if not JOB.is_final(job.state)]


def settle_run(decision: Decision, run: Run) -> None:
    """Move a run all of whose jobs are final on to its verdict."""
    if run.open_jobs or RUN.is_final(run.state) or run.state is RunState.EVALUATING:
        return
    cause = worst(set(run.ended))
    if run.criteria and cause in (RunCause.PASS, RunCause.FAIL):
        decision.happen(RunMoved(run=run.id, cause=RunCause.EVALUATE))
        decision.then(JudgeRun(run.id))
        return
    decision.happen(RunJudged(run=run.id, cause=cause, reason=reason_of(decision.lab, run)))
    forget_if_over(decision, run)


def reason_of(lab: Lab, run: Run) -> str:
    """Return how many jobs ended otherwise than passed, and what the first of them said."""
    bad = [f"{count} {state}" for state, count in run.ended.items() if state is not JobState.PASSED]
    if not bad:
        return ""
    said = ", ".join(sorted(bad))
    for planned in run.plan.jobs:
        job = lab.jobs[ids.job_of(run.id, planned.serial)]
        if job.error is not None and job.state in _TELLING:
            return f"{said}; {planned.name}: {job.error.message}"[:500]
    return said


def forget_if_over(decision: Decision, run: Run) -> None:
    """Let the engine drop a final run once nothing of it is alive."""
    if RUN.is_final(run.state) and not run.live:
        decision.then(ForgetRun(run.id))


def end_open_jobs(decision: Decision, run: Run, cause: JobCause, error: ErrorReport | None) -> None:
    """End every job of `run` that is not final, in the order of the plan, by one cause.

    Dependants are not skipped on the way: all get the same cause.
    """
    for planned in run.plan.jobs:
        job = decision.lab.jobs[ids.job_of(run.id, planned.serial)]
        if not JOB.is_final(job.state):
            legal = cause if JOB.may(job.state, cause) else JobCause.CANCEL
            decision.happen(JobMoved(job=job.id, cause=legal, error=error))
    settle_run(decision, run)
