"""An agent's other end: a plain nats-server, and a leader that a test speaks for."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.leader import Leader
from tests.support.nats_server import NatsServer
from tshrag_common.labkeys import LabKeys, new_lab


@pytest.fixture(scope="module")
def keys() -> LabKeys:
    return new_lab()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


@pytest.fixture
async def leader(server: NatsServer, keys: LabKeys) -> AsyncIterator[Leader]:
    leader = await Leader.begin(server, keys)
    yield leader
    await leader.bus.close()
