"""What samples decide while a run is alive, as lines of its timeline."""

from collections.abc import Callable
from typing import Any, Protocol

from tshrag_controller.core import live_events as e


class Noting(Protocol):
    """What takes the rows of one frame (see projection.py)."""

    def note_run(self, run: str, what: str, text: str) -> None: ...

    def note(self, run: int, what: str, text: str) -> None: ...

    def key(self, job: str) -> tuple[int, int]: ...


def _run_decided(rows: Noting, event: e.RunDecided) -> None:
    saved = f", at most {event.saved_s:.0f} s saved" if event.saved_s >= 1 else ""
    rows.note_run(event.run, "decided", f"{event.verdict}: {event.said}{saved}")


def _job_stopped(rows: Noting, event: e.JobStopped) -> None:
    run, serial = rows.key(event.job)
    why = event.error.message if event.error else "it has done enough"
    rows.note(run, "stopping", f"job {serial}: {why}")


def _gate_opened(rows: Noting, event: e.GateOpened) -> None:
    run, serial = rows.key(event.job)
    rows.note(run, "gate", f"job {serial}: {event.said}")


WRITERS: dict[type, Callable[[Any, Any], None]] = {
    e.RunDecided: _run_decided,
    e.JobStopped: _job_stopped,
    e.GateOpened: _gate_opened,
}
