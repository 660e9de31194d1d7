"""PURE: DUTs promised to people for a time to come; nothing is started that would run into it.

A reservation is of one DUT, chosen when it is made. At its start it becomes a lease. What could
still be at work then by its own limit is not started: not a job by its time limit, not a lease by
its end.
"""

from collections.abc import Collection, Iterator

from tshrag_common import ids
from tshrag_common.ids import RunId
from tshrag_common.jobs import Need
from tshrag_common.states import JOB
from tshrag_controller.core.lab import DutRow, Lab, Run, is_kept
from tshrag_controller.core.needs import Reason
from tshrag_controller.core.people import Reservation

MARGIN_US = 30_000_000
"""What the end of an attempt may take beyond its limit: the kill, the collecting."""


def of_dut(lab: Lab, dut: str) -> Iterator[Reservation]:
    """Yield the reservations of a DUT that have not ended, the next one first."""
    found = [each for each in lab.people.reservations.values() if each.dut == dut]
    yield from sorted(found, key=lambda each: (each.start, each.id))


def clash(lab: Lab, dut: str, until: int, lease: str = "") -> Reservation | None:
    """Return the reservation that a use of the DUT from now `until` then would run into."""
    now = lab.indexes.now
    for each in of_dut(lab, dut):
        if each.id != lease and each.start < until and each.end > now:
            return each
    return None


def behind(lab: Lab, dut: str, at: int, limit: int, given_up: Collection[str] = ()) -> int:
    """Return when something of a `limit` that would begin `at` begins, for what is reserved."""
    for each in of_dut(lab, dut):
        if each.id not in given_up and each.start < at + limit + MARGIN_US and each.end > at:
            at = each.end
    return at


def run_into(lab: Lab, need: Need, row: DutRow, run_name: str) -> Reason | None:
    """Return why `run` must not have a DUT now that it could still have when it is reserved."""
    if not lab.people.reservations:
        return None
    run = lab.runs.get(RunId(run_name))
    if run is None:
        return None
    limit = limit_us(lab, need, row, run)
    found = clash(lab, row.dut.id, lab.indexes.now + limit + MARGIN_US)
    return reason(lab, found, limit) if found else None


def reason(lab: Lab, found: Reservation, limit: int) -> Reason:
    begins = max(0, found.start - lab.indexes.now) / 60e6
    text = (
        f"DUT {found.dut} is reserved for {found.owner} in {begins:.0f} min, "
        f"and this may take {limit / 60e6:g} min"
    )
    return Reason("reserved", text)


def limit_us(lab: Lab, need: Need, row: DutRow, run: Run) -> int:
    """Return how long a run may have a DUT at a time, by the limits of its jobs.

    A run that would keep it for a role: all open jobs of that role. One that has it already, or
    that takes it for a job: the longest of those that may come.
    """
    limits: list[float] = []
    for planned in run.plan.jobs:
        spec = run.plan.specs[planned.spec]
        same = spec.need.role == need.role if is_kept(need) else spec.need == need
        if same and not JOB.is_final(lab.jobs[ids.job_of(run.id, planned.serial)].state):
            limits.append(spec.timeout_s)
    keeps = is_kept(need) and row.kept_by != run.id
    total = sum(limits) if keeps else max(limits, default=0.0)
    return round(total * 1e6)
