"""Who is held back, told beside what the projection has: that is no state, and no row of it."""

from collections.abc import Iterable

import msgspec

from tshrag_common import ids
from tshrag_common.ids import JobId, RunId
from tshrag_common.states import JobState
from tshrag_common.views import JobView, RunView
from tshrag_controller.core.lab import Lab


def with_holds(lab: Lab, views: Iterable[RunView]) -> tuple[RunView, ...]:
    """Return runs with how many of their jobs are held back."""
    return tuple(
        msgspec.structs.replace(view, held=held) if (held := _held(lab, RunId(view.id))) else view
        for view in views
    )


def _held(lab: Lab, name: RunId) -> int:
    run = lab.runs.get(name)
    if run is None or not run.is_held:
        return 0
    jobs = (lab.jobs[ids.job_of(name, planned.serial)] for planned in run.plan.jobs)
    return sum(job.state is JobState.WAITING and bool(job.held) for job in jobs)


def with_reasons(lab: Lab, views: Iterable[JobView]) -> tuple[JobView, ...]:
    """Return jobs with the reason why they are held back."""
    return tuple(
        msgspec.structs.replace(view, held=job.held)
        if (job := lab.jobs.get(JobId(view.id))) is not None
        and job.held
        and job.state is JobState.WAITING
        else view
        for view in views
    )
