import asyncio

import pytest

from tshrag_agent.journal import pressure as room
from tshrag_agent.journal.pressure import HIGH_BYTES, MUCH_BYTES, Pressure


class Spool:
    """What waits, and whether the lab takes it."""

    def __init__(self) -> None:
        self.waiting, self.flows, self.asked = 0, True, 0
        self.pressure = Pressure(lambda: self.waiting)
        self.pressure.serve(lambda: self.flows, self._ask)

    def _ask(self) -> None:
        self.asked += 1


async def test_only_who_has_sent_much_waits_and_only_while_much_waits() -> None:
    spool = Spool()
    assert not spool.pressure.holds(MUCH_BYTES)
    spool.waiting = HIGH_BYTES
    assert spool.pressure.holds(MUCH_BYTES)
    assert not spool.pressure.holds(MUCH_BYTES - 1)
    assert spool.asked == 1, "what is stored is asked for, but not every time"
    assert spool.pressure.holds(MUCH_BYTES) and spool.asked == 1
    spool.waiting = HIGH_BYTES - 1
    await spool.pressure.eased(MUCH_BYTES)


async def test_without_the_lab_nobody_waits() -> None:
    spool = Spool()
    assert not spool.pressure.holds(MUCH_BYTES)  # nothing waits: it has just moved
    spool.waiting = HIGH_BYTES
    assert spool.pressure.holds(MUCH_BYTES), "while the lab takes samples"
    spool.flows = False
    assert not spool.pressure.holds(MUCH_BYTES)
    held = spool.pressure.held
    await spool.pressure.eased(MUCH_BYTES)
    assert (spool.pressure.held, spool.asked) == (held, 1)


async def test_nobody_waits_for_ever_for_a_store_that_takes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "STUCK_S", 0.2)
    spool = Spool()
    assert not spool.pressure.holds(MUCH_BYTES)
    spool.waiting = HIGH_BYTES
    assert spool.pressure.holds(MUCH_BYTES)
    async with asyncio.timeout(20):
        await spool.pressure.eased(MUCH_BYTES)


async def test_who_is_over_does_not_wait() -> None:
    spool = Spool()
    spool.waiting = HIGH_BYTES - 1
    spool.pressure.holds(MUCH_BYTES)
    spool.waiting = HIGH_BYTES
    over = asyncio.Event()
    over.set()
    await spool.pressure.eased(MUCH_BYTES, over)
    assert spool.pressure.held == 0
