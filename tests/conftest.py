"""What all tests share: one real nats-server a test process."""

from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from tests.support.nats_server import NatsServer
from tshrag_common.bus.connection import connect


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Give the plain server that all tests of this process share; take `nats_url` instead."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def nats_url(nats_server: NatsServer) -> AsyncIterator[str]:
    """Give the URL of a plain server that holds no stream."""
    bus = await connect(nats_server.url, name="wiper", within_s=10)
    answer = await bus.request("$JS.API.STREAM.NAMES", b"", 5)
    names = msgspec.json.decode(answer.data).get("streams") or []
    for name in names:
        await bus.request(f"$JS.API.STREAM.DELETE.{name}", b"", 5)
    await bus.close()
    yield nats_server.url
