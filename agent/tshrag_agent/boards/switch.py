"""A switch as all of a host use it: one inrush at a time, every switching on counted.

An outlet, a relay and a board's regulators wear with each switching; the count says who is due.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from tshrag_agent.transport.base import PowerState, PowerSwitch
from tshrag_common.ids import DutId

logger = logging.getLogger(__name__)


class Mains:
    """What the switches of this host share."""

    def __init__(self, file: Path, spacing_s: float) -> None:
        self._file, self._spacing_s = file, spacing_s
        self._next_at = 0.0
        self.counts = Counter[DutId](_read(file))

    async def turn(self) -> None:
        """Wait until so long after the last switching on that the next may come."""
        now = asyncio.get_running_loop().time()
        at = max(now, self._next_at)
        self._next_at = at + self._spacing_s
        await asyncio.sleep(at - now)

    async def count(self, dut: DutId) -> None:
        self.counts[dut] += 1
        await asyncio.to_thread(self._write)

    def _write(self) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._file.with_suffix(".new")
            fresh.write_bytes(msgspec.json.encode(dict(self.counts)))
            fresh.replace(self._file)
        except OSError as error:  # a count that is lost is no reason not to switch
            logger.warning("switchings are not counted", extra={"why": str(error)})


class CountedSwitch:
    """`PowerSwitch` that keeps its distance and counts."""

    def __init__(self, dut: DutId, switch: PowerSwitch, mains: Mains) -> None:
        self._dut, self.inner, self._mains = dut, switch, mains

    async def on(self) -> None:
        await self._switched(self.inner.on)

    async def off(self) -> None:
        await self.inner.off()

    async def cycle(self) -> None:
        await self._switched(self.inner.cycle)

    async def status(self) -> PowerState:
        return await self.inner.status()

    async def read(self) -> float:
        return await self.inner.read()

    async def _switched(self, switch: Callable[[], Awaitable[None]]) -> None:
        await self._mains.turn()
        await switch()
        await self._mains.count(self._dut)


def _read(file: Path) -> dict[DutId, int]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[DutId, int])
    except (OSError, msgspec.MsgspecError):
        return {}
