"""Files between a person and a DUT: a tar on the channel, a folder of ours between the two.

What was cut off is kept under a name that only the same lease finds again: to the end of that, and
for an hour at most where other copies are made.
"""

import asyncio
import hashlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from tshrag_agent.transport.base import DutTransport
from tshrag_common.channel.channel import Channel, ChannelClosed
from tshrag_common.channel.tars import MOST_BYTES, pack, received, sent, sum_of, unpack
from tshrag_common.channel.wants import FilePart, GetWant, PutWant
from tshrag_common.errors import ErrorReport, Refused, StaleFence, Unavailable
from tshrag_common.file_client import damaged
from tshrag_common.ids import Fence

COPY_S = 3600.0
KEPT_S, KEPT_MOST = 3600.0, 4
"""What was cut off is kept for so long, and no more than so many: each may have 8 GiB."""
_ROOMS_S = 24 * 3600.0
"""Rooms that an agent which was killed has left behind; none that is in use is as old."""
_READY_S = 120.0


class Files:
    """Copies to and from DUTs; what is on its way lies in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taking: dict[Path, tuple[Channel, asyncio.Lock]] = {}

    async def put(
        self, channel: Channel, transport: DutTransport, fence: Fence, want: PutWant
    ) -> int:
        """Take a tar of one entry and let that be the path on the DUT; return its bytes.

        Raises:
            Refused: it holds more, or something that is no file, or not what was sent.
            TransportFailed: it did not arrive.

        """
        async with self._room() as room, self._tar(channel, room, fence, want) as tar:
            if want.sha256:
                offset = max(0, await asyncio.to_thread(_size_of, tar))
                await channel.say(msgspec.json.encode(FilePart(offset=offset)))
            try:
                await received(channel, tar, MOST_BYTES)
                if want.sha256 and await asyncio.to_thread(sum_of, tar) != want.sha256:
                    raise damaged()
                entry, size = await asyncio.to_thread(unpack, tar, room / "in")
            except Refused as error:
                if not isinstance(
                    error, ChannelClosed
                ):  # it is wrong, and nobody may go on with it
                    tar.unlink()
                raise
            tar.unlink()
            await _take(transport, fence)
            await transport.upload(entry, want.path, timeout_s=COPY_S)
            return size

    async def get(
        self, channel: Channel, transport: DutTransport, fence: Fence, want: GetWant
    ) -> None:
        """Send a tar of a file or folder of the DUT, or the rest of one."""
        if want.sha256:
            tar = self._kept(fence, want.sha256)
            if want.offset > await asyncio.to_thread(_size_of, tar):
                what = "what was cut off is not here any more"
                raise Unavailable("transfer", what, "copy it again", code="transfer_gone")
            await self._hand_over(channel, tar, want.sha256, want.offset)
            return
        async with self._room() as room:
            target = room / (Path(want.path).name or "root")
            await _take(transport, fence)
            most_bytes = min(want.most_bytes, MOST_BYTES)
            await transport.download(want.path, target, most_bytes=most_bytes, timeout_s=COPY_S)
            tar = room / "out.tar"
            await asyncio.to_thread(pack, target, tar)
            if not want.parts:
                await sent(channel, tar)
                return
            digest = await asyncio.to_thread(sum_of, tar)
            tar = tar.replace(self._kept(fence, digest))
        await self._hand_over(channel, tar, digest, 0)

    async def _hand_over(self, channel: Channel, tar: Path, digest: str, offset: int) -> None:
        """Send it, and forget it when the other side has all of it."""
        total = await asyncio.to_thread(_size_of, tar)
        part = FilePart(offset=offset, total=total, sha256=digest)
        await channel.say(msgspec.json.encode(part))
        await sent(channel, tar, offset)
        await asyncio.to_thread(tar.unlink, missing_ok=True)

    @asynccontextmanager
    async def _tar(
        self, channel: Channel, room: Path, fence: Fence, want: PutWant
    ) -> AsyncIterator[Path]:
        """Yield where it is collected; who sends the same again takes it from the one before."""
        if not want.sha256:
            yield room / "in.tar"
            return
        tar = self._kept(fence, want.sha256 + want.path)
        before, lock = self._taking.get(tar, (None, asyncio.Lock()))
        if before is not None:
            what = "the same is being sent on another channel"
            before.close(ErrorReport(code="transfer_again", message=what))
        self._taking[tar] = channel, lock
        try:
            async with lock:
                yield tar
        finally:
            if self._taking[tar][0] is channel:
                del self._taking[tar]

    def _kept(self, fence: Fence, name: str) -> Path:
        return self._folder / f"{fence}-{hashlib.sha256(name.encode()).hexdigest()}.tar"

    def forget(self, fence: Fence) -> None:
        """Remove what was cut off under a lease that is over: nobody can go on with it. Blocks."""
        for old in self._folder.glob(f"{fence}-*.tar"):
            with suppress(OSError):
                old.unlink()

    @asynccontextmanager
    async def _room(self) -> AsyncIterator[Path]:
        room = await asyncio.to_thread(self._made)
        try:
            yield room
        finally:
            await asyncio.to_thread(shutil.rmtree, room, ignore_errors=True)

    def _made(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in self._folder.iterdir():
            with suppress(OSError):
                self._forget(old, time.time() - old.stat().st_mtime)
        with suppress(OSError):
            for old in self._cut_off()[:-KEPT_MOST]:
                old.unlink()
        return Path(tempfile.mkdtemp(dir=self._folder))

    def _cut_off(self) -> list[Path]:
        """Return what may be gone on with and is not, oldest first."""
        tars = [tar for tar in self._folder.glob("*.tar") if tar not in self._taking]
        return sorted(tars, key=lambda tar: tar.stat().st_mtime)

    def _forget(self, old: Path, age_s: float) -> None:
        """Remove what nobody comes back for."""
        if old.is_dir() and age_s > _ROOMS_S:
            shutil.rmtree(old)
        elif old.suffix == ".tar" and age_s > KEPT_S and old not in self._taking:
            old.unlink()


async def _take(transport: DutTransport, fence: Fence) -> None:
    """Show the fence to the DUT: an older holder is ended there, a newer one refuses us.

    An agent that has begun anew under the same lease finds its own fence there.
    """
    try:
        done = await transport.execute(
            ("true",), env={}, cwd="/", timeout_s=_READY_S, fence=fence, on_output=_ignore
        )
    except StaleFence as error:
        if error.newest != fence:
            raise
        return
    if not done.succeeded:
        raise Refused("dut", f"it does not work: {done.said}", code="transfer_failed")


def _size_of(path: Path) -> int:
    """Return the bytes of a file; -1: there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _ignore(_stream: object, _data: bytes) -> None:
    """Let output go."""
