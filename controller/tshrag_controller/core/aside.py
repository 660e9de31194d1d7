"""PURE: DUTs that are set aside for jobs that start together, computed anew in each pass.

When a gang has waited for a while, DUTs that fall idle are set aside for it, and at once those
that others give back for it: who stands behind it in the line does not get them.
"""

from tshrag_common.ids import DutId
from tshrag_common.jobs import Need
from tshrag_controller.core.gangs import dut_for, ready_of
from tshrag_controller.core.lab import Job, Lab, Order, Run
from tshrag_controller.core.making_way import ways_made
from tshrag_controller.core.order import order_of
from tshrag_controller.core.ways import way_for

PATIENCE_US = 60_000_000
"""How long a gang waits before DUTs are set aside for it."""


def set_aside(lab: Lab, now: int) -> dict[DutId, Order]:
    """Return the DUTs that are set aside, and the place in the line of whoever they are for."""
    aside: dict[DutId, Order] = {}
    for order, way in ways_made(lab):
        for dut in way.duts:
            aside[dut] = min(order, aside.get(dut, order))
    waiting = _patient(lab, now) if lab.indexes.gangs else []
    for order, run, jobs in sorted(waiting, key=lambda each: each[0]):
        for job in jobs:
            need = run.spec(job).need
            if need.wants_dut and not dut_for(lab, run, job)[0]:
                _set_aside_one(lab, run, need, order, aside)
    return aside


def _patient(lab: Lab, now: int) -> list[tuple[Order, Run, list[Job]]]:
    """Return the gangs that could start and have waited for long enough."""
    waiting: list[tuple[Order, Run, list[Job]]] = []
    for (name, gang), there in lab.indexes.gangs.items():
        run = lab.runs.get(name)
        jobs = ready_of(lab, name, gang, now) if run is not None and there else []
        since = max([run.created_at if run else 0, *(job.not_before for job in jobs)])
        if run is not None and jobs and now - since >= PATIENCE_US:
            waiting.append((order_of(lab, run, jobs[0]), run, jobs))
    return waiting


def _set_aside_one(lab: Lab, run: Run, need: Need, order: Order, aside: dict[DutId, Order]) -> None:
    for name, row in sorted(lab.duts.items()):
        if name not in aside and not row.kept_by and way_for(lab, need, row, run.id) is not None:
            aside[name] = order
            return
