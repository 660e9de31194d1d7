"""Runs and jobs held back, and windows that move: words of the LOG (see events.py)."""

from tshrag_common.ids import JobId, RunId
from tshrag_controller.core.event import Event


class JobsHeld(Event, frozen=True, kw_only=True, array_like=True, tag="jobs_held"):
    """Jobs of a run that wait do not start until they are let go; what runs goes on."""

    run: RunId
    by: str
    job: JobId | None = None  # none: all of the run
    reason: str = ""


class JobsReleased(Event, frozen=True, kw_only=True, array_like=True, tag="jobs_released"):
    """They may start again."""

    run: RunId
    by: str
    job: JobId | None = None


class RunRescheduled(Event, frozen=True, kw_only=True, array_like=True, tag="run_rescheduled"):
    """The window of a run has moved: both ends of it, as they are from here on; 0: none."""

    run: RunId
    by: str
    not_before: int = 0
    deadline: int = 0


SuspendEvent = JobsHeld | JobsReleased | RunRescheduled
