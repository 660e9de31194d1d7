"""What a client asks of the course of things: out of service, held back, moved."""

from tshrag_common import intent_requests as ir, suspend_requests as sr
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
