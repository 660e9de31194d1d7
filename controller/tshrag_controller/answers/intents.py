"""Answers to operators: hosts and DUTs out of service and back."""

from tshrag_common import intent_requests as ir
from tshrag_common.errors import Invalid, Problem
from tshrag_common.ids import Fence
from tshrag_controller.answers.asker import Asker
from tshrag_controller.core.apply_intent import key_of
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.intent_events import IntentSet
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.on_intent import check_known, on_clear, on_set
from tshrag_controller.engine import Engine, LabClock


class IntentAnswers:
    """Only operators change what is wanted of the lab's things; everybody sees it."""

    def __init__(self, engine: Engine, clock: LabClock) -> None:
        self._engine, self._clock = engine, clock

    async def set(self, asker: Asker, asked: ir.SetIntent) -> ir.IntentsAnswer:
        asker.must_operate(asked.kind)
        if asked.until and asked.until <= self._clock.now():
            raise Invalid([Problem(code="range", where="until", what="it lies in the past")])
        return await self._engine.ask(lambda decision: _set(decision, asker.person, asked))


def _set(decision: Decision, by: str, asked: ir.SetIntent) -> ir.IntentsAnswer:
    for name in asked.names:  # all of them, or none
        check_known(decision.lab, asked.kind, name)
    views: list[ir.IntentView] = []
    for name in dict.fromkeys(asked.names):
        if asked.what == "in_service":
            changed = on_clear(decision, asked.kind, name, by, asked.reason)
            views.append(view_of(decision.lab, asked.kind, name, (), changed))
            continue
        event = IntentSet(
            kind=asked.kind,
            name=name,
            what=asked.what,
            by=by,
            reason=asked.reason,
            until=asked.until,
        )
        views.append(view_of(decision.lab, asked.kind, name, on_set(decision, event, asked.now)))
    return ir.IntentsAnswer(things=tuple(views))


def view_of(
    lab: Lab, kind: ir.Kind, name: str, live: tuple[Fence, ...], changed: bool = True
) -> ir.IntentView:
    """Return a thing and what is wanted of it."""
    jobs = tuple(lab.attempts[fence].job for fence in live)
    intent = lab.people.intents.get(key_of(kind, name))
    if intent is None:
        return ir.IntentView(kind=kind, name=name, jobs=jobs, changed=changed)
    return ir.IntentView(
        kind=kind,
        name=name,
        what=intent.what,
        by=intent.by,
        since=intent.since,
        until=intent.until,
        reason=intent.reason,
        jobs=jobs,
    )
