"""Answers about runs that are judged again, by other criteria, on what was stored of them."""

import asyncio

import msgspec

from tshrag_common import ids
from tshrag_common.criteria import CompiledCriterion, Criterion, Evidence
from tshrag_common.criteria_compile import compile_criteria
from tshrag_common.errors import Invalid, Problem, Refused
from tshrag_common.ids import OrgId
from tshrag_common.judge_requests import JudgedStored, JudgeStored
from tshrag_common.states import RunState
from tshrag_common.views import RunView
from tshrag_controller.answers.asker import Asker
from tshrag_controller.engine import Engine
from tshrag_controller.judging import judge_all
from tshrag_controller.store import queries
from tshrag_controller.store.sources import Judged, judged
from tshrag_controller.store.store import Store

_CRITERIA = msgspec.json.Decoder(dict[str, Criterion])
_JUDGEABLE = (RunState.PASSED, RunState.FAILED, RunState.ERROR)


class JudgeAnswers:
    """Reads the samples of a run as the verdict at its end does."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self._engine, self._store = engine, store

    async def judge(self, asker: Asker, asked: JudgeStored) -> JudgedStored:
        """Judge one run that has ended; the LOG and the run stay as they are."""
        criteria = compile_criteria(_decoded(asked.criteria))
        await self._store.wait_applied(self._engine.sequence)
        run = await self._ended(asker.org, asked.run)
        baseline = await self._baseline(asker.org, run, asked.baseline, criteria)
        found = await self._read(run.id, criteria)
        before = await self._read(baseline, criteria) if baseline else None
        evidence = await asyncio.to_thread(judge_all, criteria, found, baseline, before)
        state, reason = _would_be(run, evidence)
        return JudgedStored(
            run=run.id, state=run.state, would_be=state, evidence=evidence, reason=reason
        )

    async def _ended(self, org: OrgId, name: str) -> RunView:
        view = await self._store.query(lambda db: queries.get_run(db, org, ids.run_id(name)))
        if not view.ended_at:
            fix = "wait for its end: 'tshrag wait'"
            raise Refused("run", f"{view.id} has not ended", fix, code="not_ended")
        return view

    async def _baseline(
        self, org: OrgId, run: RunView, asked: str, criteria: tuple[CompiledCriterion, ...]
    ) -> str:
        """Return the run to compare with: the named one, or the one it was compared with."""
        if asked == "none" or not any(each.needs_baseline for each in criteria):
            return ""
        if asked:
            return (await self._ended(org, asked)).id
        known = [each.against for each in run.evidence if each.against]
        return known[0] if known else ""

    async def _read(self, run: str, criteria: tuple[CompiledCriterion, ...]) -> Judged:
        return await self._store.query(lambda db: judged(db, run, criteria))


def _decoded(raw: msgspec.Raw) -> dict[str, Criterion]:
    try:
        return _CRITERIA.decode(raw)
    except msgspec.DecodeError as error:
        raise Invalid([Problem(code="invalid", where="criteria", what=str(error))]) from None


def _would_be(run: RunView, evidence: tuple[Evidence, ...]) -> tuple[str, str]:
    """Return the state that a run would have, and why; what its jobs did stays as it was."""
    if run.state not in _JUDGEABLE or any(state not in _HARMLESS for state in run.counts):
        return run.state, run.reason
    telling = [each for each in evidence if each.severity != "minor"]
    for word, state in (("error", "error"), ("fail", "failed")):
        bad = [f"{each.criterion}: {each.reason}" for each in telling if each.verdict == word]
        if bad:
            return state, "; ".join(bad)[:2000]
    return "passed", ""


_HARMLESS = ("passed", "skipped")
