"""PURE: would this place be free for that need, were these attempts over?"""

from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from tshrag_common.ids import AgentId, DutId
from tshrag_common.jobs import Need
from tshrag_controller.core.idle import classes_of
from tshrag_controller.core.lab import Attempt, DutRow, Lab, NeedKey, Order, Run
from tshrag_controller.core.line import misfits_of, need_of_ask, order_of_ask
from tshrag_controller.core.needs import away
from tshrag_controller.core.reservations import run_into


class Freed(NamedTuple):
    """A place: a host, or a DUT with the agent that has it, without these attempts."""

    run: Run  # that would have it
    key: NeedKey
    host: AgentId
    dut: DutId | None
    without: Sequence[Attempt]


def frees(
    lab: Lab, freed: Freed, ahead: Iterable[NeedKey], mine: Order, aside: Container[DutId]
) -> bool:
    """Tell whether the place fits, would be free, and goes to nobody who stands before.

    `aside` are the DUTs that are set aside for gangs before it (`set_aside`).
    """
    agent, need = lab.agents[freed.host], lab.indexes.needs[freed.key]
    row = lab.duts.get(freed.dut) if freed.dut is not None else None
    if need.wants_dut != (row is not None) or not _fits(lab, freed.key, freed.host, freed.dut):
        return False
    if away(agent, row) or not _has_room(lab, freed, need):
        return False
    if any(_fits(lab, key, freed.host, freed.dut) for key in ahead):
        return False
    return row is None or _is_for_us(lab, row, need, freed.run, mine, aside)


def _fits(lab: Lab, key: NeedKey, host: AgentId, dut: DutId | None) -> bool:
    """Tell whether a place is of a class that fits, and is one of those that are named."""
    need = lab.indexes.needs.get(key)
    if need is None or need.wants_dut != (dut is not None):
        return False
    idle, target = lab.indexes.idle, need.target
    own = idle.dut_class.get(dut) if dut is not None else idle.host_class.get(host)
    if own not in classes_of(lab, key):
        return False
    is_named = not target.duts or dut in target.duts
    return is_named and (not target.hosts or host in target.hosts)


def _has_room(lab: Lab, freed: Freed, need: Need) -> bool:
    """Tell whether slots and resources of the host suffice then."""
    agent = lab.agents[freed.host]
    slots, back = agent.free_slots, dict[str, float]()
    for attempt in freed.without:
        if attempt.agent != freed.host:
            continue  # a gang is over elsewhere too
        job = lab.jobs[attempt.job]
        theirs = lab.runs[job.run].spec(job).need
        slots += 0 if theirs.wants_dut else theirs.slots
        for name, amount in theirs.resources.items():
            back[name] = back.get(name, 0.0) + amount
    if freed.dut is None and slots < need.slots:
        return False
    capacity = agent.facts.capacity
    return all(
        agent.taken.get(name, 0) - back.get(name, 0) + amount <= capacity.get(name, 0) + 1e-6
        for name, amount in need.resources.items()
    )


def _is_for_us(
    lab: Lab, row: DutRow, need: Need, run: Run, mine: Order, aside: Container[DutId]
) -> bool:
    """Tell whether nobody has set the DUT aside, reserved it, or asked for it before."""
    if row.undo or row.dut.id in aside or run_into(lab, need, row, run.id) is not None:
        return False
    return not any(
        order_of_ask(lab, ask) < mine and not misfits_of(lab, need_of_ask(ask), row)
        for ask in lab.people.asks.values()
    )
