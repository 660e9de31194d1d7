"""A file or folder as a tar on a channel; what comes in is hostile until it was unpacked."""

import asyncio
import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path

from tshrag_common.channel.channel import Channel
from tshrag_common.errors import Refused, shown

MOST_BYTES = 8 << 30
MOST_ENTRIES = 200_000
_READ_BYTES = 1 << 20


Hear = Callable[[int], object]
"""Told how many bytes of the whole are there."""


async def received(channel: Channel, target: Path, most_bytes: int, hear: Hear = int) -> None:
    """Add what comes to what `target` has, up to the end of what the other side says.

    Raises:
        Refused: it is more than `most_bytes` (``too_large``).

    """
    with await asyncio.to_thread(target.open, "ab") as file:
        size = file.tell()
        while (piece := await channel.read()) is not None:
            if piece.kind != "data":
                continue
            size += len(piece.data)
            if size > most_bytes:
                raise Refused("transfer", f"more than {most_bytes} bytes", code="too_large")
            await asyncio.to_thread(file.write, piece.data)
            hear(size)


async def sent(channel: Channel, source: Path, offset: int = 0, hear: Hear = int) -> None:
    """Send a file from `offset` on, and its end; return when the other side has it."""
    with await asyncio.to_thread(source.open, "rb") as file:
        await asyncio.to_thread(file.seek, offset)
        while data := await asyncio.to_thread(file.read, _READ_BYTES):
            await channel.write(data)
            hear(file.tell())
    await channel.finish()
    await channel.flushed()


def sum_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pack(source: Path, target: Path) -> None:
    """Make a tar with one entry at its top: `source`. Owners stay behind.

    Raises:
        Refused: it cannot be read, or holds a link, a device or the like (``file``).

    """
    try:
        with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
            tar.add(source, arcname=source.name, filter=_nobodys)
    except OSError as error:
        what = error.strerror or str(error)
        where = str(error.filename or source)
        raise Refused(where, what.lower(), "see its rights, and the space", code="file") from None


def unpack(tar: Path, folder: Path) -> tuple[Path, int]:
    """Unpack into `folder`, which is made; return the one entry at the top and all bytes.

    Raises:
        Refused: it is no tar, leads out of the folder, holds a device, or not exactly one entry.

    """
    folder.mkdir(parents=True)
    size = count = 0
    try:
        with tarfile.open(tar) as packed:
            for member in packed:
                count, size = count + 1, size + member.size
                if count > MOST_ENTRIES or size > MOST_BYTES:
                    raise Refused("transfer", "it holds too much", code="too_large")
                packed.extract(member, folder, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise Refused("transfer", f"not unpacked: {shown(str(error), 200)}", code="tar") from None
    entries = list(folder.iterdir())
    if len(entries) != 1:
        raise Refused("transfer", f"one file or folder is awaited, not {len(entries)}", code="tar")
    return entries[0], size


def _nobodys(info: tarfile.TarInfo) -> tarfile.TarInfo:
    if not (info.isreg() or info.isdir() or info.islnk()):
        what = "it is neither a file nor a folder"
        raise Refused(shown(info.name), what, "copy what it leads to, or leave it out", code="file")
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info
