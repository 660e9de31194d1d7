"""PURE: the queues of a Lab that only follows, as its leader has them.

A leader takes a job out of its queue when it gives it a place, and puts it in when its pause is
over. Neither is an event: whoever follows the LOG does both before it looks at who waits.
"""

from heapq import heapify, heappop

from tshrag_common.ids import JobId
from tshrag_common.states import JobState
from tshrag_controller.core.lab import Lab, Order
from tshrag_controller.core.on_tick import wake


def tidy(lab: Lab, now: int) -> None:
    """Let the queues hold whoever waits for a place, each once.

    Other timers that are due are dropped: a leader carries them out, and whoever begins to lead
    makes all indexes anew.
    """
    timers = lab.indexes.timers
    while timers and timers[0][0] <= now:
        _, what, name = heappop(timers)
        if what == "wake":
            wake(lab, JobId(name), now)
    for queues in (lab.indexes.ready, lab.indexes.bound_ready):
        for queue in queues.values():
            _keep_waiting(lab, queue, now)


def _keep_waiting(lab: Lab, queue: list[tuple[Order, JobId]], now: int) -> None:
    known: dict[JobId, Order] = {}
    for order, name in queue:
        job = lab.jobs.get(name)
        if job is not None and job.state is JobState.WAITING and job.not_before <= now:
            known.setdefault(name, order)
    if len(known) != len(queue):
        queue[:] = [(order, name) for name, order in known.items()]
        heapify(queue)
