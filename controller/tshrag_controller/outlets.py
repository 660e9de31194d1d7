"""Outlets that the controller itself reaches: a board is switched off and on, and that is seen.

For a board whose agent is away: what stands behind the outlet is dead when the outlet says that
it is off. Commands are an operator's argv, without a shell: a PDU's own tool, curl, ipmitool.
"""

import asyncio
import logging
import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from tshrag_common.errors import Refused, Unavailable, shown
from tshrag_common.ids import DutId
from tshrag_controller.settings import OutletTable

logger = logging.getLogger(__name__)

_MOST = 64 * 1024
_LOOK_S = 0.5


class PowerUnconfirmed(Unavailable):
    """The outlet did not do what it was told, or does not say so."""

    code = "power_unconfirmed"


class Outlets:
    """By DUT, as ``[outlet.NAME]`` of the settings has them."""

    def __init__(self, tables: Mapping[str, OutletTable]) -> None:
        self._tables = tables
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def of(self, dut: DutId | None) -> OutletTable:
        """Return what switches `dut`.

        Raises:
            Refused: nothing does, or nobody could tell whether it did (``no_outlet``).

        """
        table = self._tables.get(dut or "")
        if table is None:
            fix = f"add [outlet.{dut or 'NAME'}] to controller.toml, or use --lost with a reason"
            raise Refused(str(dut or "host"), "no outlet is known here", fix, code="no_outlet")
        return table

    async def cycle(self, dut: DutId) -> None:
        """Switch a board off and on again; return when its outlet has said both.

        Raises:
            Refused: there is no outlet.
            PowerUnconfirmed: it is not seen that the board was off, and is on.

        """
        table = self.of(dut)
        async with self._turns[dut]:
            if await self._status(dut, table) == "unknown":
                raise PowerUnconfirmed(dut, "its outlet says neither on nor off", "see its status")
            logger.warning("a board is switched off and on", extra={"dut": dut})
            await self._switched(dut, table, "off", table.off)
            await asyncio.sleep(table.off_s)
            await self._switched(dut, table, "on", table.on)

    async def _switched(
        self, dut: DutId, table: OutletTable, wanted: str, argv: Sequence[str]
    ) -> None:
        await asyncio.to_thread(_said, dut, argv, table.timeout_s)
        ends = time.monotonic() + table.confirm_s
        while (found := await self._status(dut, table)) != wanted:
            if time.monotonic() >= ends:
                what = f"its outlet says {found}, not {wanted}, after {table.confirm_s:g} s"
                raise PowerUnconfirmed(dut, what, "see the outlet; nothing was given up")
            await asyncio.sleep(_LOOK_S)

    async def _status(self, dut: DutId, table: OutletTable) -> str:
        said = await asyncio.to_thread(_said, dut, table.status, table.timeout_s)
        if re.search(table.status_off, said, re.MULTILINE):
            return "off"
        return "on" if re.search(table.status_on, said, re.MULTILINE) else "unknown"


def _said(dut: str, argv: Sequence[str], timeout_s: float) -> str:
    """Execute a command to its end; return what it said."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PowerUnconfirmed(dut, f"{shown(argv[0])}: {error}", "see [outlet]") from None
    if done.returncode:
        last = done.stderr[-200:].decode("utf-8", "replace").strip()
        what = f"{shown(argv[0])} ended with {done.returncode}: {shown(last)}"
        raise PowerUnconfirmed(dut, what, "see [outlet]")
    return done.stdout[:_MOST].decode("utf-8", "replace")
