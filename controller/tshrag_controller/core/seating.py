"""PURE: places for jobs that start together, on DUTs and on hosts, no place twice.

First the quick way: a matching for the DUTs, hosts the largest first. Where these do not hold
together, a bounded search looks at all of them at once (`packing`).
"""

from tshrag_common.ids import AgentId, DutId
from tshrag_common.jobs import Need
from tshrag_controller.core.binding import matched
from tshrag_controller.core.gangs import Seat, dut_for, hold_together, hosts_for, seats_on_hosts
from tshrag_controller.core.lab import Job, Lab, Run
from tshrag_controller.core.making_way import slots_for_others
from tshrag_controller.core.order import order_of_run
from tshrag_controller.core.packing import MOST_ASKS, Ask, Option, pack
from tshrag_controller.core.places import Places, free_duts
from tshrag_controller.core.ways import way_for

SLOTS = "*slots"
"""The slots of a host, beside its resources: no resource has such a name."""
MOST_DUTS = 64
"""A job of a gang chooses among so many, when the first ones do not hold together."""


def seat(lab: Lab, run: Run, jobs: list[Job], places: Places) -> list[Seat] | None:
    """Return a place for each of `jobs`, all different; None where that cannot be had now."""
    on_duts = [job for job in jobs if run.spec(job).need.wants_dut]
    on_hosts = [job for job in jobs if not run.spec(job).need.wants_dut]
    duts = _duts(lab, run, on_duts, places, max(2, len(on_duts)))
    given = matched(duts)
    if given is None:
        return None
    hosts = seats_on_hosts(lab, run, on_hosts)
    if hosts is not None:
        ways = [(job, given[job.id], _way(lab, run, job, given[job.id])) for job in on_duts]
        found = hosts + [Seat(job, way, dut) for job, dut, way in ways if way is not None]
        if len(found) == len(jobs) and hold_together(lab, run, found):
            return found
    return _searched(lab, run, jobs, places) if 1 < len(jobs) <= MOST_ASKS else None


def options(lab: Lab, run: Run, job: Job) -> list[Option]:
    """Return the places that one of a gang could have now, were it alone."""
    need = run.spec(job).need
    if not need.wants_dut:
        return [Option(agent) for agent in hosts_for(lab, run, job)]
    is_bound, own = dut_for(lab, run, job)
    free = own if is_bound else free_duts(lab, need, run)
    return [Option(lab.duts[dut].agent, dut) for dut in free]


def _duts(lab: Lab, run: Run, jobs: list[Job], places: Places, most: int) -> dict[str, list[DutId]]:
    """Return the DUTs that each of `jobs` could have, the best first."""
    found: dict[str, list[DutId]] = {}
    for job in jobs:
        is_bound, own = dut_for(lab, run, job)
        avoid = (*job.avoid, *run.avoid.get(run.spec(job).need.role, ()))
        key = lab.need_key(run, job)
        found[job.id] = own if is_bound else places.duts(key, run, avoid, most=most)
    return found


def _way(lab: Lab, run: Run, job: Job, dut: DutId) -> AgentId | None:
    return way_for(lab, run.spec(job).need, lab.duts[dut], run.id)


def _searched(lab: Lab, run: Run, jobs: list[Job], places: Places) -> list[Seat] | None:
    """Look at hosts, DUTs and what the hosts have all at once."""
    on_duts = [job for job in jobs if run.spec(job).need.wants_dut]
    duts = _duts(lab, run, on_duts, places, MOST_DUTS)
    asks = [_ask(lab, run, job, duts.get(job.id)) for job in jobs]
    if not all(ask.options for ask in asks):
        return None
    given = pack(asks, {name: left_on(lab, name, run) for name in lab.agents})
    if given is None:
        return None
    return [Seat(job, *given[job.id]) for job in jobs]


def _ask(lab: Lab, run: Run, job: Job, duts: list[DutId] | None) -> Ask:
    uses = uses_of(run.spec(job).need)
    if duts is None:
        return Ask(job.id, uses, [Option(agent) for agent in hosts_for(lab, run, job)])
    ways = ((_way(lab, run, job, dut), dut) for dut in duts)
    return Ask(job.id, uses, [Option(agent, dut) for agent, dut in ways if agent is not None])


def uses_of(need: Need) -> dict[str, float]:
    """Return what a need takes of its host: resources, and slots where it is not for a DUT."""
    return dict(need.resources) if need.wants_dut else {**need.resources, SLOTS: need.slots}


def left_on(lab: Lab, name: AgentId, run: Run) -> dict[str, float]:
    """Return what `run` may have of a host now."""
    agent = lab.agents[name]
    has = agent.facts.capacity
    left = {each: has[each] - agent.taken.get(each, 0) for each in has}
    kept = slots_for_others(lab, order_of_run(lab, run)).get(name, 0)
    return {**left, SLOTS: agent.free_slots - kept}
