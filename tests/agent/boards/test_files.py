"""What is kept of a copy that was cut off, and for whom."""

import asyncio
import hashlib
import os
from pathlib import Path
from typing import cast

from tests.common.channel.test_channel import two_ends
from tests.support.waiting import wait_until
from tshrag_agent.boards.files import KEPT_MOST, Files
from tshrag_agent.transport.base import DutTransport
from tshrag_common.channel.wants import PutWant
from tshrag_common.ids import Fence

WANT = PutWant(path="/tmp/x", sha256=hashlib.sha256(b"a tar").hexdigest())
NO_DUT = cast(DutTransport, None)
"""Nothing reaches the DUT before all of a tar is there."""


def kept_in(folder: Path) -> set[Path]:
    return set(folder.glob("*.tar"))


async def cut_off(nats_url: str, files: Files, folder: Path, fence: Fence) -> Path:
    """Put a part of a tar, and go; return what is kept of it."""
    before = kept_in(folder)
    async with two_ends(nats_url, nats_url) as ends:
        mine, theirs = await ends.pair()
        putting = asyncio.create_task(files.put(theirs, NO_DUT, fence, WANT))
        await mine.write(b"a ")
        await wait_until(lambda: kept_in(folder) - before, 20)
        await mine.flushed()
        putting.cancel()  # as the server does when the channel is over
        await asyncio.wait({putting}, timeout=20)
    (kept,) = kept_in(folder) - before
    return kept


async def test_what_was_cut_off_goes_with_its_lease_and_no_other_one(
    nats_url: str, tmp_path: Path
) -> None:
    files = Files(tmp_path)
    first = await cut_off(nats_url, files, tmp_path, Fence(1))
    other = await cut_off(nats_url, files, tmp_path, Fence(11))
    files.forget(Fence(1))
    assert (first.exists(), other.exists()) == (False, True)


async def test_no_more_than_some_are_kept_the_newest_ones(nats_url: str, tmp_path: Path) -> None:
    files = Files(tmp_path)
    old = [tmp_path / f"{number}-old.tar" for number in range(KEPT_MOST + 2)]
    for age, path in enumerate(reversed(old)):
        path.write_bytes(b"")
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 1 - age))
    await cut_off(nats_url, files, tmp_path, Fence(99))
    assert [path for path in old if path.exists()] == old[2:]
