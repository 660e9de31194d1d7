"""PURE: jobs held back and let go, windows moved: what that does to the queues. Part of `apply`."""

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heapify
from typing import Any

from tshrag_common import ids
from tshrag_common.ids import JobId
from tshrag_common.states import JobState
from tshrag_controller.core import suspend_events as e
from tshrag_controller.core.lab import Job, Lab, Run, set_timer
from tshrag_controller.core.queues import enqueue, rebind


def _jobs(lab: Lab, run: Run, job: JobId | None) -> list[Job]:
    names = [job] if job else [ids.job_of(run.id, each.serial) for each in run.plan.jobs]
    return [lab.jobs[name] for name in names]


def _held(lab: Lab, event: e.JobsHeld, at: int) -> None:
    run = lab.runs[event.run]
    jobs = _jobs(lab, run, event.job)
    run.is_held = True
    for job in jobs:
        job.held = event.reason or f"by {event.by}"
    _dequeue(lab, run, jobs)


def _released(lab: Lab, event: e.JobsReleased, at: int) -> None:
    run = lab.runs[event.run]
    held = [job for job in _jobs(lab, run, event.job) if job.held]
    for job in held:
        job.held = ""
    run.is_held = run.is_held and event.job is not None
    _enqueue(lab, run, held, at)


def _rescheduled(lab: Lab, event: e.RunRescheduled, at: int) -> None:
    run = lab.runs[event.run]
    waiting = _jobs(lab, run, None)
    _dequeue(lab, run, waiting)
    run.not_before, run.deadline = event.not_before, event.deadline
    _enqueue(lab, run, waiting, at)
    if run.deadline:
        set_timer(lab, run.deadline, "expire", run.id)


def _enqueue(lab: Lab, run: Run, jobs: Iterable[Job], at: int) -> None:
    for job in jobs:
        if job.state is JobState.WAITING and not job.missing:
            enqueue(lab, run, job, at)


def _dequeue(lab: Lab, run: Run, jobs: Iterable[Job]) -> None:
    """Take jobs out of every queue; a run that wants DUTs for others of its jobs still does."""
    names, indexes = {job.id for job in jobs}, lab.indexes
    if indexes.own:
        indexes.own = deque(name for name in indexes.own if name not in names)
    for key in {lab.need_key(run, lab.jobs[name]) for name in names}:
        queue = indexes.ready.get((key, run.org))
        if queue is not None:
            queue[:] = [entry for entry in queue if entry[1] not in names]
            heapify(queue)
    bound = indexes.bound_ready.get(run.id)
    if bound is not None:
        bound[:] = [entry for entry in bound if entry[1] not in names]
        heapify(bound)
    if run.id in indexes.wants_binding:
        indexes.wants_binding.discard(run.id)
        for runs in indexes.binding.values():
            runs[:] = [entry for entry in runs if entry[1] != run.id]
            heapify(runs)
        rebind(lab, run)


APPLY: dict[type, Callable[[Lab, Any, int], None]] = {
    e.JobsHeld: _held,
    e.JobsReleased: _released,
    e.RunRescheduled: _rescheduled,
}
