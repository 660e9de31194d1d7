"""What samples decide while a run is alive: words of the LOG (see events.py)."""

from typing import Literal

from tshrag_common.errors import ErrorReport
from tshrag_common.ids import JobId, RunId
from tshrag_controller.core.event import Event


class RunDecided(Event, frozen=True, kw_only=True, array_like=True, tag="run_decided"):
    """The verdict of a run cannot change any more: what is left of it is not needed."""

    run: RunId
    criterion: str  # the one that decided; empty: all of them
    verdict: Literal["pass", "fail"]
    said: str
    saved_s: float = 0.0  # at most: of the time limits of what is ended early


class JobStopped(Event, frozen=True, kw_only=True, array_like=True, tag="job_stopped"):
    """A job whose attempt lives is to end in this way, as soon as that has ended."""

    job: JobId
    end: Literal["pass", "fail", "skip"]
    error: ErrorReport | None = None


class GateOpened(Event, frozen=True, kw_only=True, array_like=True, tag="gate_opened"):
    """What a job waited for (``when``) has come about."""

    job: JobId
    said: str = ""


LiveEvent = RunDecided | JobStopped | GateOpened
