"""What a client asks about stored samples."""

from collections.abc import AsyncIterator

from tshrag_common import requests as r, store_requests as sr
from tshrag_common.asking import Asking

QUERY_S, STORE_S = 120.0, 600.0


class StoreAsking(Asking):
    """Query, fetch the files of queries, look after the store."""

    async def query(self, request: sr.Query) -> sr.QueryAnswer:
        verb: r.Verb = "query" if request.format == "rows" else "query_file"
        return await self.ask(verb, request, sr.QueryAnswer, QUERY_S)

    async def query_file(self, answer: sr.QueryAnswer) -> AsyncIterator[bytes]:
        """Yield the file that a query has made, part by part."""
        offset = 0
        while offset < answer.size:
            asked = sr.QueryPart(file=answer.file, offset=offset)
            part = await self.ask("query_part", asked, sr.QueryPartAnswer)
            if not part.data:
                return
            offset += len(part.data)
            yield part.data

    async def store_status(self) -> sr.StoreStatus:
        return await self.ask("store_status", sr.StoreAbout(), sr.StoreStatus)

    async def store_do(self, request: sr.StoreDo) -> sr.StoreDone:
        return await self.ask("store_do", request, sr.StoreDone, STORE_S)
