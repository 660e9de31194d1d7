import asyncio
import termios
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.serial_pty import Wire, running, wire
from tests.support.waiting import wait_until
from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.console import (
    HOUSEKEEPING,
    ConsoleTaken,
    Driver,
    Pace,
    SerialConsole,
)
from tshrag_agent.transport.console_records import Record
from tshrag_agent.transport.line import LineSettings
from tshrag_common.errors import StaleFence
from tshrag_common.ids import Fence
from tshrag_common.rfc2217 import PortState


@pytest.fixture
def device() -> Iterator[Wire]:
    with wire() as made:
        yield made


@pytest.fixture
async def console(device: Wire) -> AsyncIterator[SerialConsole]:
    async with running(SerialConsole("b1", LineSettings(url=device.path))) as made:
        await made.opened(5.0)
        yield made


def heard(console: SerialConsole) -> bytes:
    return b"".join(record.data for record in console.records() if record.direction == "rx")


def heard_dots(console: SerialConsole, count: int) -> bool:
    return heard(console).count(b".") == count


async def test_every_byte_is_recorded_though_nobody_watches(
    device: Wire, console: SerialConsole
) -> None:
    device.say(b"\x00boot\xff")
    await wait_until(lambda: heard(console) == b"\x00boot\xff")
    stamps = [record.at for record in console.records()]
    assert stamps == sorted(stamps) and stamps[0] > 1_600_000_000_000_000


async def test_what_is_typed_is_recorded_with_its_author(
    device: Wire, console: SerialConsole
) -> None:
    driver = console.drive(Fence(3), "ann")
    await driver.write(b"ls\n", timeout_s=5)
    await driver.write(b"secret\n", timeout_s=5, hidden=True)
    await wait_until(lambda: device.heard() == b"ls\nsecret\n")
    typed = [(r.author, r.data) for r in console.records() if r.direction == "tx"]
    assert typed == [("ann", b"ls\n"), ("ann", b"<hidden>")]


async def test_the_recorder_gets_every_record_at_once(device: Wire) -> None:
    records = list[Record]()
    console = SerialConsole("b1", LineSettings(url=device.path), recorder=records.append)
    async with running(console):
        await console.opened(5.0)
        device.say(b"x")
        await console.write(b"y", timeout_s=5)
        await wait_until(lambda: [r.data for r in records if r.direction == "rx"] == [b"x"])
    assert [r.data for r in records if r.direction == "tx"] == [b"y"]
    assert records[-1].data == b"lost: closed"


async def test_any_number_of_watchers_read_the_same(device: Wire, console: SerialConsole) -> None:
    watchers = [console.follow() for _ in range(5)]
    device.say(b"to all")
    for watcher in watchers:
        assert (await watcher.next()).data == b"to all"
        watcher.close()


async def test_a_slow_watcher_loses_the_oldest_and_counts(
    device: Wire, console: SerialConsole
) -> None:
    slow = console.follow(most_bytes=2000)
    for number in range(50):
        device.say(b"%03d" % number + b"." * 97)
        await wait_until(partial(heard_dots, console, 97 * (number + 1)))
    assert slow.dropped_bytes > 0
    assert not (await slow.next()).data.startswith(b"000")
    slow.close()


async def test_the_ring_is_bounded(device: Wire) -> None:
    console = SerialConsole("b1", LineSettings(url=device.path), ring_bytes=10_000)
    async with running(console):
        await console.opened(5.0)
        watcher = console.follow(1 << 20)
        sent = 0
        while sent < 200_000:
            sent += device.say(b"z" * 1000)
            await asyncio.sleep(0)
        got = 0
        while got < sent:
            got += len((await watcher.next()).data)
        watcher.close()
        assert len(heard(console)) <= 10_000


async def test_watch_gives_the_bytes_of_the_dut_only(device: Wire, console: SerialConsole) -> None:
    async def first() -> bytes:
        return await anext(console.watch())

    async with asyncio.TaskGroup() as group:
        task = group.create_task(first())
        await asyncio.sleep(0)
        await console.write(b"typed", timeout_s=5)
        device.say(b"said")
    assert task.result() == b"said"


async def test_a_newer_fence_takes_over_and_the_older_writer_is_refused(
    device: Wire, console: SerialConsole
) -> None:
    old = console.drive(Fence(5), "ann")
    new = console.drive(Fence(6), "bob")
    with pytest.raises(StaleFence, match="fence 5 is stale: 6 has been seen"):
        await old.write(b"no", timeout_s=5)
    await new.write(b"yes", timeout_s=5)
    await wait_until(lambda: device.heard() == b"yes")
    assert new.drives and not old.drives
    for fence in (HOUSEKEEPING, Fence(5)):
        with pytest.raises(StaleFence):
            console.drive(fence, "ann")


async def test_a_new_speed_is_set_and_the_line_stays(device: Wire, console: SerialConsole) -> None:
    driver = console.drive(Fence(1), "ann")
    await console.configure(driver, PortState(baud=9600, parity="odd", stop_bits=2))
    attributes = termios.tcgetattr(device.fd)
    assert attributes[4] == termios.B9600
    flags = termios.PARODD | termios.CSTOPB  # a pty keeps no PARENB
    assert attributes[2] & flags == flags
    device.say(b"still here")
    await wait_until(lambda: heard(console) == b"still here")
    assert console.is_open and console.settings.baud == 9600
    events = [each.data for each in console.records() if each.direction == "event"]
    assert b"baud 9600, parity odd, stop_bits 2" in events


