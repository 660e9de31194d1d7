"""PURE: what agents report of attempts, and what comes of it."""

import msgspec

from tshrag_common import ids
from tshrag_common.errors import ErrorReport
from tshrag_common.ids import AgentId, Fence, JobId
from tshrag_common.reports import Accepted, Ended, Started
from tshrag_common.states import ATTEMPT, JOB, AttemptCause, JobCause, JobState
from tshrag_controller.core import retry
from tshrag_controller.core.decision import Decision, SendCancel
from tshrag_controller.core.events import (
    AttemptAccepted,
    AttemptEnded,
    AttemptLost,
    AttemptStarted,
    JobMoved,
    ReportRefused,
)
from tshrag_controller.core.follow import end_job, forget_if_over
from tshrag_controller.core.freeze import freeze, keep_for_verdict
from tshrag_controller.core.gangs import is_spoilt, mates_of
from tshrag_controller.core.lab import PREEMPTED, Attempt, Job, Lab, Marks, is_kept, set_timer
from tshrag_controller.core.sched_events import RoleReleased

SETTLE_US = 60_000_000
"""How long an ended job waits for its samples and output before that is an error."""


def holder(
    decision: Decision, agent: AgentId, seq: int, fence: Fence, cause: AttemptCause
) -> Attempt | None:
    """Return the attempt that `agent` may speak of; else record why its report counts nothing."""
    attempt = decision.lab.attempts.get(fence)
    if attempt is None and fence >= ids.fence(decision.lab.sequence + 2, 0):  # never given
        refused = ReportRefused(agent=agent, seq=seq, code="unknown_job", what=str(fence))
    elif attempt is None:
        refused = ReportRefused(agent=agent, seq=seq, code="stale_fence", what=str(fence))
    elif attempt.agent != agent:
        refused = ReportRefused(agent=agent, seq=seq, code="not_holder", what=str(fence))
    elif not ATTEMPT.may(attempt.state, cause):
        refused = ReportRefused(agent=agent, seq=seq, code="already_final", what=attempt.state)
    else:
        return attempt
    decision.happen(refused)
    return None


def on_accepted(decision: Decision, agent: AgentId, seq: int, report: Accepted) -> None:
    if holder(decision, agent, seq, report.fence, AttemptCause.ACCEPT):
        decision.happen(AttemptAccepted(fence=report.fence, at=report.at))


def on_started(decision: Decision, agent: AgentId, seq: int, report: Started) -> None:
    if holder(decision, agent, seq, report.fence, AttemptCause.START):
        decision.happen(AttemptStarted(fence=report.fence, at=report.at))


def on_ended(decision: Decision, agent: AgentId, seq: int, report: Ended) -> None:
    """Free what the attempt held; its job is judged when all it said is stored."""
    attempt = holder(decision, agent, seq, report.fence, AttemptCause.END)
    if attempt is None:
        return
    lab = decision.lab
    job = lab.jobs[attempt.job]
    if job.stop == PREEMPTED and job.fence == report.fence and report.outcome == "cancelled":
        report = msgspec.structs.replace(report, outcome=PREEMPTED, error=job.error)
    decision.happen(AttemptEnded(ended=report))
    is_last = job.stop in STOPS or _pause_s(lab, job, attempt) is None
    if is_last and not is_kept(lab.runs[job.run].spec(job).need):
        freeze(decision, job, attempt)  # else the DUT is the run's until the job has ended
    if is_last:
        keep_for_verdict(decision, job, attempt)
    if job.state is not JobState.COLLECTING or job.fence != report.fence:
        forget_if_over(decision, lab.runs[job.run])  # it was cancelled; now nothing lives
        return
    if is_stored(lab, attempt):
        conclude(decision, job, attempt)
    else:
        wait_for_rest(lab, attempt, decision.now)


