"""PURE: health checks of DUTs: when one is due, and what comes of it.

A check is a run of a profile on that very DUT. One that does not pass takes the DUT out of
service, in the name of the lab; the next that passes takes it back. What an operator has taken
out of service stays so.
"""

from collections.abc import Mapping

import msgspec

from tshrag_common.ids import DutId, RunId
from tshrag_common.states import RUN, AgentState
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.events import RunAdmitted
from tshrag_controller.core.health_events import CheckEnded, CheckOrdered
from tshrag_controller.core.intent_events import IntentCleared, IntentSet
from tshrag_controller.core.lab import DutRow, Lab, set_timer
from tshrag_controller.core.on_run import Submitted, on_submit
from tshrag_controller.core.people import LAB, Health

LABEL = "health"
"""The label by which a DUT names its profile; else its kind does, else ``*``."""
BAD = ("failed", "error", "timeout")
S = 1_000_000


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """When a DUT is checked; 0: not for that reason."""

    every_s: float = 0.0
    after_errors: int = 0
    after_crashes: int = 0
    recheck_s: float = 600.0
    profiles: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])


def profile_of(rules: Rules, row: DutRow) -> str:
    """Return the name of the profile that checks a DUT; empty: none does."""
    for name in (row.dut.labels.get(LABEL, ""), row.dut.kind, "*"):
        if name in rules.profiles:
            return name
    return ""


def due(lab: Lab, rules: Rules, now: int) -> list[tuple[DutId, str, str]]:
    """Return (DUT, profile, why) of the checks that are to be ordered now."""
    open_checks = set(lab.people.checks.values())
    found: list[tuple[DutId, str, str]] = []
    for name, row in sorted(lab.duts.items()):
        profile = profile_of(rules, row)
        if not profile or name in open_checks or row.gone:
            continue
        if lab.agents[row.agent].state is not AgentState.ONLINE:
            continue
        why = _why(lab, rules, row, now)
        if why:
            found.append((name, profile, why))
    return found


def _why(lab: Lab, rules: Rules, row: DutRow, now: int) -> str:
    health = lab.people.health.get(row.dut.id, Health())
    if row.intent is not None and row.intent.by != LAB:
        return ""  # an operator knows why
    if row.intent is not None:
        wait_us = round(rules.recheck_s * S)
        return "it is quarantined" if health.at + wait_us <= now else ""
    if rules.after_errors and health.faults >= rules.after_errors:
        return f"{health.faults} infrastructure errors in a row"
    if rules.after_crashes and len(health.crashed) >= rules.after_crashes:
        return f"it crashed under {len(health.crashed)} runs in a row"
    if rules.every_s and (health.at or now) + round(rules.every_s * S) <= now:
        return "it is time"
    return "it is new" if rules.every_s and not health.at else ""


def on_check(decision: Decision, admitted: RunAdmitted, dut: DutId, why: str) -> Submitted:
    """Take the run of a check in, for a DUT that has none open."""
    if dut in decision.lab.people.checks.values() or dut not in decision.lab.duts:
        return Submitted(admitted.run, False)
    answer = on_submit(decision, admitted, park=True)
    decision.happen(CheckOrdered(run=admitted.run, dut=dut, why=why))
    return answer


def serve_checks(decision: Decision) -> None:
    """See which checks have ended in this turn, and draw the consequence."""
    lab = decision.lab
    for name, dut in list(lab.people.checks.items()):
        run = lab.runs.get(RunId(name))
        if run is not None and not RUN.is_final(run.state):
            continue
        state = str(run.state) if run is not None else "unknown"
        decision.happen(CheckEnded(run=RunId(name), dut=DutId(dut), state=state))
        row = lab.duts.get(DutId(dut))
        if row is not None:
            _conclude(decision, row, name, state)


def _conclude(decision: Decision, row: DutRow, run: str, state: str) -> None:
    dut, intent = row.dut.id, row.intent
    if state == "passed" and intent is not None and intent.by == LAB:
        why = f"health check {run} has passed"
        decision.happen(IntentCleared(kind="dut", name=dut, by=LAB, reason=why))
        set_timer(decision.lab, decision.now, "intent", f"dut/{dut}")  # a pass for who waits
    elif state in BAD and intent is None:
        why = f"health check {run}: {state}"
        bad = IntentSet(kind="dut", name=dut, what="quarantined", by=LAB, reason=why)
        decision.happen(bad)
