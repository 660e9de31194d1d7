"""PURE: what people ask of runs: submit, cancel; and what comes of a run's judgement."""

from typing import Literal

import msgspec

from tshrag_common import ids
from tshrag_common.criteria import Evidence
from tshrag_common.errors import ErrorReport, Invalid, LabError, NotFound, Refused
from tshrag_common.ids import Fence, JobId, OrgId, RunId
from tshrag_common.states import JOB, RUN, JobCause, RunCause, RunState, worst
from tshrag_controller.core.admission import refusals
from tshrag_controller.core.decision import Decision, SendCancel
from tshrag_controller.core.events import JobMoved, RunAdmitted, RunJudged
from tshrag_controller.core.follow import after_end, end_open_jobs, forget_if_over
from tshrag_controller.core.freeze import hand_failed
from tshrag_controller.core.gangs import mates_of
from tshrag_controller.core.lab import Job, Lab, Run
from tshrag_controller.core.quotas import check_queued


class AlreadyFinal(Refused):
    """What has ended does not change."""

    code = "already_final"

    def __init__(self, name: str, state: str) -> None:
        super().__init__(name, state)
        self.name, self.state = name, state


class Submitted(msgspec.Struct, frozen=True):
    """The answer to a submit: ``created`` is false where the same was submitted before."""

    run: RunId
    created: bool


class Stopping(msgspec.Struct, frozen=True):
    """The answer to a cancel: the jobs that are final now, and what must still be ended."""

    run: RunId
    jobs: tuple[JobId, ...]
    fences: tuple[Fence, ...]
    away: dict[JobId, str] = {}  # jobs whose agents are away, and what that means


def on_submit(decision: Decision, admitted: RunAdmitted, park: bool = False) -> Submitted:
    """Take a planned profile in; the same id or key again gives the run it made.

    Unless it is to be parked, a plan that no place could ever serve is refused now.

    Raises:
        Invalid: names that no inventory holds, needs that nothing fits, each with what is near.
        Refused: the org has too many jobs that wait.

    """
    lab = decision.lab
    if admitted.run in lab.runs:
        if lab.runs[admitted.run].org != admitted.org:
            raise taken(admitted.run)
        return Submitted(admitted.run, False)
    known = lab.keys.get(f"{admitted.org} {admitted.key}") if admitted.key else None
    if known is not None:
        return Submitted(known, False)
    if not park:
        hosts = [agent.facts for agent in lab.agents.values()]
        problems = refusals(admitted.plan, hosts, require_agent=bool(hosts), policy=lab.policy)
        if problems:
            raise Invalid(problems)
    check_queued(lab, admitted.org, len(admitted.plan.jobs))
    decision.happen(admitted)
    return Submitted(admitted.run, True)


def taken(run: RunId) -> Refused:
    """Return the refusal of a run id that is somebody else's; it says no more than that."""
    return Refused("run", f"{run} is taken", "submit under a new id", code="run_taken")


def on_cancel(decision: Decision, org: OrgId, name: str) -> Stopping:
    """Cancel a run or one job of it; the attempts end later, and hold their DUTs until then.

    Raises:
        NotFound: there is no such run or job in this org.
        AlreadyFinal: it has ended.

    """
    lab = decision.lab
    run = find_run(lab, org, name)
    if name.startswith("job-"):
        jobs = [lab.jobs[JobId(name)]]
        if JOB.is_final(jobs[0].state):
            raise AlreadyFinal(name, jobs[0].state)
        mates = mates_of(lab, jobs[0])
        jobs += [each for each in mates if each is not jobs[0] and not JOB.is_final(each.state)]
    else:
        if RUN.is_final(run.state):
            raise AlreadyFinal(name, run.state)
        jobs = open_jobs(lab, run)
    fences = stop_attempts(decision, jobs, "cancelled")
    if name.startswith("job-"):
        for job in jobs:
            decision.happen(JobMoved(job=job.id, cause=JobCause.CANCEL))
        for job in jobs:
            after_end(decision, job)
    else:
        end_open_jobs(decision, run, JobCause.CANCEL, None)
        _end_undecided(decision, run, RunCause.CANCEL)
    return Stopping(run.id, tuple(job.id for job in jobs), fences)


