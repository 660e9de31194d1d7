"""PURE: an operator takes hosts and DUTs out of service and back; what was observed stays apart.

``cordoned``: nothing new comes, runs that have the DUT already go on. ``draining``,
``maintenance`` and ``quarantined``: what is at work there ends, and nothing more starts.
"""

from collections.abc import Callable, Iterable

from tshrag_common.errors import NotFound
from tshrag_common.ids import AgentId, DutId, Fence
from tshrag_controller.core.apply_intent import key_of
from tshrag_controller.core.decision import Decision, SendCancel
from tshrag_controller.core.events import DutMarked
from tshrag_controller.core.intent_events import IntentCleared, IntentSet, Kind
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.on_attempt import lose


def on_set(decision: Decision, asked: IntentSet, now_too: bool = False) -> tuple[Fence, ...]:
    """Take a host or a DUT out of service; return the attempts that are still at work there.

    With `now_too` these are ended, and their jobs begin again elsewhere.

    Raises:
        NotFound: there is no such host or DUT.

    """
    lab = decision.lab
    check_known(lab, asked.kind, asked.name)
    decision.happen(asked)
    live = tuple(_at_work(lab, asked.kind, asked.name))
    if not now_too:
        return live
    for fence in live:
        attempt = lab.attempts[fence]
        decision.then(SendCancel(attempt.agent, fence, "lost"))
        lose(decision, fence, f"{asked.kind} {asked.name} was taken out of service: {asked.what}")
    return ()


def on_clear(decision: Decision, kind: Kind, name: str, by: str, reason: str = "") -> bool:
    """Take a host or a DUT back into service; false: it was not out of it.

    Where only an agent says that a DUT is bad, that is over. Where an operator had taken it out,
    that comes first: what was seen meanwhile stays until it is returned once more.

    Raises:
        NotFound: there is no such host or DUT.

    """
    check_known(decision.lab, kind, name)
    if key_of(kind, name) not in decision.lab.people.intents:
        return kind == "dut" and _trust(decision, DutId(name))
    decision.happen(IntentCleared(kind=kind, name=name, by=by, reason=reason))
    return True


def _trust(decision: Decision, name: DutId) -> bool:
    """Take the word of a person against what an agent has seen: the DUT is well again."""
    row = decision.lab.duts[name]
    if not row.faulty:
        return False
    decision.happen(DutMarked(agent=row.agent, dut=name))
    return True


def check_known(lab: Lab, kind: Kind, name: str) -> None:
    known: Iterable[str] = lab.duts if kind == "dut" else lab.agents
    if name not in known:
        raise NotFound(kind, name, known)


def _at_work(lab: Lab, kind: Kind, name: str) -> list[Fence]:
    if kind == "dut":
        holder = lab.duts[DutId(name)].holder
        return [holder] if holder in lab.attempts else []
    return sorted(lab.agents[AgentId(name)].fences)


def _due(decision: Decision, name: str) -> None:
    """Take back what was out of service for a time only."""
    intent = decision.lab.people.intents.get(name)
    if intent is not None and intent.until and intent.until <= decision.now:
        kind, _, thing = name.partition("/")
        cleared = IntentCleared(
            kind="dut" if kind == "dut" else "agent", name=thing, reason="its time is over"
        )
        decision.happen(cleared)


TIMERS: dict[str, Callable[[Decision, str], None]] = {"intent": _due}
