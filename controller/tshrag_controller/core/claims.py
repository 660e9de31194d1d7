"""PURE: who waits for a place, in order: each queue by its first ones, gangs each by itself."""

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush, nsmallest
from typing import Any, NamedTuple, TypeVar

from tshrag_controller.core.gangs import ready_of
from tshrag_controller.core.lab import Job, Lab, NeedKey, Order, Run
from tshrag_controller.core.order import Shares, order_of
from tshrag_controller.core.starting import is_startable

T = TypeVar("T", bound=tuple[Any, ...])

MOST_HEADS = 64
MOST_OF_QUEUE = 8
"""Those who stand first in their queues; the others come when these have started."""


class Claim(NamedTuple):
    """Somebody who waits. ``keys``: what he needs, all of it at once."""

    score: Order
    order: Order  # without what his org has used
    run: Run
    name: str
    keys: tuple[NeedKey, ...]
    avoid: tuple[str, ...]
    may: bool  # have others end
    gang: tuple[Job, ...] = ()  # who start together; one for each of ``keys``


class Claims:
    """All who wait, as far as they stand in front; `enough` is the priority to end anybody."""

    def __init__(self, lab: Lab, now: int, enough: int) -> None:
        self._lab, self._now, self._enough = lab, now, enough
        self._shares = Shares(lab, now)

    def first(self) -> list[Claim]:
        """Return those who stand first, in order."""
        everybody = (*self._jobs(), *self._bindings(), *self._gangs())
        return nsmallest(MOST_HEADS, everybody, key=lambda claim: claim.score)

    def _jobs(self) -> Iterator[Claim]:
        lab = self._lab
        for (key, _), queue in lab.indexes.ready.items():
            for order, name in front(queue, MOST_OF_QUEUE):
                job = lab.jobs.get(name)
                if is_startable(job, self._now):
                    yield self._claim(order, lab.runs[job.run], name, (key,), job.avoid)

    def _bindings(self) -> Iterator[Claim]:
        lab = self._lab
        for (keys, _), runs in lab.indexes.binding.items():
            for order, run_name in front(runs, MOST_OF_QUEUE):
                run = lab.runs.get(run_name)
                if run is not None and run_name in lab.indexes.wants_binding:
                    avoid = tuple(name for names in run.avoid.values() for name in names)
                    yield self._claim(order, run, run_name, keys, avoid)

    def _gangs(self) -> Iterator[Claim]:
        """Yield those that start together."""
        lab = self._lab
        for run_name, gang in lab.indexes.gangs:
            jobs = ready_of(lab, run_name, gang, self._now) if run_name in lab.runs else []
            if jobs:
                run = lab.runs[run_name]
                keys = tuple(lab.need_key(run, job) for job in jobs)
                claim = self._claim(order_of(lab, run, jobs[0]), run, jobs[0].id, keys, ())
                yield claim._replace(gang=tuple(jobs))

    def _claim(
        self, order: Order, run: Run, name: str, keys: tuple[NeedKey, ...], avoid: tuple[str, ...]
    ) -> Claim:
        score = (order[0] + self._shares.points(run.org), *order[1:])
        return Claim(score, order, run, name, keys, avoid, run.priority >= self._enough)


def front(heap: Sequence[T], most: int) -> list[T]:
    """Return the least of a heap, in order, without a look at the rest."""
    found: list[T] = []
    edge = [(heap[0], 0)] if heap else []
    while edge and len(found) < most:
        each, at = heappop(edge)
        found.append(each)
        for below in (2 * at + 1, 2 * at + 2):
            if below < len(heap):
                heappush(edge, (heap[below], below))
    return found
