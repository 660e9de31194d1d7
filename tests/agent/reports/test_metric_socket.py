import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from tests.support.waiting import wait_until
from tshrag_agent.attempts.metric_gate import MetricGate
from tshrag_agent.journal.pressure import Pressure
from tshrag_agent.reports.metric_socket import (
    DATAGRAM_BYTES,
    MAX_CONNECTIONS,
    STREAM,
    MetricSocket,
)
from tshrag_agent.reports.metric_sockets import MetricSockets
from tshrag_common.clock import SystemClock
from tshrag_common.errors import Refused

CALM = Pressure(lambda: 0)


class Heard:
    """A gate, and what went through it."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, float]] = []
        self.gate = MetricGate(lambda info, at, value, span: self.taken.append((info.key, value)))


@asynccontextmanager
async def listening(folder: Path, heard: Heard) -> AsyncIterator[MetricSocket]:
    opened = MetricSocket(folder, heard.gate, SystemClock(), CALM)
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close(0.1)


def send(path: Path, *packets: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
        client.connect(os.fspath(path))
        for packet in packets:
            client.send(packet)


def stream_of(opened: MetricSocket) -> str:
    return os.fspath(opened.path) + STREAM


async def test_datagrams_are_samples(tmp_path: Path) -> None:
    heard = Heard()
    async with listening(tmp_path, heard) as opened:
        send(opened.path, b"hits:1|c\nhits:2|c", b"::metric a::b 5ms", b"cpu used=1.5", b"junk")
        await wait_until(lambda: len(heard.taken) == 4)
    assert heard.taken == [("hits", 1.0), ("hits", 3.0), ("a.b", 0.005), ("cpu.used", 1.5)]
    assert heard.gate.refused == 1


async def test_lines_of_a_stream_are_samples_however_they_are_cut(tmp_path: Path) -> None:
    heard = Heard()
    async with listening(tmp_path, heard) as opened:
        _, writer = await asyncio.open_unix_connection(stream_of(opened))
        for byte in b"a:1|g\r\n::metric b 2\n\n" + b"x" * 20_000 + b"\nc:3|g":
            writer.write(bytes([byte]))
        writer.close()
        await wait_until(lambda: len(heard.taken) == 3)
    assert heard.taken == [("a", 1.0), ("b", 2.0), ("c", 3.0)]
    (notice,) = heard.gate.notices()
    assert (notice.count, notice.reason) == (1, "metric_line: longer than 16384 bytes")


def test_streams_are_read_on_the_loop_of_the_agent_too(tmp_path: Path) -> None:
    """The transports of uvloop are no subclasses of those of asyncio."""
    heard = Heard()

    async def life() -> None:
        async with listening(tmp_path, heard) as opened:
            _, writer = await asyncio.open_unix_connection(stream_of(opened))
            writer.write(b"a:1|g\n")
            await wait_until(lambda: heard.taken)
            writer.close()

    uvloop.run(life())
    assert heard.taken == [("a", 1.0)]


async def test_what_was_sent_before_the_end_is_taken(tmp_path: Path) -> None:
    heard = Heard()
    opened = MetricSocket(tmp_path, heard.gate, SystemClock(), CALM)
    await opened.open()
    send(opened.path, *(b"n:%d|g" % n for n in range(8)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(stream_of(opened))
        client.send(b"s:1|g\n")
    await opened.close()
    assert sorted(heard.taken) == [*(("n", float(n)) for n in range(8)), ("s", 1.0)]


async def test_sockets_are_private_and_gone_afterwards(tmp_path: Path) -> None:
    (tmp_path / "metrics.sock").write_text("left by an agent that was killed")
    async with listening(tmp_path, Heard()) as opened:
        for path in (opened.path, Path(stream_of(opened))):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - pathlib is flagged in async tests
    await opened.close()  # a second time does nothing


async def test_a_deep_job_directory_gets_its_sockets_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    heard = Heard()
    async with listening(deep, heard) as opened:
        assert len(os.fsencode(stream_of(opened))) <= 107
        assert opened.path.parent != deep
        send(opened.path, b"a:1|g")
        await wait_until(lambda: heard.taken)
    assert not opened.path.parent.exists()


async def test_connections_are_bounded(tmp_path: Path) -> None:
    heard = Heard()
    async with listening(tmp_path, heard) as opened:
        writers = []
        for _ in range(MAX_CONNECTIONS + 1):
            _, writer = await asyncio.open_unix_connection(stream_of(opened))
            writers.append(writer)
        await wait_until(lambda: heard.gate.refused == 1)
        for writer in writers:
            writer.close()


async def test_a_datagram_that_is_too_long_is_counted(tmp_path: Path) -> None:
    heard = Heard()
    async with listening(tmp_path, heard) as opened:
        send(opened.path, b"a:1|g\n" * (DATAGRAM_BYTES // 6 + 10), b"b:2|g")
        await wait_until(lambda: heard.taken)
    assert heard.taken == [("b", 2.0)]
    assert heard.gate.refused == 1


async def test_a_sender_that_is_faster_waits_and_loses_nothing(tmp_path: Path) -> None:
    heard = Heard()
    async with listening(tmp_path, heard) as opened:

        def flood() -> None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
                client.connect(os.fspath(opened.path))
                for n in range(5000):
                    client.send(b"n:%d|g" % n)

        await asyncio.to_thread(flood)
        await wait_until(lambda: len(heard.taken) == 5000)
    assert heard.taken == [("n", float(n)) for n in range(5000)]


async def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no metrics socket"):
        await MetricSocket(tmp_path / "gone", Heard().gate, SystemClock(), CALM).open()


async def test_a_pair_that_is_still_lent_is_let_go_and_found_again(tmp_path: Path) -> None:
    """An agent that ended beside a living job left both sockets open to the garbage collector."""
    job, heard = tmp_path / "job", Heard()
    job.mkdir()
    first = MetricSockets(tmp_path / "sockets", SystemClock(), CALM)
    path, pair = await first.lend(job, heard.gate)
    assert pair is not None
    await first.close()
    assert pair._datagrams is None and pair._server is None
    with pytest.raises(ConnectionRefusedError):
        send(Path(path), b"hits:1|c")

    second = MetricSockets(tmp_path / "sockets", SystemClock(), CALM)
    again, pair = await second.lend(job, heard.gate)
    assert again == path and pair is not None
    send(Path(path), b"hits:1|c")
    await wait_until(lambda: heard.taken == [("hits", 1.0)])
    await second.give_back(pair)
    await second.close()
