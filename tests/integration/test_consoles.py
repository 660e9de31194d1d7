"""Consoles through a real controller, agent and server, on a pty that stands for a board."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.lab_with_agent import LabWithAgent, lab_with_agent
from tests.support.serial_pty import Wire, wire
from tests.support.served_lab import until, until_final
from tests.support.waiting import wait_until
from tshrag_agent.settings import DutTable
from tshrag_agent.transport.serial_way import SerialWay
from tshrag_agent.transport.ways import LocalWay
from tshrag_common import requests as r
from tshrag_common.channel.channel import Channel
from tshrag_common.channel.console_words import (
    AskStatus,
    Failed,
    Happened,
    SendBreak,
    Status,
    Told,
    spoken,
    told_of,
)
from tshrag_common.channel.opening import channels_of
from tshrag_common.channel.wants import ConsoleWant
from tshrag_common.client import Client
from tshrag_common.console_log import ConsoleRecord, unpacked
from tshrag_common.console_requests import GetConsole, GrepConsole, ListSigns
from tshrag_common.errors import LabError
from tshrag_common.ids import DutId
from tshrag_common.lease_requests import LeaseTake

PANIC = b"[ 1.0] Kernel panic - not syncing: Attempted to kill init!\r\n"


@pytest.fixture
def device() -> Iterator[Wire]:
    with wire() as made:
        yield made


@pytest.fixture
async def both(tmp_path: Path, nats_url: str, device: Wire) -> AsyncIterator[LabWithAgent]:
    table = DutTable(id="d1", kind="board", serial=SerialWay(url=device.path))
    async with lab_with_agent(tmp_path, nats_url, (table,)) as both:
        await both.agent._duts.consoles[DutId("d1")].opened(20)  # what is said before is lost
        yield both


async def taken(lab: Client) -> str:
    name = f"lease-{secrets.token_hex(8)}"
    return (await lab.lease_take(LeaseTake(lease=name, dut="d1"))).lease


@asynccontextmanager
async def at_console(lab: Client, *, write: bool = False) -> AsyncIterator["Screen"]:
    async with (
        channels_of(lab) as channels,
        channels.open(ConsoleWant(), dut="d1", write=write) as channel,
        asyncio.TaskGroup() as group,
    ):
        screen = Screen(channel)
        reading = group.create_task(screen.read())
        try:
            yield screen
        finally:
            reading.cancel()


class Screen:
    """What a person at a console sees and is told."""

    def __init__(self, channel: Channel) -> None:
        self.channel, self.shown = channel, b""
        self.told: list[Told] = []
        self.ended: LabError | None = None

    async def read(self) -> None:
        try:
            while (piece := await self.channel.read()) is not None:
                if piece.kind == "word":
                    self.told.append(told_of(piece.data))
                else:
                    self.shown += piece.data
        except LabError as error:
            self.ended = error

    async def sees(self, text: bytes) -> None:
        await wait_until(lambda: text in self.shown, 20)


async def record(lab: Client, **more: int) -> list[ConsoleRecord]:
    answer = await lab.console(GetConsole(dut="d1", **more))  # type: ignore[arg-type]
    return list(unpacked(answer.block)) if answer.block else []


def said(records: list[ConsoleRecord], direction: str = "rx") -> bytes:
    return b"".join(each.data for each in records if each.direction == direction)


async def test_what_was_said_before_stands_in_the_scrollback(
    both: LabWithAgent, device: Wire
) -> None:
    device.say(b"boot messages\r\n")
    await wait_until(lambda: both.agent.consoles.server, 5)
    async with at_console(both.lab.client) as screen:
        await screen.sees(b"boot messages\r\n")
        device.say(b"and more")
        await screen.sees(b"and more")
        assert isinstance(screen.told[0], Status)
        assert screen.told[0].watchers == 1


async def test_the_holder_types_and_all_see_it_and_the_record_names_him(
    both: LabWithAgent, device: Wire
) -> None:
    lab = both.lab.client
    await taken(lab)
    async with at_console(lab, write=True) as writer, at_console(lab) as watcher:
        await writer.channel.write(b"ls\r")
        await wait_until(lambda: device.heard() == b"ls\r", 20)
        device.say(b"bin etc\r\n")
        await writer.sees(b"bin etc")
        await watcher.sees(b"bin etc")

        async def is_recorded() -> bool:
            records = await record(lab)
            return b"bin etc" in said(records) and said(records, "tx") == b"ls\r"

        await until(is_recorded, 20)
        typed = [each for each in await record(lab) if each.direction == "tx"]
        assert {each.author for each in typed} == {"default/anybody"}


async def test_who_has_no_lease_cannot_even_open_for_writing(both: LabWithAgent) -> None:
    with pytest.raises(LabError, match="tshrag lease take d1") as caught:
        async with at_console(both.lab.client, write=True):
            pass
    assert caught.value.code == "no_lease"


async def test_a_refused_channel_leaves_the_others_alive(both: LabWithAgent, device: Wire) -> None:
    lab = both.lab.client
    async with channels_of(lab) as channels:
        with pytest.raises(LabError):
            async with channels.open(ConsoleWant(), dut="d1", write=True):
                pass
        await taken(lab)
        async with channels.open(ConsoleWant(), dut="d1", write=True) as channel:
            await channel.write(b"x")
            await wait_until(lambda: device.heard() == b"x", 20)


async def test_a_watcher_who_types_is_refused_and_nothing_reaches_the_board(
    both: LabWithAgent, device: Wire
) -> None:
    async with at_console(both.lab.client) as watcher:
        await watcher.channel.write(b"rm -rf /\r")
        await wait_until(lambda: watcher.ended is not None, 20)
        assert watcher.ended is not None
        assert watcher.ended.code == "no_lease"
    assert device.heard() == b""


async def test_the_end_of_the_lease_cuts_the_writer_off(both: LabWithAgent, device: Wire) -> None:
    lab = both.lab.client
    lease = await taken(lab)
    async with at_console(lab, write=True) as writer:
        await writer.channel.write(b"a")
        await wait_until(lambda: device.heard() == b"a", 20)
        await lab.lease_release(lease)
        await wait_until(lambda: writer.ended is not None, 20)
        assert writer.ended is not None
        assert writer.ended.code in ("lease_over", "not_held")
    assert device.heard() == b"a"


async def test_a_new_lease_ends_the_sessions_of_the_one_before(
    both: LabWithAgent, device: Wire
) -> None:
    lab = both.lab.client
    first = await taken(lab)
    async with at_console(lab, write=True) as old:
        await lab.lease_release(first)
        await taken(lab)
        async with at_console(lab, write=True) as new:
            await new.channel.write(b"mine")
            await wait_until(lambda: device.heard() == b"mine", 20)
            await wait_until(lambda: old.ended is not None, 20)


async def test_a_device_that_goes_and_comes_is_a_gap_and_no_end(
    both: LabWithAgent, device: Wire
) -> None:
    async with at_console(both.lab.client) as screen:
        device.say(b"before ")
        await screen.sees(b"before ")
        console = both.agent.consoles.server
        assert console is not None
        device.unplug()
        await wait_until(lambda: any("lost" in t.text for t in happened(screen)), 20)
        with wire() as again:
            both.agent._duts.consoles["d1"].settings = SerialWay(url=again.path).line  # type: ignore[index]
            await wait_until(lambda: any(t.text == "opened" for t in happened(screen)), 20)
            again.say(b"after")
            await screen.sees(b"before after")


def happened(screen: Screen) -> list[Happened]:
    return [told for told in screen.told if isinstance(told, Happened)]


async def test_orders_are_answered(both: LabWithAgent) -> None:
    lab = both.lab.client
    await taken(lab)
    async with at_console(lab, write=True) as screen:
        await screen.channel.say(spoken(SendBreak(duration_s=0.01)))
        await screen.channel.say(spoken(AskStatus()))
        await wait_until(lambda: sum(isinstance(t, Status | Failed) for t in screen.told) >= 2, 20)
        status = screen.told[-1]
        assert isinstance(status, Status)
        assert status.writer == "default/anybody"


async def test_a_crash_is_an_event_though_nobody_watches(both: LabWithAgent, device: Wire) -> None:
    lab = both.lab.client
    device.say(b"\r\nU-Boot 2024.01 (Jan 01 2024)\r\n" + PANIC)

    async def is_there() -> bool:
        signs = (await lab.signs(ListSigns(dut="d1"))).signs
        return [each.sign for each in signs] == ["panic", "bootloader"]

    await until(is_there, 20)
    panic = (await lab.signs(ListSigns(sign="panic"))).signs[0]
    assert (panic.boot, panic.agent) == (1, "a1")
    assert "Attempted to kill init!" in panic.text


async def test_lines_are_found_on_every_board(both: LabWithAgent, device: Wire) -> None:
    lab = both.lab.client
    device.say(b"one\r\n" + PANIC + b"three\r\n")

    async def is_recorded() -> bool:
        return b"three" in said(await record(lab))

    await until(is_recorded, 20)
    found = await lab.console_grep(GrepConsole(pattern=r"panic.*init"))
    assert [(line.dut, line.text) for line in found.lines] == [("d1", PANIC.decode().strip())]
    since = found.lines[0].at + 60_000_000
    assert (await lab.console_grep(GrepConsole(pattern="o", since=since))).lines == ()


async def test_a_pattern_that_is_none_is_refused(both: LabWithAgent) -> None:
    with pytest.raises(LabError, match="unterminated") as caught:
        await both.lab.client.console_grep(GrepConsole(pattern="[a"))
    assert caught.value.code == "pattern"


async def test_the_record_survives_the_controller_and_is_read_by_time(
    both: LabWithAgent, device: Wire
) -> None:
    lab = both.lab.client
    device.say(b"first\r\n")

    async def is_recorded() -> bool:
        return b"first" in said(await record(lab))

    await until(is_recorded, 20)
    records = await record(lab)
    at = next(each.at for each in records if each.data.startswith(b"first"))
    await both.lab.restart()
    assert b"first" in said(await record(lab, since=at))
    assert said(await record(lab, since=at + 10_000_000)) == b""
    assert said(await record(lab, until=at, since=1)) == b""


async def run_beside(
    tmp_path: Path, url: str, said: bytes, seconds: str, **terms: object
) -> tuple[str, str, str]:
    """Run a job on a board that says something; return its state, its error, the last sign."""
    with wire() as device:
        table = DutTable(id="d1", kind="board", local=LocalWay(), serial=SerialWay(url=device.path))
        async with lab_with_agent(tmp_path, url, (table,)) as both:
            step = {"command": ["/bin/sleep", seconds], "target": "b", **terms}
            run = await both.lab.submit(
                {"name": "t", "targets": {"b": {"runtime": "local"}}, "schedule": step}
            )
            await both.agent._duts.consoles[DutId("d1")].opened(20)
            await wait_until(lambda: both.agent.roster.live, 20)
            device.say(said)
            await until_final(both.lab, run, 40)
            (job,) = (await both.lab.client.jobs(r.ListJobs(id=run))).jobs
            seen = both.agent.consoles.book.page(DutId("d1")).last.split(":")[0]
            return job.state, job.error.code if job.error else "", seen


@pytest.mark.parametrize(
    ("said", "terms", "code"),
    [
        (PANIC, {"on_crash": "fail"}, "dut_crashed"),
        (b"\r\nU-Boot 2024.01 (Jan 01 2024)\r\n", {"expect_reboot": False}, "dut_rebooted"),
    ],
)
async def test_what_a_job_does_not_put_up_with_ends_it_as_failed(
    tmp_path: Path, nats_url: str, said: bytes, terms: dict[str, object], code: str
) -> None:
    state, error, _ = await run_beside(tmp_path, nats_url, said, "100", **terms)
    assert (state, error) == ("failed", code)


async def test_else_a_crash_ends_no_job(tmp_path: Path, nats_url: str) -> None:
    state, error, seen = await run_beside(tmp_path, nats_url, PANIC, "2")
    assert (state, error, seen) == ("passed", "", "panic")
