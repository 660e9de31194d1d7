"""PURE: what a new leader takes up first: decisions of which only a part is in the LOG.

A frame too large for one message is cut between events. When its writer died between the parts,
an attempt may be lost whose job knows nothing of it, a job may have ended whose dependants or
whose run do not.
"""

from tshrag_common import ids
from tshrag_common.states import JOB, AttemptState, JobState
from tshrag_controller.core.apply import blocks
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.follow import after_end, forget_if_over, settle_run
from tshrag_controller.core.lab import Job, Run
from tshrag_controller.core.on_attempt import after_loss, conclude, is_stored


def on_resume(decision: Decision) -> None:
    """Finish what was half decided; a Lab whose frames are whole does not change."""
    for run in list(decision.lab.runs.values()):
        for planned in run.plan.jobs:
            job = decision.lab.jobs[ids.job_of(run.id, planned.serial)]
            if JOB.is_final(job.state):
                if blocks(run, job):
                    after_end(decision, job)
            else:
                _resume_job(decision, job)
        _resume_run(decision, run)


def _resume_job(decision: Decision, job: Job) -> None:
    attempt = decision.lab.attempts.get(job.fence)
    if attempt is None or job.state is JobState.WAITING:
        return
    if attempt.state is AttemptState.LOST:
        after_loss(decision, job, attempt, "it was lost")
    elif job.state is JobState.COLLECTING and is_stored(decision.lab, attempt):
        conclude(decision, job, attempt)


def _resume_run(decision: Decision, run: Run) -> None:
    settle_run(decision, run)
    forget_if_over(decision, run)
