"""Holds the criteria of a run against its samples, once all of them are stored."""

import asyncio
import logging
import sqlite3
from functools import partial

from tshrag_common import ids
from tshrag_common.criteria import CompiledCriterion, Evidence
from tshrag_common.errors import LabError
from tshrag_common.ids import RunId
from tshrag_controller.core.criteria import Source, judge
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.on_run import on_evidence
from tshrag_controller.engine import Engine
from tshrag_controller.store.hot import columns
from tshrag_controller.store.store import Store

logger = logging.getLogger(__name__)


class Judging:
    """A queue of runs to judge, in the order in which they ended."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self._engine, self._store = engine, store
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
            await self._engine.ask(partial(_tell, run, evidence, trouble))

    async def _judge_one(self, run: RunId) -> tuple[Evidence, ...]:
        criteria = await self._engine.ask(
            lambda decision: decision.lab.runs[run].criteria if run in decision.lab.runs else ()
        )
        if not criteria:
            return ()
        await self._store.wait_applied(self._engine.sequence)
        sources = await self._store.query(lambda db: sources_of(db, run, criteria))
        return await asyncio.to_thread(judge_all, criteria, sources)


def _tell(
    run: RunId, evidence: tuple[Evidence, ...], trouble: LabError | None, decision: Decision
) -> None:
    on_evidence(decision, run, evidence, trouble)


def judge_all(
    criteria: tuple[CompiledCriterion, ...], sources: list[Source]
) -> tuple[Evidence, ...]:
    """Return the evidence of every criterion, in their order."""
    return tuple(judge(criterion, sources) for criterion in criteria)


def sources_of(
    db: sqlite3.Connection, run: str, criteria: tuple[CompiledCriterion, ...]
) -> list[Source]:
    """Read the samples that the criteria ask for: of the newest attempt of each job."""
    number = int(db.execute("SELECT no FROM runs WHERE id=?", (run,)).fetchone()[0])
    rows = db.execute(_NEWEST, (number,)).fetchall()
    newest = {int(row[0]): (int(row[1]), int(row[2]), int(row[3])) for row in rows}
    keys = sorted({key for criterion in criteria for key in criterion.keys})
    sources: list[Source] = []
    for key in keys:
        for column in columns(db, number, key):
            attempt, started, ended = newest.get(column.serial, (0, 0, 0))
            if column.attempt != attempt:
                continue  # an earlier attempt of the job: its samples stay, they do not count
            sources.append(
                Source(
                    key=column.key,
                    times=column.times,
                    values=column.values,
                    durations=column.durations,
                    unit=column.unit,
                    type=column.type,
                    job=ids.job_of(RunId(run), column.serial),
                    dut=column.dut,
                    host=column.agent,
                    started_at=started,
                    ended_at=ended,
                )
            )
    return sources


_NEWEST = (
    "SELECT serial, max(number), started_at, ended_at FROM attempts WHERE run=? GROUP BY serial"
)
