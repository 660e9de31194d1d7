"""What a client asks as an operator of the lab."""

from tshrag_common import intent_requests as ir
from tshrag_common.asking import Asking


class Operating(Asking):
    """Take hosts and DUTs out of service and back."""

    async def set_intent(self, request: ir.SetIntent) -> ir.IntentsAnswer:
        return await self.ask("set_intent", request, ir.IntentsAnswer)
