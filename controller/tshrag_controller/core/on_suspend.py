"""PURE: a person holds a run or a job back, lets it go, moves its window."""

from tshrag_common.errors import Refused
from tshrag_common.ids import JobId, OrgId
from tshrag_common.states import RUN, JobState
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.lab import Job, Lab, Run
from tshrag_controller.core.on_run import AlreadyFinal, find_run, open_jobs
from tshrag_controller.core.suspend_events import JobsHeld, JobsReleased, RunRescheduled


def _waiting(lab: Lab, org: OrgId, name: str) -> tuple[Run, JobId | None, list[Job]]:
    """Return the run that is meant, the one job if one is, and what of it waits.

    Raises:
        NotFound: there is no such run or job in this org.
        AlreadyFinal: nothing of it waits any more.

    """
    run = find_run(lab, org, name)
    job = JobId(name) if name.startswith("job-") else None
    jobs = [lab.jobs[job]] if job else open_jobs(lab, run)
    waiting = [each for each in jobs if each.state is JobState.WAITING]
    if not waiting:
        raise AlreadyFinal(name, lab.jobs[job].state if job else run.state)
    return run, job, waiting


def on_hold(decision: Decision, org: OrgId, by: str, name: str, reason: str) -> tuple[JobId, ...]:
    """Let nothing of it start any more; return the jobs that are held. What runs goes on."""
    run, job, waiting = _waiting(decision.lab, org, name)
    decision.happen(JobsHeld(run=run.id, by=by, job=job, reason=reason))
    return tuple(each.id for each in waiting)


def on_let_go(decision: Decision, org: OrgId, by: str, name: str) -> tuple[JobId, ...]:
    """Let it start again, at its old place in the line; return the jobs that were held.

    Raises:
        Refused: nothing of it is held.

    """
    run, job, waiting = _waiting(decision.lab, org, name)
    held = tuple(each.id for each in waiting if each.held)
    if not held:
        raise Refused(name, "nothing of it is held", "see 'tshrag why'", code="not_on_hold")
    decision.happen(JobsReleased(run=run.id, by=by, job=job))
    return held


def on_reschedule(
    decision: Decision, org: OrgId, by: str, name: str, not_before: int | None, deadline: int | None
) -> Run:
    """Move the window of a run, one end of it or both; 0 takes an end away.

    Raises:
        NotFound: there is no such run in this org.
        AlreadyFinal: it has ended.
        Refused: the window would close before it opens, or has closed already.

    """
    run = find_run(decision.lab, org, name)
    if RUN.is_final(run.state):
        raise AlreadyFinal(name, run.state)
    opens = run.not_before if not_before is None else not_before
    closes = run.deadline if deadline is None else deadline
    if closes and closes <= max(opens, decision.now):
        fix = "take a later deadline, or cancel the run"
        raise Refused("deadline", "the window closes before it opens", fix, code="window")
    event = RunRescheduled(run=run.id, by=by, not_before=opens, deadline=closes)
    decision.happen(event)
    return run
