"""A leader that was deposed while it could not hear: it answers nothing as if it still led."""

import asyncio

import pytest

from tests.controller.log.test_pen import a_frame, a_log
from tshrag_common.bus.connection import connect
from tshrag_common.clock import SystemClock
from tshrag_common.errors import Fenced, Unavailable
from tshrag_common.streams import LOG
from tshrag_controller.core.lab import Lab
from tshrag_controller.engine import Engine, LabClock
from tshrag_controller.log.append import Pen
from tshrag_controller.pulses import Pulses
from tshrag_controller.standby import Standby


@pytest.mark.parametrize("is_purged", [False, True])
async def test_it_learns_from_the_log_even_where_a_purge_has_emptied_it(
    nats_url: str, is_purged: bool
) -> None:
    bus = await connect(nats_url, name="old", within_s=10)
    log, clock = await a_log(bus), SystemClock()
    lab_clock = LabClock(clock, 0)
    pen = Pen(log, "old", 0)
    lab = Lab()
    lab.epoch, lab.sequence = a_frame(1).epoch, (await pen.append(a_frame(1)))[-1]
    engine = Engine(lab, pen, lab_clock, lambda *_: None, lambda *_: None)
    pulses = Pulses(bus, engine, clock, lab_clock, "old", "boot", "1", lambda: 0)
    standby = Standby(bus, lab, engine, pulses, clock, lab_clock, "old")
    assert await standby.newest() == lab.sequence
    standby._sure = (0.0, -1)
    newest = (await Pen(log, "new", lab.sequence).append(a_frame(2)))[-1]
    if is_purged:
        await log.purge(LOG, newest + 1)
        assert await log.tail(LOG) is None
    with pytest.raises(Unavailable, match="another controller leads"):
        await standby.newest()
    with pytest.raises(Fenced):  # and it steps down, though it has nothing to append
        async with asyncio.timeout(5):
            await pulses.deposed()
    await bus.close()
