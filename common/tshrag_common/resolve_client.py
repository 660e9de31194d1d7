"""The part of the client that gives up attempts."""

from tshrag_common.asking import Asking
from tshrag_common.resolve_requests import Resolve, ResolveAnswer

POWER_S = 300.0


class Resolves(Asking):
    """For a person who knows what no machine can."""

    async def resolve(
        self, name: str, *, lost: bool = False, reason: str = "", power_cycle: bool = False
    ) -> ResolveAnswer:
        """Tell what giving up an attempt means; with `lost` and a reason, give it up.

        With `power_cycle` its DUT is switched off and on first; that it was seen is the reason.
        """
        request = Resolve(attempt=name, lost=lost, reason=reason, power_cycle=power_cycle)
        return await self.ask("resolve", request, ResolveAnswer, POWER_S if power_cycle else None)
