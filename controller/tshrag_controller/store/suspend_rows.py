"""Runs that were held back, let go, moved -> lines of their timelines."""

from collections.abc import Callable
from typing import Any, Protocol

from tshrag_common import ids
from tshrag_common.ids import JobId
from tshrag_controller.core import suspend_events as e


class Noting(Protocol):
    """What takes the rows of one frame (see projection.py)."""

    def note_run(self, run: str, what: str, text: str) -> None: ...


def _which(job: JobId | None) -> str:
    return f"job {ids.serial_of(job)}, " if job else ""


def _held(rows: Noting, event: e.JobsHeld) -> None:
    why = f": {event.reason}" if event.reason else ""
    rows.note_run(event.run, "held", f"{_which(event.job)}by {event.by}{why}")


def _released(rows: Noting, event: e.JobsReleased) -> None:
    rows.note_run(event.run, "released", f"{_which(event.job)}by {event.by}")


def _rescheduled(rows: Noting, event: e.RunRescheduled) -> None:
    window = f"{event.not_before or 'now'} to {event.deadline or 'ever'}"
    rows.note_run(event.run, "rescheduled", f"by {event.by}: {window}")


WRITERS: dict[type, Callable[[Any, Any], None]] = {
    e.JobsHeld: _held,
    e.JobsReleased: _released,
    e.RunRescheduled: _rescheduled,
}
