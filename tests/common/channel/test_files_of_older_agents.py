"""Copies to and from an agent that knows nothing of copies that go on: an error, not a hang."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from tests.common.channel.test_channel import gather_all, two_ends, write_all
from tshrag_common import file_client
from tshrag_common.channel import hub
from tshrag_common.channel.channel import Channel
from tshrag_common.channel.opening import Channels
from tshrag_common.errors import Refused


class Opened:
    """As much of `Channels` as a copy needs: a channel that is there, again and again."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.times = 0

    @asynccontextmanager
    async def open(self, want: object, **_more: Any) -> AsyncIterator[Channel]:
        self.times += 1
        yield self._channel


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    return path


async def test_a_put_says_that_the_agent_is_older(
    nats_url: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "ASK_S", 0.1)
    monkeypatch.setattr(file_client, "LOOK_S", 0.5)
    async with two_ends(nats_url, nats_url) as ends:
        mine, theirs = await ends.pair()
        opened = Opened(mine)
        waiting = asyncio.create_task(gather_all(theirs))  # it waits for the tar
        put = file_client.put(cast(Channels, opened), "b", file, "/x", print)
        with pytest.raises(Refused, match="older than this client; upgrade tshrag-agent") as caught:
            await asyncio.wait_for(put, 40)
        assert (caught.value.code, opened.times) == ("agent_older", 1)
        waiting.cancel()


async def test_an_agent_that_takes_its_time_is_not_an_older_one(
    nats_url: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_client, "LOOK_S", 0.05)  # and asked for a sign after 3 s
    async with two_ends(nats_url, nats_url) as ends:
        mine, theirs = await ends.pair()
        put = asyncio.create_task(
            file_client.put(cast(Channels, Opened(mine)), "b", file, "/x", print)
        )
        done, _ = await asyncio.wait({put}, timeout=1.0)
        assert not done
        await theirs.say(b'{"offset":0}')
        assert len(await asyncio.wait_for(gather_all(theirs), 40)) > 1000
        await theirs.say(b'{"note":"1000 bytes"}')
        assert await asyncio.wait_for(put, 40) == "1000 bytes"


async def test_a_get_says_that_the_agent_is_older(nats_url: str, tmp_path: Path) -> None:
    async with two_ends(nats_url, nats_url) as ends:
        mine, theirs = await ends.pair()
        opened = Opened(mine)
        sending = asyncio.create_task(write_all(theirs, b"a tar"))
        get = file_client.get(cast(Channels, opened), "b", "/x", tmp_path / "here", print)
        with pytest.raises(Refused, match="older than this client"):
            await asyncio.wait_for(get, 40)
        assert opened.times == 1
        assert not (tmp_path / "here").exists()
        await sending