async def test_what_one_has_set_is_undone_when_another_comes(
    device: Wire, console: SerialConsole
) -> None:
    ann = console.drive(Fence(1), "ann")
    await console.configure(ann, PortState(baud=9600))
    await ann.write(b"a", timeout_s=5)
    ann.release()
    again = console.drive(Fence(1), "ann")
    await again.write(b"b", timeout_s=5)
    assert termios.tcgetattr(device.fd)[4] == termios.B9600
    await console.drive(Fence(2), "job").write(b"c", timeout_s=5)
    assert termios.tcgetattr(device.fd)[4] == termios.B115200
    assert console.settings.baud == 115200


async def test_two_who_share_a_fence_write_one_at_a_time(
    device: Wire, console: SerialConsole
) -> None:
    bob = console.drive(Fence(6), "bob")
    with pytest.raises(ConsoleTaken, match="bob writes now; take it over with --take"):
        console.drive(Fence(6), "ann")
    ann = console.drive(Fence(6), "ann", take=True)
    with pytest.raises(ConsoleTaken, match="ann writes now"):
        await bob.write(b"no", timeout_s=5)
    await ann.write(b"yes", timeout_s=5)
    await wait_until(lambda: device.heard() == b"yes")


async def test_a_takeover_cuts_slow_typing_at_once(device: Wire) -> None:
    pace = Pace(chunk_bytes=1, delay_s=0.02)
    console = SerialConsole("b1", LineSettings(url=device.path), pace=pace)
    async with running(console):
        await console.opened(5.0)
        old = console.drive(Fence(1), "ann")
        async with asyncio.TaskGroup() as group:
            task = group.create_task(refused(old, b"a" * 500))
            await wait_until(lambda: len(device.heard()) > 3)
            console.drive(Fence(2), "bob")
        assert task.result()
        assert len(device.heard()) < 100


async def refused(driver: Driver, data: bytes) -> bool:
    try:
        await driver.write(data, timeout_s=5)
    except StaleFence:
        return True
    return False


async def test_after_a_release_the_agent_itself_may_write(
    device: Wire, console: SerialConsole
) -> None:
    driver = console.drive(Fence(9), "ann")
    with pytest.raises(StaleFence):
        await console.write(b"no", timeout_s=5)
    driver.release()
    driver.release()
    await console.write(b"ok", timeout_s=5)
    await wait_until(lambda: device.heard() == b"ok")
    with pytest.raises(StaleFence):
        console.drive(Fence(8), "bob")


async def test_slow_typing_keeps_its_pace_and_its_order(device: Wire) -> None:
    pace = Pace(chunk_bytes=3, delay_s=0.001)
    console = SerialConsole("b1", LineSettings(url=device.path), pace=pace)
    async with running(console):
        await console.opened(5.0)
        await console.write(b"0123456789", timeout_s=5)
        await wait_until(lambda: device.heard() == b"0123456789")
    chunks = [r.data for r in console.records() if r.direction == "tx"]
    assert chunks == [b"012", b"345", b"678", b"9"]


async def test_a_break_is_in_the_record(console: SerialConsole) -> None:
    await console.drive(Fence(1), "ann").send_break(0.01)
    assert (b"break", "ann") in [(r.data, r.author) for r in console.records()]


async def test_a_device_that_comes_back_is_opened_again_and_the_gap_is_marked(
    tmp_path: Path,
) -> None:
    link = tmp_path / "by-id"
    with wire() as first, wire() as second:
        link.symlink_to(first.path)
        console = SerialConsole("b1", LineSettings(url=str(link)))
        async with running(console):
            await console.opened(5.0)
            driver = console.drive(Fence(1), "ann")
            first.say(b"before")
            await wait_until(lambda: heard(console) == b"before")
            link.unlink()
            first.unplug()
            await wait_until(lambda: b"serial_missing" in console.records()[-1].data)
            with pytest.raises(TransportFailed):
                await driver.write(b"x", timeout_s=5)
            link.symlink_to(second.path)
            await console.opened(5.0)
            second.say(b"after")
            await driver.write(b"on", timeout_s=5)
            await wait_until(lambda: heard(console) == b"beforeafter")
            await wait_until(lambda: second.heard() == b"on")
        events = [r.data.partition(b":")[0] for r in console.records() if r.direction == "event"]
        assert events[:4] == [b"opened", b"driver fence 1", b"lost", b"serial_missing"]
        assert events[4:] == [b"opened", b"lost"]


async def test_a_port_that_is_not_there_is_waited_for_then_named(tmp_path: Path) -> None:
    console = SerialConsole("b1", LineSettings(url=str(tmp_path / "ttyUSB0")))
    async with running(console):
        with pytest.raises(TransportFailed) as caught:
            await console.opened(0.2)
        assert caught.value.code == "serial_missing"
        assert str(tmp_path / "ttyUSB0") in str(caught.value)


async def test_a_busy_port_is_said_at_once(device: Wire, console: SerialConsole) -> None:
    other = SerialConsole("b2", LineSettings(url=device.path))
    async with running(other):
        with pytest.raises(TransportFailed) as caught:
            await other.opened(30.0)
        assert caught.value.code == "serial_busy"


async def test_a_flood_loses_nothing(device: Wire, console: SerialConsole) -> None:
    watcher = console.follow(8 << 20)
    block = bytes(range(256)) * 16
    sent, got = bytearray(), bytearray()
    while len(sent) < 2_000_000 or len(got) < len(sent):
        if len(sent) < 2_000_000:
            sent += block[: device.say(block)]
        while watcher.waiting:
            got += (await watcher.next()).data
        await asyncio.sleep(0)
    assert got == sent
    watcher.close()
