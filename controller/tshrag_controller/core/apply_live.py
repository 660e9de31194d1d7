"""PURE: what samples decide while a run is alive. Part of `apply`."""

from collections.abc import Callable
from typing import Any

from tshrag_common.states import JobState
from tshrag_controller.core import live_events as e
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.queues import enqueue


def _run_decided(lab: Lab, event: e.RunDecided, at: int) -> None:
    lab.runs[event.run].decided = event.said


def _job_stopped(lab: Lab, event: e.JobStopped, at: int) -> None:
    job = lab.jobs[event.job]
    job.stop, job.error = event.end, event.error


def _gate_opened(lab: Lab, event: e.GateOpened, at: int) -> None:
    job = lab.jobs[event.job]
    job.is_open = True
    if job.state is JobState.WAITING and not job.missing:
        enqueue(lab, lab.runs[job.run], job, at)


APPLY: dict[type, Callable[[Lab, Any, int], None]] = {
    e.RunDecided: _run_decided,
    e.JobStopped: _job_stopped,
    e.GateOpened: _gate_opened,
}
