"""PURE: people and jobs in one line for the same DUTs: who goes before whom.

A person who waits has a place among the runs: priority first, then the order of coming. A free
DUT goes to whom it fits and who stands first; nobody holds it for those who cannot use it now.
"""

from tshrag_common import ids
from tshrag_common.commands import Questions
from tshrag_common.ids import Fence, JobId
from tshrag_common.jobs import Need, Target
from tshrag_common.states import JobState
from tshrag_controller.core.decision import Decision, SendHold
from tshrag_controller.core.lab import (
    DutRow,
    Job,
    Lab,
    Order,
    is_kept,
)
from tshrag_controller.core.lease_events import LeaseAsked, LeaseGranted
from tshrag_controller.core.needs import Reason, blocked, misfits
from tshrag_controller.core.order import order_of, place_of
from tshrag_controller.core.people import Ask, Lease
from tshrag_controller.core.places import restraints
from tshrag_controller.core.queues import roles_to_bind
from tshrag_controller.core.reservations import clash


def need_of(dut: str, kind: str, labels: dict[str, str]) -> Need:
    """Return what a person asks for as the need of a job on a DUT."""
    duts = (dut,) if dut else ()
    return Need(target=Target(runtime="dut", kind=kind, labels=labels, duts=duts))


def misfits_of(lab: Lab, need: Need, row: DutRow) -> tuple[Reason, ...]:
    return misfits(need, lab.agents[row.agent].facts, row.dut)


def is_ahead(lab: Lab, row: DutRow, mine: Order, now: int) -> bool:
    """Tell whether a ready job or a person goes before this place in the line for this DUT."""
    queues = (*lab.indexes.ready.values(), *lab.indexes.bound_ready.values())
    heads = (_first_waiting(lab, queue) for queue in queues)
    if any(job is not None and _goes_before(lab, job, mine, row, now) for job in heads):
        return True
    return any(
        order_of_ask(lab, ask) < mine and wants(lab, need_of_ask(ask), row, "")
        for ask in lab.people.asks.values()
    )


def _first_waiting(lab: Lab, queue: list[tuple[Order, JobId]]) -> Job | None:
    """Return the first of a queue that still waits; queues may hold what has moved on."""
    jobs = (lab.jobs.get(name) for _, name in queue)
    return next((job for job in jobs if job is not None and job.state is JobState.WAITING), None)


def _goes_before(lab: Lab, job: Job, mine: Order, row: DutRow, now: int) -> bool:
    run = lab.runs[job.run]
    need = run.spec(job).need
    if order_of(lab, run, job) >= mine or not wants(lab, need, row, run.id):
        return False
    if restraints(lab, run, job, row, now):
        return False
    # a run that needs several DUTs at once holds no place at any of them while it waits
    return not is_kept(need) or need.role in run.bound or len(roles_to_bind(lab, run)) == 1


def order_of_ask(lab: Lab, ask: Ask) -> Order:
    return place_of(lab, ask.asked_at, ask.priority, ask.order)


def need_of_ask(ask: Ask) -> Need:
    return need_of(ask.dut, ask.kind, ask.labels)


def wants(lab: Lab, need: Need, row: DutRow, run: str) -> bool:
    if not need.wants_dut or misfits_of(lab, need, row):
        return False
    return not blocked(need, lab.agents[row.agent], row, run)


def serve_line(decision: Decision) -> None:
    """Give DUTs that are free to those who wait for them, where no job goes before them."""
    lab = decision.lab
    for ask in sorted(lab.people.asks.values(), key=lambda ask: order_of_ask(lab, ask)):
        need, until = need_of_ask(ask), decision.now + ask.for_us
        for _, row in sorted(lab.duts.items()):
            if clash(lab, row.dut.id, until):
                continue
            if wants(lab, need, row, "") and not is_ahead(
                lab, row, order_of_ask(lab, ask), decision.now
            ):
                grant(decision, _asked_of(ask), row)
                break


def _asked_of(ask: Ask) -> LeaseAsked:
    return LeaseAsked(
        lease=ask.id,
        org=ask.org,
        by=ask.by,
        alive_until=ask.alive_until,
        for_us=ask.for_us,
        reason=ask.reason,
        shared=ask.shared,
        idle_us=ask.idle_us,
    )


def grant(
    decision: Decision, asked: LeaseAsked, row: DutRow, questions: Questions | None = None
) -> Lease:
    lab = decision.lab
    fence = next_fence(lab)
    granted = LeaseGranted(
        lease=asked.lease,
        fence=fence,
        dut=row.dut.id,
        agent=row.agent,
        org=asked.org,
        by=asked.by,
        until=decision.now + asked.for_us,
        reason=asked.reason,
        shared=asked.shared,
        idle_us=asked.idle_us,
        questions=questions,
    )
    decision.happen(granted)
    decision.then(SendHold(row.agent, fence))
    return lab.people.leases[fence]


def next_fence(lab: Lab) -> Fence:
    return ids.fence(lab.sequence + 1, lab.turn_fences)


def place_in_line(lab: Lab, ask: Ask) -> int:
    """Return how many people and runs stand before `ask`, for DUTs that would do for it."""
    mine, need = order_of_ask(lab, ask), need_of_ask(ask)
    rows = [row for row in lab.duts.values() if not misfits_of(lab, need, row)]
    people = sum(order_of_ask(lab, each) < mine for each in lab.people.asks.values())
    jobs = 0
    for queue in lab.indexes.ready.values():
        for _, name in queue:
            job = lab.jobs.get(name)
            if job is None or job.ended_at or order_of(lab, lab.runs[job.run], job) >= mine:
                continue
            wanted = lab.runs[job.run].spec(job).need
            jobs += any(not misfits_of(lab, wanted, row) for row in rows if wanted.wants_dut)
    return people + jobs
