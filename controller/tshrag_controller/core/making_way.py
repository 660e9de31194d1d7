"""PURE: places that come free one after the other for who wants several at once.

A gang may have others end for it. They end when they do: what the first has given back must not
go to somebody behind in the line while the last still ends, or it has ended for nothing. So the
places that a gang will have are for it, from the stop of its first victim to the end of its last.
"""

from collections.abc import Iterator, Mapping

from tshrag_common.ids import AgentId, JobId, RunId
from tshrag_common.states import JobState
from tshrag_controller.core.lab import PREEMPTED, Lab, Order, Way
from tshrag_controller.core.order import order_of, order_of_run

SlotsAside = Mapping[AgentId, tuple[tuple[Order, int], ...]]


def ways_made(lab: Lab) -> Iterator[tuple[Order, Way]]:
    """Yield who waits for attempts that are ending, as his place in the line, and what for."""
    indexes, told = lab.indexes, set[Way]()
    for fence in sorted(indexes.making_way):
        attempt = lab.attempts.get(fence)
        job = lab.jobs[attempt.job] if attempt is not None and not attempt.outcome else None
        if job is None or job.way is None or job.fence != fence or job.stop != PREEMPTED:
            indexes.making_way.discard(fence)
            continue
        order = _order_of_name(lab, job.way.by)
        if order is not None and job.way not in told:
            told.add(job.way)
            yield order, job.way


def _order_of_name(lab: Lab, name: str) -> Order | None:
    """Return the place of a job or a run that waits; None: it does not any more."""
    run = lab.runs.get(RunId(name))
    if run is not None:
        return order_of_run(lab, run) if run.id in lab.indexes.wants_binding else None
    job = lab.jobs.get(JobId(name))
    if job is None or job.state is not JobState.WAITING:
        return None
    return order_of(lab, lab.runs[job.run], job)


def slots_aside(lab: Lab) -> SlotsAside:
    """Return the slots of hosts that are for those who have had others end."""
    found: dict[AgentId, tuple[tuple[Order, int], ...]] = {}
    for order, way in ways_made(lab):
        for agent, slots in way.slots:
            found[agent] = (*found.get(agent, ()), (order, slots))
    return found


def slots_for_others(lab: Lab, mine: Order) -> dict[AgentId, int]:
    """Return the slots that are for somebody who stands before `mine` in the line."""
    return before(slots_aside(lab), mine)


def before(aside: SlotsAside, mine: Order) -> dict[AgentId, int]:
    """Return how many slots of each host are for who stands before `mine`."""
    counts = (
        (agent, sum(slots for order, slots in those if order < mine))
        for agent, those in aside.items()
    )
    return {agent: slots for agent, slots in counts if slots}