def _end_undecided(decision: Decision, run: Run, cause: RunCause) -> None:
    """End a run that waited for nothing but its verdict."""
    if run.state is RunState.EVALUATING:
        decision.happen(RunJudged(run=run.id, cause=cause))
        forget_if_over(decision, run)


def find_run(lab: Lab, org: OrgId, name: str) -> Run:
    """Return the run that `name` is, or that the job `name` belongs to."""
    if name.startswith("job-"):
        if JobId(name) not in lab.jobs:
            raise NotFound("job", name)  # whoever answers knows the names that come near
        run = lab.runs[ids.run_of(JobId(name))]
    else:
        found = lab.runs.get(RunId(name))
        if found is None:
            raise NotFound("run", name)
        run = found
    if run.org != org:
        raise NotFound("job" if name.startswith("job-") else "run", name)
    return run


def open_jobs(lab: Lab, run: Run) -> list[Job]:
    jobs = (lab.jobs[ids.job_of(run.id, planned.serial)] for planned in run.plan.jobs)
    return [job for job in jobs if not JOB.is_final(job.state)]


def stop_attempts(
    decision: Decision, jobs: list[Job], cause: Literal["cancelled", "timeout"]
) -> tuple[Fence, ...]:
    """Ask the agents to end what lives of `jobs`; return the fences."""
    fences: list[Fence] = []
    for job in jobs:
        attempt = decision.lab.attempts.get(job.fence)
        if attempt is None or attempt.outcome:
            continue
        decision.then(SendCancel(attempt.agent, attempt.fence, cause))
        fences.append(attempt.fence)
    return tuple(fences)


def on_expire(decision: Decision, run: Run) -> None:
    """End the jobs that have not started when the window of their run closes."""
    if not run.deadline or run.deadline > decision.now:
        return  # it was moved meanwhile
    error = ErrorReport(code="expired", message="the window passed before the job started")
    for job in open_jobs(decision.lab, run):
        if JOB.may(job.state, JobCause.EXPIRE):
            decision.happen(JobMoved(job=job.id, cause=JobCause.EXPIRE, error=error))
            after_end(decision, job)


def on_duration(decision: Decision, run: Run) -> None:
    """End everything of a run whose time is over."""
    jobs = open_jobs(decision.lab, run)
    stop_attempts(decision, jobs, "timeout")
    limit = f"{run.duration_us / 1e6:g} s"
    error = ErrorReport(code="run_timeout", message=f"the run took longer than {limit}")
    end_open_jobs(decision, run, JobCause.TIME_OUT, error)


def on_evidence(
    decision: Decision, name: RunId, evidence: tuple[Evidence, ...], trouble: LabError | None
) -> None:
    """End a run whose criteria were held against its samples; no evidence is an error."""
    run = decision.lab.runs.get(name)
    if run is None or run.state is not RunState.EVALUATING:
        return
    cause = worst(set(run.ended))
    words = {item.verdict for item in evidence if item.severity != "minor"}
    reason = ""
    if trouble is not None or "error" in words:
        cause = RunCause.BREAK
        reason = trouble.line if trouble else _reasons(evidence, "error")
    elif "fail" in words:
        cause = RunCause.FAIL
        reason = _reasons(evidence, "fail")
    kept = dict(run.awaits)
    decision.happen(RunJudged(run=run.id, cause=cause, evidence=evidence, reason=reason))
    if cause is RunCause.FAIL:
        hand_failed(decision, run, kept, evidence)
    forget_if_over(decision, run)


def _reasons(evidence: tuple[Evidence, ...], verdict: str) -> str:
    said = [
        f"{item.criterion}: {item.reason}"
        for item in evidence
        if item.verdict == verdict and item.severity != "minor"
    ]
    return "; ".join(said)[:2000]
