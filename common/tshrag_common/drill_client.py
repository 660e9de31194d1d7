"""The part of the client that holds drills."""

from tshrag_common.asking import Asking
from tshrag_common.drill_requests import Drill, DrillAnswer


class Drilling(Asking):
    """For an operator who wants to see what he was promised."""

    async def drill(self, request: Drill) -> DrillAnswer:
        return await self.ask("drill", request, DrillAnswer)
