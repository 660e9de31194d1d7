"""A full disk under our own nats-server: shown, waited out, and over when there is room again."""

import asyncio
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from tshrag_common.bus.connection import connect
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.errors import Unavailable
from tshrag_common.streams import StreamConfig
from tshrag_controller.nats_server.config import ServerConfig
from tshrag_controller.nats_server.process import NatsServer, start_or_adopt

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

THINGS = StreamConfig(name="THINGS", subjects=("things",), max_bytes=1 << 30)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ("mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder))
    subprocess.run(command, check=True)
    yield folder
    subprocess.run(("umount", "-l", str(folder)), check=True)


@pytest.fixture
async def server(small_disk: Path) -> AsyncIterator[NatsServer]:
    server = await start_or_adopt(ServerConfig(state=str(small_disk)), None)
    yield server
    await server.stop()


async def test_a_full_disk_is_shown_and_recovered_from(
    server: NatsServer, small_disk: Path
) -> None:
    bus = await connect(server.url, name="tests", within_s=10)
    stream = JetStream(bus, timeout_s=1.0)
    await stream.ensure_stream(THINGS)
    stored = 0
    filler = small_disk / "filler"
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(server.watch())
        filler.write_bytes(bytes(20 << 20))
        with pytest.raises(Unavailable):
            while True:
                await stream.publish("things", secrets.token_bytes(1 << 19), {})
                stored += 1
        await wait_until(lambda: server.trouble.startswith("storage_full"), 40)
        first = server.pid
        filler.unlink()
        await wait_until(lambda: server.pid != first and not server.trouble, 60)
        info = await _patiently(stream)
        assert info >= stored
        await stream.publish("things", b"goes on", {}, timeout_s=20.0)
        watching.cancel()
    await bus.close()


async def _patiently(stream: JetStream) -> int:
    """Return how many messages there are, once the server answers."""
    while True:
        try:
            return (await stream.stream_info("THINGS")).messages
        except Unavailable:
            await asyncio.sleep(0.2)
