"""Files between a person and a DUT: a tar on the channel, a folder of ours between the two."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tshrag_agent.transport.base import DutTransport
from tshrag_common.channel.channel import Channel
from tshrag_common.channel.tars import MOST_BYTES, pack, received, sent, unpack
from tshrag_common.channel.wants import GetWant
from tshrag_common.errors import Refused
from tshrag_common.ids import Fence

COPY_S = 3600.0
_READY_S = 120.0


class Files:
    """Copies to and from DUTs; what is on its way lies in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, channel: Channel, transport: DutTransport, fence: Fence, path: str) -> int:
        """Take a tar of one entry and let that be `path` on the DUT; return its bytes.

        Raises:
            Refused: it holds more, or something that is no file.
            TransportFailed: it did not arrive.

        """
        async with self._room() as room:
            tar = room / "in.tar"
            await received(channel, tar, MOST_BYTES)
            entry, size = await asyncio.to_thread(unpack, tar, room / "in")
            await _take(transport, fence)
            await transport.upload(entry, path, timeout_s=COPY_S)
            return size

    async def get(
        self, channel: Channel, transport: DutTransport, fence: Fence, want: GetWant
    ) -> None:
        """Send a tar of a file or folder of the DUT."""
        async with self._room() as room:
            target = room / (Path(want.path).name or "root")
            await _take(transport, fence)
            most_bytes = min(want.most_bytes, MOST_BYTES)
            await transport.download(want.path, target, most_bytes=most_bytes, timeout_s=COPY_S)
            tar = room / "out.tar"
            await asyncio.to_thread(pack, target, tar)
            await sent(channel, tar)

    @asynccontextmanager
    async def _room(self) -> AsyncIterator[Path]:
        room = await asyncio.to_thread(self._made)
        try:
            yield room
        finally:
            await asyncio.to_thread(shutil.rmtree, room, ignore_errors=True)

    def _made(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Path(tempfile.mkdtemp(dir=self._folder))


async def _take(transport: DutTransport, fence: Fence) -> None:
    """Show the fence to the DUT: an older holder is ended there, a newer one refuses us."""
    done = await transport.execute(
        ("true",), env={}, cwd="/", timeout_s=_READY_S, fence=fence, on_output=_ignore
    )
    if not done.succeeded:
        raise Refused("dut", f"it does not work: {done.said}", code="transfer_failed")


def _ignore(_stream: object, _data: bytes) -> None:
    """Let output go."""
