"""Consoles and channels: how fast a key comes back, how much goes through, what a flood costs.

Keys and bytes go through real processes (controller, agent, broker); the board is a pty whose
other end this process holds. The limits are a bare request through the same broker, the speed of
the line itself, a core, and what nats-py carries on one subject.
"""

import asyncio
import os
import pty
import termios
import time
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from benchmarks import limits
from benchmarks.harness import Figure, RunningLab, Scale, a_lab, figure, run_async
from tshrag_common.channel.channel import Channel
from tshrag_common.channel.opening import Channels, channels_of
from tshrag_common.channel.wants import ConsoleWant, EchoWant
from tshrag_common.console_log import unpacked
from tshrag_common.console_requests import GetConsole
from tshrag_common.lease_client import new_lease
from tshrag_common.lease_requests import LeaseTake

CONSOLES = 64
BYTES_PER_S = 115200 // 10
LINE = b"[  123.456789] usb 1-1: new high-speed USB device number 5 using xhci_hcd ok\r\n"
_TEXT = LINE * 400
MBAUD_BYTES_PER_S = 3_000_000 // 10


class Board:
    """A board at the other end of a pty."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fd, slave = pty.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        os.close(slave)  # the agent is the one that has it open
        os.set_blocking(self.fd, False)
        self.said = 0

    @property
    def toml(self) -> str:
        return f'[[dut]]\nid = "{self.name}"\nkind = "bench"\n[dut.serial]\nurl = "{self.path}"\n\n'

    def say_on(self, size: int) -> None:
        """Send the next `size` bytes of a text without end: its lines stay whole."""
        start = self.said % len(LINE)
        self.say(_TEXT[start : start + size])

    def say(self, data: bytes) -> None:
        """Send what the line takes now."""
        try:
            self.said += os.write(self.fd, data)
        except BlockingIOError:
            return

    def echo(self) -> None:
        """Send back what was typed."""
        try:
            self.say(os.read(self.fd, 65536))
        except (BlockingIOError, OSError):
            return

    def close(self) -> None:
        termios.tcflush(self.fd, termios.TCIOFLUSH)
        os.close(self.fd)


def measure(scale: Scale) -> list[Figure]:
    return run_async(_measure(scale))


async def _measure(scale: Scale) -> list[Figure]:
    boards = [Board(f"b{number}") for number in range(CONSOLES)]
    try:
        async with a_lab(slots=1, duts="".join(board.toml for board in boards)) as lab:
            echoes = await _echoes(lab, boards[0], scale.of(1000, 20))
            through = await _throughput(lab, boards[1], scale.of(5, 1), scale.of(4, 1))
            flood = await _flood(lab, boards, scale.of(15, 2))
            channels = await _channels(lab, scale.of(5, 1), scale.of(200, 4) << 20)
        return [*echoes, through, flood, *channels]
    finally:
        for board in boards:
            board.close()


@asynccontextmanager
async def at_console(lab: RunningLab, board: Board) -> AsyncIterator[Channel]:
    lease = await lab.client.lease_take(LeaseTake(lease=new_lease(), dut=board.name))
    want = ConsoleWant(scrollback_bytes=0)
    async with (
        channels_of(lab.client) as channels,
        channels.open(want, dut=board.name, write=True) as channel,
    ):
        yield channel
    await lab.client.lease_release(lease.lease)


async def _next(channel: Channel) -> bytes:
    """Return the next bytes; words beside them are passed over."""
    async with asyncio.timeout(20.0):
        while (piece := await channel.read()) is not None:
            if piece.kind == "data":
                return piece.data
    return b""


async def _echoes(lab: RunningLab, board: Board, count: int) -> list[Figure]:
    wire = await limits.Wire.open(lab.processes)
    loop = asyncio.get_running_loop()
    loop.add_reader(board.fd, board.echo)
    keys: list[float] = []
    trips: list[float] = []
    async with asyncio.TaskGroup() as group, at_console(lab, board) as channel:
        answering = group.create_task(wire.answer())
        for number in range(count + 20):
            trip = await wire.round_trips_ms(1)
            began = time.perf_counter()
            await channel.write(b"k")
            await _next(channel)
            took = (time.perf_counter() - began) * 1e3
            if number >= 20:
                keys.append(took)
                trips += trip
            await asyncio.sleep(0.002)
        answering.cancel()
    loop.remove_reader(board.fd)
    await wire.close()
    keys.sort()
    trips.sort()
    return [
        figure(
            f"console_echo_p{level}",
            "a key typed at a console until its echo is back, idle lab",
            "ms",
            ours=[keys[min(len(keys) - 1, len(keys) * level // 100)]],
            limits=[trips[min(len(trips) - 1, len(trips) * level // 100)]],
            limit_is="a bare request and answer through the same broker",
            aim=10.0 if level == 99 else None,
            better="lower",
        )
        for level in (50, 99)
    ]


async def _throughput(lab: RunningLab, board: Board, rounds: int, seconds: float) -> Figure:
    """Let a board talk as fast as 3 Mbaud allow; what a watcher has at the end counts."""
    got: list[float] = []
    async with at_console(lab, board) as channel:
        for _ in range(rounds):
            before, began = board.said, time.perf_counter()
            received = 0
            last = began
            async with asyncio.timeout(seconds + 40), asyncio.TaskGroup() as group:
                talk = group.create_task(_talk(board, MBAUD_BYTES_PER_S, seconds))
                while not talk.done() or received < board.said - before:
                    with suppress(TimeoutError):  # it may have said its last word already
                        async with asyncio.timeout(0.2):
                            received += len(await _next(channel))
                            last = time.perf_counter()
            got.append(received / max(last - began, seconds))
    return figure(
        "console_3mbaud",
        "bytes of a console at 3 Mbaud that a watcher gets, until he has all of them",
        "B/s",
        ours=got,
        limits=[float(MBAUD_BYTES_PER_S)] * rounds,
        limit_is="the line: 3 Mbaud, 8N1",
        aim=0.9,
        aim_is="ratio",
    )


async def _talk(board: Board, bytes_per_s: int, seconds: float) -> None:
    """Say lines at a speed, in steps of 2 ms or more."""
    began, before = time.perf_counter(), board.said
    while (now := time.perf_counter() - began) < seconds:
        owed = round(bytes_per_s * now) - (board.said - before)
        if owed > 0:
            board.say_on(owed)
        await asyncio.sleep(0.002)


async def _flood(lab: RunningLab, boards: list[Board], seconds: float) -> Figure:
    """Let all boards talk without end at 115200 baud; nobody watches, all is recorded."""
    before = [board.said for board in boards]
    began, used = time.perf_counter(), lab.measured.costs()["agent"].all_s
    while (now := time.perf_counter() - began) < seconds:
        for board, start in zip(boards, before, strict=True):
            owed = round(BYTES_PER_S * now) - (board.said - start)
            if owed > 0:
                board.say_on(owed)
        await asyncio.sleep(0.005)
    spent = (lab.measured.costs()["agent"].all_s - used) / (time.perf_counter() - began)
    lost = 0
    for board, start in zip(boards[2:], before[2:], strict=True):
        lost += board.said - start - await _recorded(lab, board, board.said - start)
    return figure(
        "console_flood_64",
        f"{CONSOLES} consoles at 115200 baud: the agent's share of a core, all of it recorded",
        "%",
        ours=[100 * spent],
        limits=[100.0],
        limit_is="one core",
        aim=15.0,
        better="lower",
        facts={"lost_bytes": float(lost)},
    )


async def _recorded(lab: RunningLab, board: Board, expected: int) -> int:
    """Return how many bytes of a board are in the record, once they are all there."""
    found = 0
    for _ in range(100):
        found, asked = 0, GetConsole(dut=board.name, since=1)
        while True:
            answer = await lab.client.console(asked)
            records = unpacked(answer.block) if answer.block else ()
            found += sum(len(each.data) for each in records if each.direction == "rx")
            if not answer.more:
                break
            asked = GetConsole(dut=board.name, since=1, cursor=answer.cursor)
        if found >= expected:
            break
        await asyncio.sleep(0.2)
    return found


async def _channels(lab: RunningLab, rounds: int, size: int) -> list[Figure]:
    """Send to an agent that sends it back: each byte crosses the broker twice."""
    found: list[Figure] = []
    for count in (1, 20):
        ours: list[float] = []
        bare: list[float] = []
        for _ in range(rounds):
            bare.append(await _bare(lab, size // 2))
            async with channels_of(lab.client) as channels:
                ours.append(await _echoed(channels, count, size // count))
        found.append(
            figure(
                f"channel_{count}",
                f"bytes to an agent and back over {count} channels at once, one way counted",
                "MB/s",
                ours=ours,
                limits=bare,
                limit_is="nats-py: messages of 64 KiB from one connection to another",
                aim=50.0,
            )
        )
    return found


async def _echoed(channels: Channels, count: int, size: int) -> float:
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(_echo_one(channels, size))
    return size * count / (time.perf_counter() - began) / 1e6


async def _echo_one(channels: Channels, size: int) -> None:
    async with channels.open(EchoWant(), agent="bench") as channel:
        async with asyncio.TaskGroup() as group:
            group.create_task(_send(channel, size))
            received = 0
            while (piece := await channel.read()) is not None:
                received += len(piece.data)
        assert received == size


async def _send(channel: Channel, size: int) -> None:
    data = bytes(256 << 10)
    for start in range(0, size, len(data)):
        await channel.write(data[: min(len(data), size - start)])
    await channel.finish()


async def _bare(lab: RunningLab, size: int) -> float:
    wire = await limits.Wire.open(lab.processes)
    try:
        return await wire.bytes_per_s(size) / 1e6
    finally:
        await wire.close()
