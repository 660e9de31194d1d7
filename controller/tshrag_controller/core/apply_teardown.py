"""PURE: what events of teardowns do to the Lab. Part of `apply`."""

from collections.abc import Callable
from typing import Any

from tshrag_controller.core import teardown_events as e
from tshrag_controller.core.lab import Lab

WITHDRAWN = "withdrawn"


def _ordered(lab: Lab, event: e.TeardownOrdered, at: int) -> None:
    lab.indexes.undoing[event.run] = event.dut
    row = lab.duts.get(event.dut)
    if row is not None:
        row.undo = event.run


def _ended(lab: Lab, event: e.TeardownEnded, at: int) -> None:
    lab.indexes.undoing.pop(event.run, None)
    row = lab.duts.get(event.dut)
    if row is None:
        return
    row.undo = ""
    if event.state not in ("passed", WITHDRAWN):
        row.undo_failed = event.digest
    lab.indexes.undo_look.add(event.dut)


APPLY: dict[type, Callable[[Lab, Any, int], None]] = {
    e.TeardownOrdered: _ordered,
    e.TeardownEnded: _ended,
}
