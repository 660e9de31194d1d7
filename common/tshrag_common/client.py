"""The Python client of a lab: one method a request. CLI and HTTP use it too.

    async with open_client("nats://127.0.0.1:4222", credentials=creds) as lab:
        answer = await lab.submit(profile)
        async for news in lab.watch(answer.run):
            ...

Errors of the lab arrive as they were raised there: Refused, Unavailable, Invalid with problems.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from tshrag_common import history, metric_requests as mr, requests as r, subjects
from tshrag_common.audit_client import Audits
from tshrag_common.bus.connection import connect
from tshrag_common.bus.messages import Message
from tshrag_common.console_client import ConsoleClient
from tshrag_common.drill_client import Drilling
from tshrag_common.errors import Unavailable
from tshrag_common.ids import DEFAULT_ORG, OrgId
from tshrag_common.judge_client import Judges
from tshrag_common.lease_client import LeaseAsking
from tshrag_common.metric_client import MetricAsking
from tshrag_common.operating import Operating
from tshrag_common.resolve_client import Resolves
from tshrag_common.states import RUN, RunState
from tshrag_common.store_client import StoreAsking
from tshrag_common.views import News, RunView

WATCH_AGAIN_S = 15.0

_NEWS = msgspec.json.Decoder(News)


class Client(
    Audits,
    ConsoleClient,
    Drilling,
    Judges,
    LeaseAsking,
    MetricAsking,
    Operating,
    Resolves,
    StoreAsking,
):
    """One method a request; the requests of other areas come in as classes of their own."""

    async def submit(self, request: r.Submit) -> r.SubmitAnswer:
        history.note("submits", job=request.run, key=request.key)
        answer = await self.ask("submit", request, r.SubmitAnswer, 120.0)
        history.note("accepted", job=answer.run, key=request.key)
        return answer

    async def plan(self, request: r.Submit) -> r.PlanAnswer:
        return await self.ask("plan", request, r.PlanAnswer, 120.0)

    async def cancel(self, name: str, wait_s: float = 15.0) -> r.CancelAnswer:
        request = r.Cancel(id=name, wait_s=wait_s)
        history.note("cancels", job=name)
        answer = await self.ask("cancel", request, r.CancelAnswer, wait_s + 10.0)
        history.note("cancelled", job=name, pending=sum(job.pending for job in answer.jobs))
        return answer

    async def runs(self, request: r.ListRuns) -> r.RunsAnswer:
        return await self.ask("runs", request, r.RunsAnswer)

    async def run(self, name: str, profile: bool = False) -> r.RunAnswer:
        return await self.ask("run", r.GetRun(id=name, profile=profile), r.RunAnswer)

    async def jobs(self, request: r.ListJobs) -> r.JobsAnswer:
        return await self.ask("jobs", request, r.JobsAnswer)

    async def why(self, name: str) -> r.WhyAnswer:
        return await self.ask("why", r.Named(id=name), r.WhyAnswer)

    async def stats(self) -> r.StatsAnswer:
        return await self.ask("stats", r.Nothing(), r.StatsAnswer)

    async def health(self) -> r.HealthAnswer:
        answer = await self.ask("health", r.Nothing(), r.HealthAnswer)
        history.note("health", reasons=answer.reasons)
        return answer

    async def agents(self) -> r.AgentsAnswer:
        return await self.ask("agents", r.Nothing(), r.AgentsAnswer)

    async def duts(self) -> r.DutsAnswer:
        return await self.ask("duts", r.Nothing(), r.DutsAnswer)

    async def logs(self, request: r.GetLogs) -> r.LogsAnswer:
        return await self.ask("logs", request, r.LogsAnswer)

    async def metrics(self, request: mr.ListMetrics) -> mr.MetricsAnswer:
        return await self.ask("metrics", request, mr.MetricsAnswer)

    async def series(self, request: mr.GetSeries) -> mr.SamplesAnswer:
        return await self.ask("series", request, mr.SamplesAnswer)

    async def blob_has(self, digests: tuple[str, ...]) -> r.BlobHasAnswer:
        return await self.ask("blob_has", r.BlobHas(digests=digests), r.BlobHasAnswer)

    async def blob_put(self, request: r.BlobPut) -> r.BlobPutAnswer:
        return await self.ask("blob_put", request, r.BlobPutAnswer)

    async def watch(self, run: str) -> AsyncIterator[News | RunView]:
        """Yield the run as it stands, then what moves, until it is final.

        After a gap (a reconnect, another leader) the run as it stands comes again. Ends by
        itself when the run is final; a connection that is away is waited for.
        """
        news: asyncio.Queue[News] = asyncio.Queue()

        def heard(message: Message) -> None:
            news.put_nowait(_NEWS.decode(message.data))

        subscription = await self.bus.subscribe(subjects.ui(self._own, "run", run), heard)
        try:
            await self.bus.settled()
            async for each in self._follow(run, news):
                yield each
        finally:
            await subscription.end()

    async def _follow(self, run: str, news: asyncio.Queue[News]) -> AsyncIterator[News | RunView]:
        seen, state = -1, ""
        while not is_final(state):
            again_at = asyncio.get_running_loop().time() + WATCH_AGAIN_S
            answer = await self._watch_again(run)
            if answer is not None and answer.seq > seen:
                seen, state = answer.seq, answer.run.state
                yield answer.run
            last = 0
            while not is_final(state):
                item = await _next(news, seen, again_at)
                if item is None or item.restarted or item.after > seen:
                    break  # it is time, who told it is gone, or a gap: ask how the run stands
                if last and not item.after:
                    break  # the news began anew meanwhile
                seen, last, state = item.seq, item.seq, item.state
                yield item

    async def _watch_again(self, run: str) -> r.WatchAnswer | None:
        try:
            return await self.ask("watch", r.Watch(run=run), r.WatchAnswer)
        except Unavailable:
            return None


async def _next(news: asyncio.Queue[News], seen: int, until: float) -> News | None:
    """Return the next news behind frame `seen`; None when it is time to ask again.

    Whoever tells does so only for as long as it is asked; several may tell the same.
    """
    if asyncio.get_running_loop().time() >= until:
        return None
    try:
        async with asyncio.timeout_at(until):
            while True:
                item = await news.get()
                if item.seq > seen or item.restarted:
                    return item
    except TimeoutError:
        return None


def is_final(state: str) -> bool:
    """Tell whether a run in `state` has ended; the empty word is no state yet."""
    return bool(state) and RUN.is_final(RunState(state))


@asynccontextmanager
async def open_client(
    url: str,
    *,
    name: str = "client",
    credentials: str | None = None,
    org: OrgId = DEFAULT_ORG,
    ca: str | None = None,
    within_s: float = 5.0,
    **options: Any,
) -> AsyncIterator[Client]:
    """Connect, yield a client, close the connection.

    Raises:
        Unreachable: no server answered within `within_s`; its line says what to do.

    """
    bus = await connect(
        url, name=name, credentials=credentials, ca=ca, within_s=within_s, **options
    )
    # a task of its own: a group would wrap the errors of whoever uses the client
    watching = asyncio.get_running_loop().create_task(bus.watch(), name="bus-watch")
    try:
        yield Client(bus, org)
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        await bus.close()
