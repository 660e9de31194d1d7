"""The DUTs of this agent and the open ways to them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from tshrag_agent.settings import DutTable
from tshrag_agent.transport.base import DutTransport
from tshrag_agent.transport.console import SerialConsole
from tshrag_agent.transport.console_records import Recorder
from tshrag_agent.transport.open import open_transport
from tshrag_agent.transport.serial_shell import SerialTransport
from tshrag_common.errors import LabError, Refused
from tshrag_common.ids import DutId
from tshrag_common.jobs import Way

logger = logging.getLogger(__name__)

_CLOSE_S = 10.0


class Duts:
    """Opens a way when it is first used; the agent owns its consoles for ever."""

    def __init__(
        self,
        tables: Iterable[DutTable],
        recorder: Callable[[DutId], Recorder | None] = lambda dut: None,
    ) -> None:
        self._tables: dict[DutId, DutTable] = {}
        self._open: dict[tuple[DutId, Way], DutTransport] = {}
        self.consoles: dict[DutId, SerialConsole] = {}
        self._recorder = recorder
        self._group: asyncio.TaskGroup | None = None
        self._running: dict[DutId, asyncio.Task[None]] = {}
        for table in tables:
            self._enter(DutId(table.id), table)

    async def run(self) -> None:
        """Keep every console open, for ever."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for name in self.consoles:
                self._attend(name)
            await asyncio.Event().wait()

    @property
    def tables(self) -> tuple[DutTable, ...]:
        """Return the settings that are in force."""
        return tuple(self._tables.values())

    async def replace(self, dut: DutId, table: DutTable | None) -> None:
        """Let a DUT that nobody uses be what `table` says; None: it goes."""
        task = self._running.pop(dut, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for key in [key for key in self._open if key[0] == dut]:
            await self._leave(dut, self._open.pop(key))
        self._tables.pop(dut, None)
        self.consoles.pop(dut, None)
        if table is not None:
            self._enter(dut, table)
            self._attend(dut)

    def _enter(self, dut: DutId, table: DutTable) -> None:
        self._tables[dut] = table
        if table.serial is not None:
            self.consoles[dut] = SerialConsole(
                dut, table.serial.line, recorder=self._recorder(dut), pace=table.serial.pace
            )

    def _attend(self, dut: DutId) -> None:
        console = self.consoles.get(dut)
        if console is not None and self._group is not None:
            self._running[dut] = self._group.create_task(console.run(), name=f"console {dut}")

    @asynccontextmanager
    async def attended(self, dut: DutId) -> AsyncIterator[None]:
        """Keep the console of one DUT open while the block lasts; for those who do not `run`."""
        console = self.consoles.get(dut)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(console.run()) if console is not None else None
            try:
                yield
            finally:
                if task is not None:
                    task.cancel()

    def table(self, dut: DutId) -> DutTable:
        return self._tables[dut]

    def transport(self, dut: DutId, way: Way) -> DutTransport:
        """Return the way to a DUT; ``dut`` is the first that it has.

        Raises:
            Refused: there is no such way (``no_transport``).

        """
        key = (dut, self._way(dut, way))
        if key not in self._open:
            self._open[key] = self._opened(*key)
        return self._open[key]

    def is_host(self, dut: DutId | None, way: Way) -> bool:
        """Tell whether a job runs on this host itself: it needs no DUT, or the DUT is the host.

        The shepherd starts such a job: it bounds and ends a tree better than any wrapper, and in
        a tenth of the time.
        """
        return way == "host" or dut is None or self._way(dut, way) == "local"

    def _way(self, dut: DutId, way: Way) -> Way:
        table = self._tables.get(dut)
        if way == "dut" and table is not None and table.transports:
            return table.transports[0]
        return way

    async def close(self) -> None:
        """Let go of every DUT."""
        for (dut, _), transport in self._open.items():
            await self._leave(dut, transport)
        self._open.clear()

    async def _leave(self, dut: DutId, transport: DutTransport) -> None:
        try:
            async with asyncio.timeout(_CLOSE_S):
                await transport.close()
        except (LabError, OSError, TimeoutError) as error:
            logger.warning("a DUT was not left in order", extra={"dut": dut, "why": str(error)})

    def _opened(self, dut: DutId, way: Way) -> DutTransport:
        table = self._tables.get(dut)
        match way:
            case "ssh" if table is not None and table.ssh is not None:
                return open_transport(dut, table.ssh)
            case "local" if table is not None and table.local is not None:
                return open_transport(dut, table.local)
            case "serial" if table is not None and table.serial is not None:
                return SerialTransport(dut, self.consoles[dut], table.serial)
        raise Refused(dut, f"there is no way over {way}", code="no_transport")
