"""The boards of this agent: for each DUT its power switch and its states."""

import logging
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from tshrag_agent.attempts.host import Shepherd
from tshrag_agent.boards.board import Board, Parts
from tshrag_agent.boards.qemu import QemuBoard, process_of
from tshrag_agent.boards.strategy import Means, moves_of
from tshrag_agent.boards.switch import CountedSwitch, Mains
from tshrag_agent.duts import Duts
from tshrag_agent.settings import DutTable
from tshrag_agent.transport.base import DutTransport, PowerSwitch, TransportFailed
from tshrag_agent.transport.boot_way import BootWay, Move
from tshrag_agent.transport.power import power_switch
from tshrag_agent.transport.serial_shell import SerialTransport
from tshrag_common.errors import NotFound
from tshrag_common.ids import DutId
from tshrag_common.jobs import Way

logger = logging.getLogger(__name__)

STRATEGIES = "tshrag.strategies"
"""The entry points of strategies: each a function of settings and means to moves."""


class Strategy(Protocol):
    """Makes the moves of a board; the last of two with the same ends is taken."""

    def __call__(self, way: BootWay, means: Means) -> tuple[Move, ...]: ...


class Boards:
    """Makes a board when it is first used."""

    def __init__(
        self,
        tables: Iterable[DutTable],
        duts: Duts,
        folder: Path,
        shepherd: Shepherd,
        spacing_s: float = 0.0,
    ) -> None:
        self._tables = {DutId(table.id): table for table in tables}
        self._duts, self._folder, self._shepherd = duts, folder, shepherd
        self._boards: dict[DutId, Board] = {}
        self._power: dict[DutId, CountedSwitch] = {}
        self.mains = Mains(folder / "switched.json", spacing_s)

    @property
    def names(self) -> tuple[DutId, ...]:
        return tuple(self._tables)

    @property
    def processes(self) -> frozenset[str]:
        """Return the names of processes that the shepherd may keep for virtual boards."""
        virtual = (dut for dut, table in self._tables.items() if table.qemu is not None)
        return frozenset(process_of(dut) for dut in virtual)

    def knows(self, dut: DutId) -> bool:
        return dut in self._tables

    def table(self, dut: DutId) -> DutTable:
        return self._tables[dut]

    def power(self, dut: DutId) -> PowerSwitch:
        if dut not in self._power:
            self._power[dut] = CountedSwitch(dut, self._switch(self._tables[dut]), self.mains)
        return self._power[dut]

    def board(self, dut: DutId) -> Board:
        """Return the board of a DUT.

        Raises:
            NotFound: its settings name a strategy that is not installed.

        """
        if dut not in self._boards:
            self._boards[dut] = self._made(self._tables[dut])
        return self._boards[dut]

    def transport(self, dut: DutId, way: Way) -> DutTransport:
        return self._duts.transport(dut, way)

    def used_by(self, dut: DutId, user: str) -> None:
        """Say who has a DUT from now on, as RUN or RUN/ATTEMPT."""
        if dut not in self._tables:
            return  # the attempt will be told so
        self.power(dut)
        switch = self._power[dut].inner
        if isinstance(switch, QemuBoard):
            switch.used_by(user)
        self.board(dut).used_by(user.partition("/")[0])

    async def replace(self, dut: DutId, table: DutTable | None) -> None:
        """Let a board that nobody uses be what `table` says; a virtual one that changed ends."""
        await self._end_virtual(dut)
        self._power.pop(dut, None)
        self._boards.pop(dut, None)
        self._tables.pop(dut, None)
        if table is not None:
            self._tables[dut] = table

    async def close(self) -> None:
        """End the virtual boards; they go with their agent."""
        for dut in self._tables:
            try:
                await self._end_virtual(dut)
            except TransportFailed as error:
                logger.error("a virtual board does not end", extra={"dut": dut, "why": error.line})

    async def _end_virtual(self, dut: DutId) -> None:
        """End a QEMU, also one that an earlier agent has started and nobody has used since."""
        table = self._tables.get(dut)
        if table is not None and table.qemu is not None:
            await self.power(dut).off()

    def _switch(self, table: DutTable) -> PowerSwitch:
        dut = DutId(table.id)
        if table.qemu is None:
            return power_switch(dut, table.power)
        console = self._duts.consoles.get(dut)
        port = table.ssh.port if table.ssh is not None else 0
        folder = self._folder / dut
        opened = console.opened if console else None
        made = QemuBoard(dut, table.qemu, folder, opened, self._shepherd, port)
        if console is not None:
            console.breaker = made.send_break
        return made

    def _made(self, table: DutTable) -> Board:
        dut = DutId(table.id)
        serial = self._duts.transport(dut, "serial") if table.serial is not None else None
        parts = Parts(
            dut=dut,
            way=table.boot,
            power=self.power(dut),
            can_power="power" in table.can,
            console=self._duts.consoles.get(dut),
            serial=serial if isinstance(serial, SerialTransport) else None,
            serial_way=table.serial,
            reach=(lambda: self._duts.transport(dut, "ssh")) if table.ssh is not None else None,
        )
        if not table.boot.strategy:
            return Board(parts)
        means = Board(parts).means
        return Board(
            parts, (*find_strategy(table.boot.strategy)(table.boot, means), *table.boot.move)
        )


def find_strategy(name: str) -> Strategy:
    """Return the strategy called `name`.

    Raises:
        NotFound: nobody has installed it.

    """
    if name == "default":
        return moves_of
    others = entry_points(group=STRATEGIES)
    if name not in others.names:
        raise NotFound("strategy", name, ["default", *others.names])
    found: Strategy = others[name].load()
    return found
