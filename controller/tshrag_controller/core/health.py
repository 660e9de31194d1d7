"""PURE: health checks of hosts and DUTs: when one is due, and what comes of it.

A check is a run of a profile on that very place. One that does not pass takes the place out of
service, in the name of the lab; the next that passes takes it back. What an operator has taken
out of service stays so.
"""

from collections.abc import Iterator, Mapping

import msgspec

from tshrag_common.ids import RunId
from tshrag_common.states import RUN, AgentState
from tshrag_controller.core.apply_intent import intended
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.events import RunAdmitted
from tshrag_controller.core.health_events import CheckEnded, CheckOrdered
from tshrag_controller.core.intent_events import IntentCleared, IntentSet, Kind
from tshrag_controller.core.lab import Lab, set_timer
from tshrag_controller.core.on_run import Submitted, on_submit
from tshrag_controller.core.people import LAB, Health, Intent, kind_and_name, place_of

LABEL = "health"
"""The label by which a host or a DUT names its profile; else see `_names`."""
HOST = "host"
BAD = ("failed", "error", "timeout")
S = 1_000_000


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """When a place is checked; 0: not for that reason."""

    every_s: float = 0.0
    after_errors: int = 0
    after_crashes: int = 0
    recheck_s: float = 600.0
    profiles: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A check that is to be ordered now, with the name of its profile."""

    kind: Kind
    name: str
    profile: str
    why: str


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    kind: Kind
    name: str
    names: tuple[str, ...]
    intent: Intent | None


def _places(lab: Lab) -> Iterator[_Place]:
    """Go through what can be checked: it answers, and nothing above it is out of service.

    A host's check needs a slot like any other run, so a host without slots has none: whatever
    it does, it does on its DUTs.
    """
    for host, agent in sorted(lab.agents.items()):
        labels = agent.facts.labels
        if agent.state is AgentState.ONLINE and agent.facts.slots:
            wanted = (labels.get(LABEL, ""), HOST)
            yield _Place(kind="agent", name=host, names=wanted, intent=agent.intent)
    for dut, row in sorted(lab.duts.items()):
        agent = lab.agents[row.agent]
        if agent.state is AgentState.ONLINE and agent.intent is None and not row.gone:
            names = (row.dut.labels.get(LABEL, ""), row.dut.kind, "*")
            yield _Place(kind="dut", name=dut, names=names, intent=row.intent)


def due(lab: Lab, rules: Rules, now: int) -> list[Due]:
    """Return the checks that are to be ordered now, those of hosts first."""
    open_checks = set(lab.people.checks.values())
    found: list[Due] = []
    for each in _places(lab):
        place = place_of(each.kind, each.name)
        profile = next((name for name in each.names if name in rules.profiles), "")
        if not profile or place in open_checks:
            continue
        why = _why(rules, lab.people.health.get(place, Health()), each.intent, now)
        if why:
            found.append(Due(kind=each.kind, name=each.name, profile=profile, why=why))
    return found


def _why(rules: Rules, health: Health, intent: Intent | None, now: int) -> str:
    if intent is not None and intent.by != LAB:
        return ""  # an operator knows why
    if intent is not None:
        wait_us = round(rules.recheck_s * S)
        return "it is quarantined" if health.at + wait_us <= now else ""
    if rules.after_errors and health.faults >= rules.after_errors:
        return f"{health.faults} infrastructure errors in a row"
    if rules.after_crashes and len(health.crashed) >= rules.after_crashes:
        return f"it crashed under {len(health.crashed)} runs in a row"
    if rules.every_s and (health.at or now) + round(rules.every_s * S) <= now:
        return "it is time"
    return "it is new" if rules.every_s and not health.at else ""


def on_check(decision: Decision, admitted: RunAdmitted, check: Due) -> Submitted:
    """Take the run of a check in, for a place that has none open."""
    lab, place = decision.lab, place_of(check.kind, check.name)
    if place in lab.people.checks.values() or intended(lab, check.kind, check.name) is None:
        return Submitted(admitted.run, False)
    answer = on_submit(decision, admitted, park=True)
    decision.happen(CheckOrdered(run=admitted.run, name=check.name, why=check.why, kind=check.kind))
    return answer


def serve_checks(decision: Decision) -> None:
    """See which checks have ended in this turn, and draw the consequence."""
    lab = decision.lab
    for run_name, place in list(lab.people.checks.items()):
        run = lab.runs.get(RunId(run_name))
        if run is not None and not RUN.is_final(run.state):
            continue
        state = str(run.state) if run is not None else "unknown"
        kind, name = kind_and_name(place)
        decision.happen(CheckEnded(run=RunId(run_name), name=name, state=state, kind=kind))
        _conclude(decision, kind, name, run_name, state)


def _conclude(decision: Decision, kind: Kind, name: str, run: str, state: str) -> None:
    found = intended(decision.lab, kind, name)
    if found is None:
        return
    if state == "passed" and found.intent is not None and found.intent.by == LAB:
        why = f"health check {run} has passed"
        decision.happen(IntentCleared(kind=kind, name=name, by=LAB, reason=why))
        set_timer(decision.lab, decision.now, "intent", f"{kind}/{name}")  # a pass for who waits
    elif state in BAD and found.intent is None:
        why = f"health check {run}: {state}"
        decision.happen(IntentSet(kind=kind, name=name, what="quarantined", by=LAB, reason=why))