def is_stored(lab: Lab, attempt: Attempt) -> bool:
    """Tell whether all samples and output of an ended attempt are in the stores."""
    marks = lab.indexes.marks.get(attempt.agent, Marks())
    return attempt.samples_upto <= marks.samples and attempt.output_upto <= marks.output


def wait_for_rest(lab: Lab, attempt: Attempt, now: int) -> None:
    lab.indexes.settling.setdefault(attempt.agent, []).append(attempt.fence)
    set_timer(lab, now + SETTLE_US, "settle", str(attempt.fence))


def on_stored(decision: Decision, agent: AgentId, samples: int, output: int) -> None:
    """Conclude the jobs of `agent` all of whose samples and output are stored by now."""
    lab = decision.lab
    lab.indexes.marks[agent] = Marks(samples, output)
    still: list[Fence] = []
    for fence in lab.indexes.settling.pop(agent, []):
        attempt = lab.attempts.get(fence)
        job = lab.jobs.get(attempt.job) if attempt else None
        if attempt is None or job is None or job.state is not JobState.COLLECTING:
            continue
        if is_stored(lab, attempt):
            conclude(decision, job, attempt)
        else:
            still.append(fence)
    if still:
        lab.indexes.settling[agent] = still


def on_unsettled(decision: Decision, fence: Fence) -> None:
    """End a job whose samples or output did not come: it cannot be judged."""
    lab = decision.lab
    attempt = lab.attempts.get(fence)
    job = lab.jobs.get(attempt.job) if attempt else None
    if attempt is None or job is None or job.fence != fence:
        return
    if job.state is not JobState.COLLECTING:
        return
    if is_stored(lab, attempt):
        conclude(decision, job, attempt)
        return
    marks = lab.indexes.marks.get(attempt.agent, Marks())
    missing = []
    if marks.samples < attempt.samples_upto:
        missing.append(f"samples {marks.samples + 1}..{attempt.samples_upto}")
    if marks.output < attempt.output_upto:
        missing.append(f"output {marks.output + 1}..{attempt.output_upto}")
    what = f"{' and '.join(missing)} of {attempt.agent} did not arrive within 60 s"
    end_job(decision, job, JobCause.BREAK, ErrorReport(code="incomplete", message=what))
    if mates := mates_of(lab, job):
        conclude_gang(decision, mates)


_CAUSES = {
    "passed": JobCause.PASS,
    "failed": JobCause.FAIL,
    "error": JobCause.BREAK,
    "timeout": JobCause.TIME_OUT,
    "cancelled": JobCause.CANCEL,
    "refused": JobCause.BREAK,
    PREEMPTED: JobCause.BREAK,  # where nobody had asked for it
}


RETRIABLE = ("error", "refused", "failed", "timeout")
"""Outcomes that an agent tells, after which there may be another attempt."""

STOPPED = ("cancelled", PREEMPTED)
"""Outcomes of attempts that went as well as they were let."""

STOPS = {"pass": JobCause.PASS, "fail": JobCause.FAIL, "skip": JobCause.SKIP}


def conclude(decision: Decision, job: Job, attempt: Attempt) -> None:
    """Give the job of an ended attempt another attempt, or its end; a gang all at once."""
    mates = mates_of(decision.lab, job)
    if mates:
        conclude_gang(decision, mates)
    else:
        _conclude(decision, job, attempt)


def conclude_gang(decision: Decision, mates: list[Job]) -> None:
    """End a gang when nothing of it lives any more; stop it when one of it has not passed."""
    lab = decision.lab
    open_ = [job for job in mates if not JOB.is_final(job.state)]
    tries = {job.id: lab.attempts[job.fence] for job in open_ if job.fence in lab.attempts}
    spoilt = [job for job in open_ if is_spoilt(lab, job)]
    living = [job for job in open_ if job.id in tries and not tries[job.id].outcome]
    if spoilt or len(open_) < len(mates):
        for job in living:
            decision.then(SendCancel(tries[job.id].agent, job.fence, "cancelled"))
    if living or any(
        job.state is JobState.COLLECTING and not is_stored(lab, tries[job.id]) for job in open_
    ):
        return
    ended = [job for job in open_ if job.state is not JobState.WAITING]
    if not spoilt or len(open_) < len(mates) or not _try_gang_again(decision, ended, tries):
        for job in ended:
            _end_member(decision, job, tries, spoilt)


