"""What the events of the scheduler do to the Lab. Part of `apply`."""

from collections.abc import Callable
from typing import Any

from tshrag_controller.core import sched_events as e
from tshrag_controller.core.idle import note_dut
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.queues import rebind, reorder
from tshrag_controller.core.ways import drop_if_gone


def _policy_set(lab: Lab, event: e.PolicySet, at: int) -> None:
    lab.policy = event.policy
    reorder(lab)


def _role_released(lab: Lab, event: e.RoleReleased, at: int) -> None:
    run = lab.runs[event.run]
    _, dut = run.bound.pop(event.role)
    if event.shun:
        run.avoid[event.role] = (*run.avoid.get(event.role, ()), dut)
    row = lab.duts.get(dut)
    if row is not None and row.kept_by == run.id:
        row.kept_by = None
        note_dut(lab, row)
        drop_if_gone(lab, row)
    rebind(lab, run)


APPLY: dict[type, Callable[[Lab, Any, int], None]] = {
    e.PolicySet: _policy_set,
    e.RoleReleased: _role_released,
}
