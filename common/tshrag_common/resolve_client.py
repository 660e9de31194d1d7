"""The part of the client that gives up attempts."""

from tshrag_common.asking import Asking
from tshrag_common.resolve_requests import Resolve, ResolveAnswer


class Resolves(Asking):
    """For a person who knows what no machine can."""

    async def resolve(self, name: str, *, lost: bool = False, reason: str = "") -> ResolveAnswer:
        """Tell what giving up an attempt means; with `lost` and a reason, give it up."""
        request = Resolve(attempt=name, lost=lost, reason=reason)
        return await self.ask("resolve", request, ResolveAnswer)
