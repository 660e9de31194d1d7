"""PURE: what preemption does to the Lab. Part of `apply`."""

from collections.abc import Callable
from typing import Any

from tshrag_common.errors import ErrorReport
from tshrag_controller.core import preempt_events as e
from tshrag_controller.core.lab import PREEMPTED, Job, Lab, Run, Way


def note_preemptible(lab: Lab, run: Run, job: Job) -> None:
    """List the attempt of a job that may be ended."""
    if run.spec(job).preemptible:
        lab.indexes.preemptible.add(job.fence)
    if job.stop == PREEMPTED and job.way is not None:
        lab.indexes.making_way.add(job.fence)


def _attempt_preempted(lab: Lab, event: e.AttemptPreempted, at: int) -> None:
    job = lab.jobs[event.job]
    job.stop, job.preempted = PREEMPTED, job.preempted + 1
    job.error = ErrorReport(code="preempted", message=event.said)
    job.way = Way(event.by, event.duts, event.slots) if event.duts or event.slots else None
    if job.way is not None:
        lab.indexes.making_way.add(event.fence)
    lab.count("preempted")


APPLY: dict[type, Callable[[Lab, Any, int], None]] = {e.AttemptPreempted: _attempt_preempted}