def _try_gang_again(decision: Decision, ended: list[Job], tries: dict[JobId, Attempt]) -> bool:
    """Queue all of a gang again: where it has given way, or each that went wrong may go again."""
    if any(job.stop in STOPS and job.stop != "pass" for job in ended):
        return False  # its verdict is known
    bad = [job for job in ended if tries[job.id].outcome not in ("passed", *STOPPED)]
    gave_way = any(tries[job.id].outcome == PREEMPTED for job in ended)
    pauses = [_pause_s(decision.lab, job, tries[job.id]) for job in bad]
    if (not bad and not gave_way) or any(pause is None for pause in pauses):
        return False
    longest_s = max((pause for pause in pauses if pause is not None), default=0.0)
    until = decision.now + round(longest_s * 1e6)
    for job in ended:
        decision.happen(JobMoved(job=job.id, cause=JobCause.REQUEUE, until=until, error=job.error))
    for job in ended:  # a gang that waits holds nothing
        try_elsewhere(decision, job, shun=job in bad and _is_elsewhere(decision, job, tries))
    return True


def _is_elsewhere(decision: Decision, job: Job, tries: dict[JobId, Attempt]) -> bool:
    spec, outcome = decision.lab.runs[job.run].spec(job), tries[job.id].outcome
    return outcome in (*retry.LAB_FAULTS, "refused") or spec.retry_elsewhere


def _end_member(
    decision: Decision, job: Job, tries: dict[JobId, Attempt], spoilt: list[Job]
) -> None:
    attempt = tries[job.id]
    if attempt.outcome == PREEMPTED or (attempt.outcome == "cancelled" and not job.stop):
        others = [each for each in spoilt if each is not job]
        told = (each for each in others if tries[each.id].outcome not in STOPPED)
        first = next(told, others[0] if others else job)
        what = f"{first.id}, which started together with it, has not passed"
        end_job(decision, job, JobCause.SKIP, ErrorReport(code="gang", message=what))
    elif attempt.outcome == "lost":
        lost = ErrorReport(code="lost", message="attempts exhausted: it was lost")
        end_job(decision, job, JobCause.BREAK, lost)
    else:
        _finish(decision, job, attempt)


def _conclude(decision: Decision, job: Job, attempt: Attempt) -> None:
    if attempt.outcome == PREEMPTED:
        _queue_again(decision, job)
        return
    may_retry = attempt.outcome in RETRIABLE and job.stop not in STOPS
    if not may_retry or not try_again(decision, job, attempt):
        _finish(decision, job, attempt)


def _queue_again(decision: Decision, job: Job) -> None:
    """Put a job that gave way back to its place in the line; its DUT is for others."""
    decision.happen(
        JobMoved(job=job.id, cause=JobCause.REQUEUE, until=decision.now, error=job.error)
    )
    try_elsewhere(decision, job, shun=False)


def _finish(decision: Decision, job: Job, attempt: Attempt) -> None:
    if job.stop in STOPS and attempt.outcome not in ("passed", "failed"):
        end_job(decision, job, STOPS[job.stop], job.error)
    else:
        end_job(decision, job, _CAUSES[attempt.outcome], _exhausted(decision.lab, job, attempt))
    freeze(decision, job, attempt)


def try_again(decision: Decision, job: Job, attempt: Attempt) -> bool:
    """Queue another attempt where the job may have one; tell whether it may."""
    pause_s = _pause_s(decision.lab, job, attempt)
    if pause_s is not None:
        until = decision.now + round(pause_s * 1e6)
        decision.happen(JobMoved(job=job.id, cause=JobCause.REQUEUE, until=until, error=job.error))
        spec = decision.lab.runs[job.run].spec(job)
        is_elsewhere = attempt.outcome in retry.LAB_FAULTS or spec.retry_elsewhere
        if is_elsewhere and attempt.outcome != "refused":
            try_elsewhere(decision, job)
    return pause_s is not None


