"""What a person does with a board from afar, over channels: power, boot, ports, files.

async with boards_of(lab) as boards:
    await boards.power("pi-7", "cycle")
    await boards.boot("pi-7", "shell", print)
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Literal

import msgspec

from tshrag_common import file_client
from tshrag_common.asking import Asking
from tshrag_common.channel.channel import Channel
from tshrag_common.channel.opening import Channels, channels_of
from tshrag_common.channel.wants import (
    BoardWord,
    BootWant,
    ForwardWant,
    PowerWant,
    SshFacts,
    SshFactsWant,
)
from tshrag_common.errors import Unavailable
from tshrag_common.file_client import Show

PowerWord = Literal["on", "off", "cycle", "status", "read"]
Via = Literal["auto", "tcp", "ssh"]

_WORD = msgspec.json.Decoder(BoardWord)
_FACTS = msgspec.json.Decoder(SshFacts)


def _ignore_step(_what: str, _done: int, _total: int) -> None:
    """Show nothing."""


class BoardClient:
    """The boards of a lab; each change takes their lease."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def power(self, dut: str, what: PowerWord) -> BoardWord:
        """Switch, or ask; return whether it is on, off or unknown afterwards, and its count."""
        changes = what not in ("status", "read")
        async with self._channels.open(PowerWant(what=what), dut=dut, write=changes) as channel:
            return await _last_word(channel, _ignore)

    async def boot(
        self, dut: str, to: str, hear: Callable[[bytes], None], *, fresh: bool = False
    ) -> tuple[str, ...]:
        """Bring it to a state, hear its console meanwhile; return the states it went through."""
        want = BootWant(to=to, fresh=fresh)
        async with self._channels.open(want, dut=dut, write=True) as channel:
            return (await _last_word(channel, hear)).states

    def forward(
        self, dut: str, port: int, via: Via = "auto"
    ) -> AbstractAsyncContextManager[Channel]:
        """Open a connection to a port of the DUT; it is one when the block begins."""
        return self._channels.open(ForwardWant(port=port, via=via), dut=dut, write=True)

    async def ssh_facts(self, dut: str) -> SshFacts:
        """Return who to log in as, and the host keys that are pinned."""
        async with self._channels.open(SshFactsWant(), dut=dut) as channel:
            return _FACTS.decode(await _word(channel, _ignore))

    async def put(self, dut: str, source: Path, path: str, show: Show = _ignore_step) -> str:
        """Copy a file or folder to `path` there; return how much it was, in words."""
        return await file_client.put(self._channels, dut, source, path, show)

    async def get(self, dut: str, path: str, target: Path, show: Show = _ignore_step) -> int:
        """Copy a file or folder of the DUT to `target`, which must not be there; return bytes."""
        return await file_client.get(self._channels, dut, path, target, show)


@asynccontextmanager
async def boards_of(lab: Asking) -> AsyncIterator[BoardClient]:
    async with channels_of(lab) as channels:
        yield BoardClient(channels)


async def _last_word(channel: Channel, hear: Callable[[bytes], None]) -> BoardWord:
    return _WORD.decode(await _word(channel, hear))


async def _word(channel: Channel, hear: Callable[[bytes], None]) -> bytes:
    """Return the word that comes; hand on the bytes before it."""
    while (piece := await channel.read()) is not None:
        if piece.kind == "word":
            return piece.data
        hear(piece.data)
    raise Unavailable(channel.name, "the agent has not said what came of it", code="channel_lost")


def _ignore(_data: bytes) -> None:
    """Let it go."""
