"""Answers over all stored samples: queries, and the files that they make."""

import asyncio
import time

from tshrag_common import store_requests as r
from tshrag_common.errors import Refused
from tshrag_controller.answers.asker import Asker
from tshrag_controller.engine import Engine
from tshrag_controller.store.query_process import Ask
from tshrag_controller.store.querying import Queries
from tshrag_controller.store.store import Store
from tshrag_controller.store.tail import FAR, Scope

PART_BYTES = 384 << 10  # as base64 in an answer below the limit of a message


class SampleAnswers:
    """A query sees whatever was accepted before the question."""

    def __init__(self, engine: Engine, store: Store, queries: Queries) -> None:
        self._engine, self._store, self._queries = engine, store, queries

    async def query(self, asker: Asker, asked: r.Query) -> r.QueryAnswer:
        """Answer with rows; any controller may."""
        if asked.format != "rows":
            what = "a file stays at one controller until it is fetched"
            raise Refused("format", what, "ask by 'query_file', of the leader", code="filter")
        return await self._ask(asker, asked)

    async def file(self, asker: Asker, asked: r.Query) -> r.QueryAnswer:
        """Make a file, which is fetched in parts: of the leader, who is asked for those too."""
        return await self._ask(asker, asked)

    async def _ask(self, asker: Asker, asked: r.Query) -> r.QueryAnswer:
        await self._store.wait_applied(self._engine.sequence)
        began = time.perf_counter()
        name, path = "", None
        if asked.format != "rows":
            name, path = await asyncio.to_thread(self._queries.results.new, asker.org)
        scope = Scope(
            org=asker.org,
            since=asked.since,
            until=asked.until or FAR,
            run=asked.run,
            key=asked.key,
        )
        told = await self._queries.ask(
            Ask(
                sql=asked.sql,
                scope=scope,
                folder=str(self._store.folder),
                arguments=asked.arguments,
                format=asked.format,
                out=str(path or ""),
                limit=asked.limit,
            )
        )
        return r.QueryAnswer(
            names=told.names,
            types=told.types,
            rows=told.rows,
            more=told.more,
            file=name,
            size=path.stat().st_size if path else 0,
            took_us=round(1e6 * (time.perf_counter() - began)),
        )

    async def part(self, asker: Asker, asked: r.QueryPart) -> r.QueryPartAnswer:
        read = self._queries.results.read
        data, size = await asyncio.to_thread(read, asker.org, asked.file, asked.offset, PART_BYTES)
        return r.QueryPartAnswer(data=data, size=size)
