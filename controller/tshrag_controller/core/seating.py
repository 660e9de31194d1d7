"""PURE: places for jobs that start together, on DUTs and on hosts, no place twice."""

from tshrag_common.ids import DutId
from tshrag_controller.core.binding import matched
from tshrag_controller.core.gangs import Seat, dut_for, seats_on_hosts
from tshrag_controller.core.lab import Job, Lab, Run
from tshrag_controller.core.places import Places
from tshrag_controller.core.ways import way_for


def seat(lab: Lab, run: Run, jobs: list[Job], places: Places) -> list[Seat] | None:
    """Return a place for each of `jobs`, all different; None where that cannot be had now."""
    on_duts = [job for job in jobs if run.spec(job).need.wants_dut]
    candidates: dict[str, list[DutId]] = {}
    for job in on_duts:
        is_bound, own = dut_for(lab, run, job)
        avoid = (*job.avoid, *run.avoid.get(run.spec(job).need.role, ()))
        candidates[job.id] = (
            own
            if is_bound
            else places.duts(lab.need_key(run, job), run, avoid, most=max(2, len(on_duts)))
        )
    given = matched(candidates)
    on_hosts = seats_on_hosts(lab, run, [job for job in jobs if job not in on_duts])
    if given is None or on_hosts is None:
        return None
    duts = [(job, lab.duts[given[job.id]]) for job in on_duts]
    ways = [(job, row, way_for(lab, run.spec(job).need, row, run.id)) for job, row in duts]
    return on_hosts + [Seat(job, way, row.dut.id) for job, row, way in ways if way is not None]
