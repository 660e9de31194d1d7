"""PURE: jobs that start together: places for all of them at once, or none is taken.

A gang holds nothing while it waits, so two gangs never wait for each other; that it does not wait
for ever is seen to by `aside`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tshrag_common import ids
from tshrag_common.ids import AgentId, DutId, RunId
from tshrag_common.jobs import Need
from tshrag_common.states import JOB, JobState
from tshrag_controller.core.ganging import ROLE
from tshrag_controller.core.lab import Agent, Job, Lab, Run, is_kept
from tshrag_controller.core.making_way import slots_for_others
from tshrag_controller.core.needs import blocked, misfits
from tshrag_controller.core.order import order_of_run
from tshrag_controller.core.ways import way_for


def gang_of(run: Run, job: Job) -> int:
    return run.plan.jobs[job.serial - 1].gang


def role_of(run: Run, job: Job) -> str:
    """Return what a job is called in its gang."""
    return run.plan.jobs[job.serial - 1].env.get(ROLE) or run.spec(job).need.role or job.id


def mates_of(lab: Lab, job: Job) -> list[Job]:
    """Return all jobs of the gang of `job`, itself too; empty: it is in none."""
    run = lab.runs[job.run]
    serials = lab.indexes.gang_jobs.get((run.id, gang_of(run, job)), ())
    return [lab.jobs[ids.job_of(run.id, serial)] for serial in serials]


def ready_of(lab: Lab, run: RunId, gang: int, now: int) -> list[Job]:
    """Return the jobs of a gang that can start, all that have not yet; empty: not now."""
    serials = lab.indexes.gang_jobs.get((run, gang), ())
    mates = [lab.jobs[ids.job_of(run, serial)] for serial in serials]
    waiting = [job for job in mates if job.state is JobState.WAITING]
    there = lab.indexes.gangs.get((run, gang), set())
    if any(job.id not in there or job.not_before > now or job.held for job in waiting):
        return []
    return waiting


def waiting_mates(lab: Lab, job: Job) -> list[Job]:
    """Return those that `job` will start together with, itself too; empty: it starts alone."""
    return [mate for mate in mates_of(lab, job) if mate.state is JobState.WAITING]


def is_broken(lab: Lab, job: Job) -> bool:
    """Tell whether a job waits for one of its gang that has ended."""
    return any(JOB.is_final(mate.state) for mate in mates_of(lab, job))


def is_spoilt(lab: Lab, job: Job) -> bool:
    """Tell whether the newest attempt of a job that is open has ended otherwise than well."""
    attempt = lab.attempts.get(job.fence)
    bad = attempt is not None and attempt.outcome not in ("", "passed")
    return bad and job.stop != "pass" and not JOB.is_final(job.state)


def is_lost_with_mates(lab: Lab, job: Job) -> bool:
    """Tell whether a job has to end because one that started with it has not done well."""
    others = (mate for mate in mates_of(lab, job) if mate is not job)
    return any(JOB.is_final(mate.state) or is_spoilt(lab, mate) for mate in others)


class Seat(NamedTuple):
    """A place for one of a gang."""

    job: Job
    agent: AgentId
    dut: DutId | None


def dut_for(lab: Lab, run: Run, job: Job) -> tuple[bool, list[DutId]]:
    """Return whether a job of a gang has a DUT that its run keeps, and that, where it is free."""
    need = run.spec(job).need
    bound = run.bound.get(need.role) if is_kept(need) else None
    if bound is None:
        return False, []
    row = lab.duts.get(bound[1])
    free = row is not None and way_for(lab, need, row, run.id) is not None
    return True, [bound[1]] if free else []


def seats_on_hosts(lab: Lab, run: Run, jobs: Sequence[Job]) -> list[Seat] | None:
    """Return a host for each of `jobs`, the largest first; None where they do not fit together."""
    taken = Counter(slots_for_others(lab, order_of_run(lab, run)))
    seats: list[Seat] = []
    for job in sorted(jobs, key=lambda job: (-run.spec(job).need.slots, job.serial)):
        need = run.spec(job).need
        fitting = [agent for agent in lab.agents.values() if _fits(agent, need, run, taken)]
        if not fitting:
            return None
        best = min(fitting, key=lambda agent: _rank(agent, job, taken))
        taken[best.facts.agent] += need.slots
        seats.append(Seat(job, best.facts.agent, None))
    return seats


def hosts_for(lab: Lab, run: Run, job: Job) -> list[AgentId]:
    """Return all hosts that a job could have now, were it alone; the best first."""
    need, taken = run.spec(job).need, slots_for_others(lab, order_of_run(lab, run))
    fitting = [agent for agent in lab.agents.values() if _fits(agent, need, run, taken)]
    return [each.facts.agent for each in sorted(fitting, key=lambda one: _rank(one, job, taken))]


def _fits(agent: Agent, need: Need, run: Run, taken: Mapping[AgentId, int]) -> bool:
    if blocked(need, agent, None, run.id) or misfits(need, agent.facts, None):
        return False
    return agent.free_slots - taken.get(agent.facts.agent, 0) >= need.slots


def _rank(agent: Agent, job: Job, taken: Mapping[AgentId, int]) -> tuple[bool, int, AgentId]:
    name = agent.facts.agent
    return (name in job.avoid, taken.get(name, 0) - agent.free_slots, name)


def hold_together(lab: Lab, run: Run, seats: list[Seat]) -> bool:
    """Tell whether hosts have the resources of all that would be on them."""
    asked: dict[AgentId, Counter[str]] = {}
    for seat in seats:
        for name, amount in run.spec(seat.job).need.resources.items():
            asked.setdefault(seat.agent, Counter())[name] += amount  # type: ignore[assignment]  # amounts may be broken
    return all(
        lab.agents[agent].taken.get(name, 0) + amount <= lab.agents[agent].facts.capacity[name]
        for agent, amounts in asked.items()
        for name, amount in amounts.items()
    )


def consumed_by(run: Run, jobs: Sequence[Job]) -> Need:
    """Return what the jobs take together of what the lab shares, as a need."""
    asked: Counter[str] = Counter()
    for job in jobs:
        asked.update(run.spec(job).need.consumes)
    return Need(consumes=dict(asked))
