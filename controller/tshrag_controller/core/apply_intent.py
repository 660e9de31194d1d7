"""PURE: what events of intents do to the Lab. Part of `apply`."""

from collections.abc import Callable
from typing import Any

from tshrag_common.ids import AgentId, DutId
from tshrag_controller.core import intent_events as e
from tshrag_controller.core.idle import note_dut, note_host
from tshrag_controller.core.lab import Agent, DutRow, Lab, set_timer
from tshrag_controller.core.people import Intent


def key_of(kind: str, name: str) -> str:
    return f"{kind}/{name}"


def _set(lab: Lab, event: e.IntentSet, at: int) -> None:
    intent = Intent(what=event.what, by=event.by, since=at, reason=event.reason, until=event.until)
    lab.people.intents[key_of(event.kind, event.name)] = intent
    _show(lab, event.kind, event.name, intent)
    if event.until:
        set_timer(lab, event.until, "intent", key_of(event.kind, event.name))


def _cleared(lab: Lab, event: e.IntentCleared, at: int) -> None:
    lab.people.intents.pop(key_of(event.kind, event.name), None)
    _show(lab, event.kind, event.name, None)


def intended(lab: Lab, kind: str, name: str) -> Agent | DutRow | None:
    """Return the host or the DUT that an intent is about; None: it is not known (any more)."""
    return lab.duts.get(DutId(name)) if kind == "dut" else lab.agents.get(AgentId(name))


def _show(lab: Lab, kind: str, name: str, intent: Intent | None) -> None:
    """Put an intent where the predicates look."""
    found = intended(lab, kind, name)
    if found is not None:
        found.intent = intent
        note_again(lab, found)


def note_again(lab: Lab, found: Agent | DutRow) -> None:
    """Let the scheduler look at a host with its DUTs, or at a DUT, again."""
    if isinstance(found, DutRow):
        note_dut(lab, found)
        return
    note_host(lab, found)
    for row in lab.duts.values():
        if row.agent == found.facts.agent:
            note_dut(lab, row)


APPLY: dict[type, Callable[[Lab, Any, int], None]] = {
    e.IntentSet: _set,
    e.IntentCleared: _cleared,
}
