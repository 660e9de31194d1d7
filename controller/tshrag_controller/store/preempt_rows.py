"""Attempts that were preempted, as lines of the timeline of their run."""

from collections.abc import Callable
from typing import Any, Protocol

from tshrag_controller.core import preempt_events as e


class Noting(Protocol):
    """What takes the rows of one frame (see projection.py)."""

    def note(self, run: int, what: str, text: str) -> None: ...

    def key(self, job: str) -> tuple[int, int]: ...


def _attempt_preempted(rows: Noting, event: e.AttemptPreempted) -> None:
    run, serial = rows.key(event.job)
    rows.note(run, "preempted", f"job {serial}: {event.said}")


WRITERS: dict[type, Callable[[Any, Any], None]] = {e.AttemptPreempted: _attempt_preempted}
