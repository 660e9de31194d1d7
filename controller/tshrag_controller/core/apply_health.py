"""PURE: what events of health checks do to the Lab. Part of `apply`."""

from collections.abc import Callable
from typing import Any

from tshrag_controller.core import health_events as e
from tshrag_controller.core.apply_intent import intended, note_again
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.people import LAB, Health, place_of

_MOST_RUNS = 1000


def _ordered(lab: Lab, event: e.CheckOrdered, at: int) -> None:
    place = place_of(event.kind, event.name)
    lab.people.checks[event.run] = place
    health = _begin_anew(lab, place, at)
    health.run = event.run
    found = intended(lab, event.kind, event.name)
    if found is not None and found.intent is not None and found.intent.by == LAB:
        found.intent.check = event.run
        note_again(lab, found)


def _ended(lab: Lab, event: e.CheckEnded, at: int) -> None:
    lab.people.checks.pop(event.run, None)
    health = _begin_anew(lab, place_of(event.kind, event.name), at)
    health.state = event.state
    found = intended(lab, event.kind, event.name)
    if found is not None and found.intent is not None:
        found.intent.check = ""


def _begin_anew(lab: Lab, place: str, at: int) -> Health:
    """Forget what was counted in a row: a check says more."""
    health = lab.people.health.setdefault(place, Health())
    health.at, health.faults = at, 0
    health.crashed = health.before = ()
    return health


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


def note_outcome(lab: Lab, place: str, outcome: str, fence: int) -> None:
    """Count infrastructure errors in a row, of a DUT or, of work on the host itself, of a host.

    A run that ends without a crash ends the crashes in a row.
    """
    health = lab.people.health.setdefault(place, Health())
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
