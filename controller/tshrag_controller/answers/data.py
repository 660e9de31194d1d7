"""Answers with data: output, metrics, samples."""

from tshrag_common import ids, metric_requests as mr, requests as r
from tshrag_common.errors import NotFound
from tshrag_common.ids import OrgId
from tshrag_controller.answers.asker import Asker
from tshrag_controller.engine import Engine
from tshrag_controller.store import infos, queries, series
from tshrag_controller.store.store import Store

MOST_BYTES = 512 << 10  # as base64 in an answer below the limit of a message


class DataAnswers:
    """All of it is read from the stores, behind whatever was accepted before the question."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self._engine, self._store = engine, store

    async def logs(self, asker: Asker, asked: r.GetLogs) -> r.LogsAnswer:
        """Return a piece of a stream; ``complete`` when the attempt is over and all is told."""
        await self._store.wait_applied(self._engine.sequence)
        number, state = await self._attempt(asker.org, asked.job)
        attempt = asked.attempt or number
        limit = min(max(1, asked.limit), MOST_BYTES)
        piece = await self._store.read_output(asked.job, attempt, asked.stream, asked.offset, limit)
        ended = attempt < number or state in ("ended", "lost")
        after = piece.after
        return r.LogsAnswer(
            attempt=attempt,
            offset=piece.offset,
            next=after,
            total=piece.total,
            complete=ended and after >= piece.total and await self._is_final(asked.job),
            data=piece.data,
        )

    async def _attempt(self, org: OrgId, job: str) -> tuple[int, str]:
        name = ids.job_id(job)
        number = await self._store.query(lambda db: queries.number_of(db, org, ids.run_of(name)))
        serial = ids.serial_of(name)
        return await self._store.query(lambda db: queries.newest_attempt(db, number, serial))

    async def _is_final(self, job: str) -> bool:
        """Tell whether a job is final: then all of its output is stored, or never will be."""
        name = ids.job_id(job)
        return await self._engine.ask(
            lambda decision: name not in decision.lab.jobs or bool(decision.lab.jobs[name].ended_at)
        )

    async def metrics(self, asker: Asker, asked: mr.ListMetrics) -> mr.MetricsAnswer:
        await self._store.wait_applied(self._engine.sequence)
        answer = await self._store.query(lambda db: series.list_metrics(db, asker.org, asked))
        if not answer.series and asked.key != "*":
            everything = mr.ListMetrics(run=asked.run)
            known = await self._store.query(
                lambda db: series.list_metrics(db, asker.org, everything)
            )
            raise NotFound("metric", asked.key, {each.key for each in known.series})
        return answer

    async def series(self, asker: Asker, asked: mr.GetSeries) -> mr.SamplesAnswer:
        await self._store.wait_applied(self._engine.sequence)
        return await self._store.query(lambda db: series.get_series(db, asker.org, asked))

    async def infos(self, asker: Asker, asked: mr.ListInfos) -> mr.InfosAnswer:
        await self._store.wait_applied(self._engine.sequence)
        return await self._store.query(lambda db: infos.list_infos(db, asker.org, asked))
