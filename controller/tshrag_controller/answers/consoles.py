"""Answers about consoles: their record, lines in it, signs.

The lab's own org reads all of it; another org what was said while one of its own had the DUT.
"""

from functools import partial

from tshrag_common import ids
from tshrag_common.console_requests import (
    ConsoleAnswer,
    GetConsole,
    GrepAnswer,
    GrepConsole,
    ListSigns,
    SignsAnswer,
)
from tshrag_common.errors import NotFound, PolicyDenied
from tshrag_common.ids import DEFAULT_ORG
from tshrag_controller.answers.asker import Asker
from tshrag_controller.engine import Engine
from tshrag_controller.store import sign_rows
from tshrag_controller.store.console_reading import Searches, Windows
from tshrag_controller.store.store import Store


class ConsoleAnswers:
    """All of it is read from the store of this controller."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self._engine, self._store = engine, store
        self._searches = Searches(store.folder / "consoles")

    async def record(self, asker: Asker, asked: GetConsole) -> ConsoleAnswer:
        await self._known(ids.dut_id(asked.dut))
        windows = await self._windows(asker, (asked.dut,))
        return await self._store.read_console(asked, windows.get(asked.dut))

    async def grep(self, asker: Asker, asked: GrepConsole) -> GrepAnswer:
        for dut in asked.duts:
            await self._known(ids.dut_id(dut))
        return await self._searches.grep(asked, await self._windows(asker, asked.duts))

    async def signs(self, asker: Asker, asked: ListSigns) -> SignsAnswer:
        await self._store.wait_applied(self._engine.sequence)
        answer = await self._store.query(partial(sign_rows.signs, asked=asked))
        windows = await self._windows(asker, (asked.dut,) if asked.dut else ())
        if asker.org == DEFAULT_ORG:
            return answer
        own = (each for each in answer.signs if windows.holds(each.dut, each.seen_at))
        return SignsAnswer(signs=tuple(own))

    async def _known(self, dut: str) -> None:
        """Refuse a DUT that is neither here nor in the records."""
        duts = await self._engine.ask(lambda decision: sorted(decision.lab.duts))
        if dut not in duts and not await self._store.has_console(dut):
            raise NotFound("dut", dut, duts)

    async def _windows(self, asker: Asker, duts: tuple[str, ...]) -> Windows:
        """Return when an org had which DUT; nothing is left out for the lab's own org."""
        if asker.org == DEFAULT_ORG:
            return Windows()
        await self._store.wait_applied(self._engine.sequence)
        rows = await self._store.query(partial(sign_rows.held_by, org=asker.org))
        windows = Windows(by_dut=_gathered(rows), all=False)
        for dut in duts:
            if windows.get(dut) == ():
                raise PolicyDenied(f"dut {dut}", "your org has never had it", code="not_holder")
        return windows


def _gathered(rows: list[tuple[str, int, int]]) -> dict[str, tuple[tuple[int, int], ...]]:
    found: dict[str, tuple[tuple[int, int], ...]] = {}
    for dut, since, until in rows:
        found[dut] = (*found.get(dut, ()), (since, until))
    return found