def _pause_s(lab: Lab, job: Job, attempt: Attempt) -> float | None:
    """Return the pause before another attempt; None: there may be none."""
    spec = lab.runs[job.run].spec(job)
    if attempt.outcome == "refused":
        return 1.0 if job.refusals < retry.REFUSALS else None
    if attempt.outcome not in retry.reasons(spec):
        return None
    helps = attempt.outcome != "error" or job.error is None or job.error.retryable
    most = min(spec.attempts, 2) if attempt.setup == "failed" else spec.attempts
    faults = faults_of(lab, job)
    if not helps or faults >= most:  # a mistake stays one at every try
        return None
    return retry.backoff_s(faults, attempt.fence)


def faults_of(lab: Lab, job: Job) -> int:
    """Return how often a job has gone wrong; a gang goes wrong as a whole, whoever of it did."""
    mates = mates_of(lab, job)
    refusals = sum(mate.refusals for mate in mates)
    tries = job.attempts - job.preempted - refusals if mates else 0
    return max(job.faults, tries)


def try_elsewhere(decision: Decision, job: Job, shun: bool = True) -> None:
    """Let a run look for another DUT where it has done nothing yet on the one that failed it.

    What earlier jobs of the role did was done on that very DUT: then it has to be that one.
    """
    lab = decision.lab
    run = lab.runs[job.run]
    role = run.spec(job).need.role
    place = run.bound.get(role)
    if not is_kept(run.spec(job).need) or place is None:
        return
    row = lab.duts.get(place[1])
    if row is None or row.holder or row.kept_by != run.id:
        return
    numbers = {number for number, spec in enumerate(run.plan.specs) if spec.need.role == role}
    jobs = (
        lab.jobs[ids.job_of(run.id, planned.serial)]
        for planned in run.plan.jobs
        if planned.spec in numbers
    )
    if all(each.state is JobState.WAITING for each in jobs):
        decision.happen(RoleReleased(run=run.id, role=role, shun=shun))


def _exhausted(lab: Lab, job: Job, attempt: Attempt) -> ErrorReport | None:
    """Say that attempts are exhausted, with the reason of the last one."""
    spec = lab.runs[job.run].spec(job)
    asked = (*retry.LAB_FAULTS, "refused", *spec.retry_on)
    tries = faults_of(lab, job) + job.refusals
    if attempt.outcome not in asked or tries <= 1:
        return job.error
    last = job.error.message if job.error else attempt.outcome
    code = job.error.code if job.error else "attempts_exhausted"
    return ErrorReport(code=code, message=f"attempts exhausted after {tries}: {last}")


def lose(decision: Decision, fence: Fence, reason: str) -> None:
    """Declare an attempt lost: its job gets another one, or ends in error."""
    lab = decision.lab
    attempt = lab.attempts.get(fence)
    if attempt is None or not ATTEMPT.may(attempt.state, AttemptCause.LOSE):
        return
    decision.happen(AttemptLost(fence=fence, reason=reason))
    job = lab.jobs[attempt.job]
    if JOB.is_final(job.state) or job.fence != fence:
        forget_if_over(decision, lab.runs[job.run])
        return
    after_loss(decision, job, attempt, reason)


def after_loss(decision: Decision, job: Job, attempt: Attempt, reason: str) -> None:
    """Give the job of a lost attempt another one, or end it in error."""
    if mates := mates_of(decision.lab, job):
        conclude_gang(decision, mates)
        return
    if job.stop in STOPS or not try_again(decision, job, attempt):
        code = ErrorReport(code="lost", message=f"attempts exhausted: {reason}")
        end_job(decision, job, JobCause.BREAK, code)
