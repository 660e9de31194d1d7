"""What a client asks of the course of things: out of service, held back, moved."""

from tshrag_common import (
    flaky_requests as fr,
    intent_requests as ir,
    requests as r,
    suspend_requests as sr,
    why_requests as wr,
    work_requests as wk,
)
from tshrag_common.asking import Asking


class Operating(Asking):
    """Take hosts and DUTs out of service, hold runs back."""

    async def set_intent(self, request: ir.SetIntent) -> ir.IntentsAnswer:
        return await self.ask("set_intent", request, ir.IntentsAnswer)

    async def hold(self, request: sr.Hold) -> sr.HeldAnswer:
        return await self.ask("hold", request, sr.HeldAnswer)

    async def let_go(self, request: sr.LetGo) -> sr.HeldAnswer:
        return await self.ask("let_go", request, sr.HeldAnswer)

    async def reschedule(self, request: sr.Reschedule) -> sr.WindowAnswer:
        return await self.ask("reschedule", request, sr.WindowAnswer)

    async def outlook(self, name: str) -> wr.OutlookAnswer:
        return await self.ask("outlook", r.Named(id=name), wr.OutlookAnswer)

    async def queue(self) -> wr.QueueAnswer:
        return await self.ask("queue", r.Nothing(), wr.QueueAnswer)

    async def placement(self, job: str) -> wr.PlacementAnswer:
        return await self.ask("placement", r.Named(id=job), wr.PlacementAnswer)

    async def flaky(self, request: fr.AskFlaky) -> fr.FlakyAnswer:
        return await self.ask("flaky", request, fr.FlakyAnswer)

    async def work(self, request: wk.AskWork) -> wk.WorkAnswer:
        return await self.ask("work", request, wk.WorkAnswer)
