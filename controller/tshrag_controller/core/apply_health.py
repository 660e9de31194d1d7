"""PURE: what events of health checks do to the Lab. Part of `apply`."""

from collections.abc import Callable
from typing import Any

from tshrag_controller.core import health_events as e
from tshrag_controller.core.idle import note_dut
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.people import LAB, Health

_MOST_RUNS = 1000


def _ordered(lab: Lab, event: e.CheckOrdered, at: int) -> None:
    lab.people.checks[event.run] = event.dut
    health = lab.people.health.setdefault(event.dut, Health())
    health.at, health.run, health.faults = at, event.run, 0
    health.crashed = health.before = ()
    row = lab.duts.get(event.dut)
    if row is not None and row.intent is not None and row.intent.by == LAB:
        row.intent.check = event.run
        note_dut(lab, row)


def _ended(lab: Lab, event: e.CheckEnded, at: int) -> None:
    lab.people.checks.pop(event.run, None)
    health = lab.people.health.setdefault(event.dut, Health())
    health.at, health.state, health.faults = at, event.state, 0
    health.crashed = health.before = ()
    row = lab.duts.get(event.dut)
    if row is not None and row.intent is not None:
        row.intent.check = ""


def note_crash(lab: Lab, dut: str, run: str, fence: int) -> None:
    """Count the runs in a row under which a DUT crashed, each once.

    What a console told may come a little after the end of its attempt.
    """
    health = lab.people.health.setdefault(dut, Health())
    if health.ended == fence:
        health.crashed, health.ended = health.before, 0
    health.crash = fence
    if run not in health.crashed:
        health.crashed = (*health.crashed, run)[-_MOST_RUNS:]


def note_outcome(lab: Lab, dut: str, outcome: str, fence: int) -> None:
    """Count infrastructure errors of a DUT in a row; a run that ends without a crash ends those."""
    health = lab.people.health.setdefault(dut, Health())
    if health.crash != fence and outcome in ("passed", "failed", "timeout"):
        health.before, health.crashed, health.ended = health.crashed, (), fence
    if outcome in ("error", "lost"):
        health.faults += 1
    elif outcome in ("passed", "failed"):
        health.faults = 0


APPLY: dict[type, Callable[[Lab, Any, int], None]] = {
    e.CheckOrdered: _ordered,
    e.CheckEnded: _ended,
}
