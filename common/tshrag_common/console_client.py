"""The client's requests about consoles."""

from tshrag_common import console_requests as cr
from tshrag_common.asking import Asking


class ConsoleClient(Asking):
    """What consoles said, by time and by pattern; what they tell of their DUTs."""

    async def console(self, request: cr.GetConsole) -> cr.ConsoleAnswer:
        return await self.ask("console", request, cr.ConsoleAnswer)

    async def console_grep(self, request: cr.GrepConsole) -> cr.GrepAnswer:
        return await self.ask("console_grep", request, cr.GrepAnswer, 60.0)

    async def signs(self, request: cr.ListSigns) -> cr.SignsAnswer:
        return await self.ask("signs", request, cr.SignsAnswer)
