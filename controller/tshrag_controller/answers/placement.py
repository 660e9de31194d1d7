"""Why did an attempt go there? Made again from what was recorded, and it says what was not."""

from tshrag_common import requests as r, why_requests as wr
from tshrag_common.ids import job_id
from tshrag_common.jobs import Need
from tshrag_controller.answers.asker import Asker
from tshrag_controller.core.admission import need_text
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.needs import misfits
from tshrag_controller.core.ways import ways
from tshrag_controller.engine import Engine
from tshrag_controller.store import why_rows
from tshrag_controller.store.store import Store
from tshrag_controller.store.why_rows import Then

NOTE = "who held what is recorded; kinds and labels are those that the lab has now"
RULE_DUT = "a DUT that fits and is free; where it has not gone wrong, without a setup, by name"
RULE_HOST = "the host that fits with the most free slots; where it has not gone wrong, by name"
WRONG = "it had gone wrong there before"


class PlacementAnswers:
    """Explains assignments, also of jobs that have long ended."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self._engine, self._store = engine, store

    async def placement(self, asker: Asker, asked: r.Named) -> wr.PlacementAnswer:
        await self._store.wait_applied(self._engine.sequence)
        job = job_id(asked.id)
        then = await self._store.query(lambda db: why_rows.then(db, asker.org, job))
        return await self._engine.ask(lambda decision: _answer(decision.lab, job, then))


def _answer(lab: Lab, job: str, then: Then) -> wr.PlacementAnswer:
    need = then.spec.need
    places = _duts(lab, need, then) if need.wants_dut else _hosts(lab, need, then)
    if not any(place.chosen for place in places):
        gone = wr.PlaceThen(host=then.agent, dut=then.dut, chosen=True, why="it is gone by now")
        places = [gone, *places]
    return wr.PlacementAnswer(
        job=job,
        attempt=then.attempt,
        at=then.at,
        target=need_text(need),
        rule=RULE_DUT if need.wants_dut else RULE_HOST,
        places=tuple(sorted(places, key=lambda place: (not place.chosen, place.host, place.dut))),
        note=NOTE,
    )


def _duts(lab: Lab, need: Need, then: Then) -> list[wr.PlaceThen]:
    places: list[wr.PlaceThen] = []
    for name, row in sorted(lab.duts.items()):
        found = [misfits(need, agent.facts, dut) for agent, dut in ways(lab, row)]
        wrong = min(found, key=len, default=())
        before = WRONG if name in then.wrong else ""
        if name == then.dut:
            places.append(wr.PlaceThen(host=then.agent, dut=name, chosen=True, why=before))
            continue
        why = "; ".join(reason.text for reason in wrong) or _then(then, name, row.agent)
        why = why or before or "it was free, and comes later"
        places.append(wr.PlaceThen(host=row.agent, dut=name, why=why))
    return places


def _then(then: Then, dut: str, host: str) -> str:
    """Say who had a DUT, or had taken it or its host out of service."""
    key = f"dut/{dut}"
    return then.held.get(key) or then.away.get(key) or then.away.get(f"agent/{host}") or ""


def _hosts(lab: Lab, need: Need, then: Then) -> list[wr.PlaceThen]:
    places: list[wr.PlaceThen] = []
    for name, agent in sorted(lab.agents.items()):
        wrong = "; ".join(reason.text for reason in misfits(need, agent.facts, None))
        why = wrong or then.away.get(f"agent/{name}", "")
        why = why or f"{then.busy.get(name, 0)} of {agent.facts.slots} slots had an attempt"
        if name in then.wrong:
            why = f"{why}; {WRONG}"
        places.append(wr.PlaceThen(host=name, chosen=name == then.agent, why=why))
    return places
