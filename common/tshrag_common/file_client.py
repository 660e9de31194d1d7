"""Files to and from a board: their sum is seen at the end; one that was cut off goes on.

The agent keeps what was on its way for an hour, for the same lease: a put goes on also when the
client begins anew, a get as long as the client lives.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from tshrag_common.channel.channel import Channel, ChannelLost
from tshrag_common.channel.opening import Channels
from tshrag_common.channel.tars import MOST_BYTES, pack, received, sent, sum_of, unpack
from tshrag_common.channel.wants import BoardWord, FilePart, GetWant, PutWant
from tshrag_common.errors import LabError, Refused, Unavailable

T = TypeVar("T")
Show = Callable[[str, int, int], object]
"""Told what is being done, how much of it is, of how much; 0: nobody knows."""

LOOK_S, _LOOKS = 5.0, 3
"""An agent that is there so long, and says not from where a put goes on, is an older one."""
_AGAIN_MOST, _AGAIN_S = 5, 2.0
_PASSING = (ChannelLost.code, "agent_away", "transfer_gone")
_PART = msgspec.json.Decoder(FilePart)
_WORD = msgspec.json.Decoder(BoardWord)


async def put(channels: Channels, dut: str, source: Path, path: str, show: Show) -> str:
    """Copy a file or folder to `path` on a board; return how much it was, in words."""
    with tempfile.TemporaryDirectory(prefix="tshrag-put-") as room:
        tar = Path(room) / "out.tar"
        show("packing", 0, 0)
        await asyncio.to_thread(pack, source, tar)
        want = PutWant(path=path, sha256=await asyncio.to_thread(sum_of, tar))
        total = tar.stat().st_size

        async def once() -> str:
            async with channels.open(want, dut=dut, write=True) as channel:
                part = await _from_where(channel)
                await sent(channel, tar, part.offset, lambda done: show("sending", done, total))
                show(f"writing on {dut}", 0, 0)
                return _WORD.decode(await word_of(channel)).note

        return await _patiently(once, show)


async def get(channels: Channels, dut: str, path: str, target: Path, show: Show) -> int:
    """Copy a file or folder of a board to `target`, which must not be there; return its bytes."""
    with tempfile.TemporaryDirectory(prefix=".tshrag-get-", dir=target.parent) as room:
        tar = Path(room) / "in.tar"
        part = FilePart()

        async def once() -> None:
            nonlocal part
            offset = tar.stat().st_size if part.sha256 else 0
            want = GetWant(path=path, parts=True, sha256=part.sha256, offset=offset)
            part = FilePart()  # where the agent has it no more, all of it is fetched again
            show(f"reading from {dut}", 0, 0)
            async with channels.open(want, dut=dut, write=True) as channel:
                await channel.finish()
                part = await _first_word(channel)
                if not part.offset:
                    tar.unlink(missing_ok=True)
                total = part.total
                await received(
                    channel, tar, MOST_BYTES, lambda done: show("receiving", done, total)
                )

        await _patiently(once, show)
        if await asyncio.to_thread(sum_of, tar) != part.sha256:
            raise damaged()
        entry, size = await asyncio.to_thread(unpack, tar, Path(room) / "in")
        await asyncio.to_thread(entry.rename, target)
        return size


def damaged() -> Refused:
    what = "what has arrived is not what was sent"
    return Refused("transfer", what, "copy it again", code="transfer_damaged")


async def _from_where(channel: Channel) -> FilePart:
    """Return from where a put goes on; an older agent awaits the tar, as we await its word.

    One that is silent altogether may come back, or is lost: the channel tells.
    """
    looks = 0
    while looks < _LOOKS:
        heard_at = channel.heard_at
        try:
            async with asyncio.timeout(LOOK_S):
                return await _first_word(channel)
        except TimeoutError:
            looks = looks + 1 if channel.heard_at > heard_at else 0
    raise _older(channel)


async def _first_word(channel: Channel) -> FilePart:
    """Return the word before a tar; an older agent sends the tar without one."""
    piece = await channel.read()
    if piece is None:
        raise _nothing_said(channel)
    if piece.kind == "data":
        raise _older(channel)
    return _PART.decode(piece.data)


def _older(channel: Channel) -> Refused:
    what = "it does not know of copies that go on: it is older than this client"
    return Refused(channel.peer, what, "upgrade tshrag-agent there", code="agent_older")


def _nothing_said(channel: Channel) -> Unavailable:
    return Unavailable(channel.name, "the agent has not said what came of it", code="channel_lost")


async def word_of(channel: Channel) -> bytes:
    """Return the word that comes; bytes before it are nobody's."""
    while (piece := await channel.read()) is not None:
        if piece.kind == "word":
            return piece.data
    raise _nothing_said(channel)


async def _patiently(once: Callable[[], Awaitable[T]], show: Show) -> T:
    """Do it again where only the way was lost."""
    for left in reversed(range(_AGAIN_MOST)):
        try:
            return await once()
        except LabError as error:
            if error.code not in _PASSING or not left:
                raise
        show("the way was lost; trying again", 0, 0)
        await asyncio.sleep(_AGAIN_S)
    raise AssertionError("the last try returns or raises")
