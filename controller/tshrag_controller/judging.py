"""Holds the criteria of a run against its samples, once all of them are stored."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from tshrag_common.criteria import CompiledCriterion, Evidence
from tshrag_common.errors import LabError, Refused, Unavailable
from tshrag_common.ids import RunId
from tshrag_controller.core.criteria import judge
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.on_run import on_evidence
from tshrag_controller.engine import Engine
from tshrag_controller.log.frames import MOST_EVENT_BYTES
from tshrag_controller.store.sources import Judged, judged
from tshrag_controller.store.store import Store

logger = logging.getLogger(__name__)

RETRY_S = 1.0
MOST_EVIDENCE_BYTES = MOST_EVENT_BYTES // 2


class Judging:
    """A queue of runs to judge, in the order in which they ended."""

    def __init__(
        self, engine: Engine, store: Store, complete: Callable[[RunId], Awaitable[None]]
    ) -> None:
        """Make one; `complete` returns when all samples of a run are stored."""
        self._engine, self._store, self._complete = engine, store, complete
        self._waiting: asyncio.Queue[RunId] = asyncio.Queue()

    def put(self, run: RunId) -> None:
        self._waiting.put_nowait(run)

    async def judge(self) -> None:
        """Judge what waits, for ever; what cannot be judged is an error, never a pass."""
        while True:
            run = await self._waiting.get()
            evidence: tuple[Evidence, ...] = ()
            trouble: LabError | None = None
            try:
                evidence = await self._judge_one(run)
            except LabError as error:
                trouble = error
            except Exception:  # a bug of ours must not end the judging of all the others
                logger.exception("judging failed", extra={"run": run})
                fix = "the log of the controller has it"
                trouble = Refused(
                    run, "it could not be judged: a bug of ours", fix, code="internal"
                )
            await self._engine.ask(partial(_tell, run, evidence, trouble))

    async def _judge_one(self, run: RunId) -> tuple[Evidence, ...]:
        criteria, baseline = await self._engine.ask(partial(_asked, run))
        if not criteria:
            return ()
        found = await self._read(run, criteria)
        before = await self._read(RunId(baseline), criteria) if baseline else None
        return await asyncio.to_thread(judge_all, criteria, found, baseline, before)

    async def _read(self, run: RunId, criteria: tuple[CompiledCriterion, ...]) -> Judged:
        """Read the samples; while the store is behind or away, wait: no verdict without them."""
        while True:
            try:
                await self._store.wait_applied(self._engine.sequence)
                await self._complete(run)
                return await self._store.query(lambda db: judged(db, run, criteria))
            except (Unavailable, TimeoutError) as error:
                facts = {"run": run, "why": str(error) or "the projection is behind"}
                logger.warning("a verdict has to wait", extra=facts)
                await asyncio.sleep(RETRY_S)


def _tell(
    run: RunId, evidence: tuple[Evidence, ...], trouble: LabError | None, decision: Decision
) -> None:
    on_evidence(decision, run, evidence, trouble)


def _asked(run: RunId, decision: Decision) -> tuple[tuple[CompiledCriterion, ...], str]:
    """Return the criteria of a run and the run that they compare with."""
    known = decision.lab.runs.get(run)
    return (known.criteria, known.baseline) if known is not None else ((), "")


def judge_all(
    criteria: tuple[CompiledCriterion, ...],
    found: Judged,
    baseline: str = "",
    before: Judged | None = None,
) -> tuple[Evidence, ...]:
    """Return the evidence of every criterion, in their order.

    All of it stands in one event: where that is too large, groups are told by their counts only.
    """
    sources = before.sources if before is not None else None
    evidence = tuple(
        _against(judge(criterion, found.sources, expected, sources), criterion, baseline)
        for criterion, expected in zip(criteria, found.expected, strict=True)
    )
    if len(msgspec.msgpack.encode(evidence)) > MOST_EVIDENCE_BYTES:
        return tuple(msgspec.structs.replace(each, groups=()) for each in evidence)
    return evidence


def _against(evidence: Evidence, criterion: CompiledCriterion, baseline: str) -> Evidence:
    """Name the run that was compared with."""
    if not criterion.needs_baseline:
        return evidence
    return msgspec.structs.replace(evidence, against=baseline)
