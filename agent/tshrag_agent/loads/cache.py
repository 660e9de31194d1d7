"""Loads on this host, packed, by their sha256: fetched once, checked at every start, bounded.

What is kept is the packed file, not a tree: nothing ever executes from the cache, and a job gets
a tree of its own, unpacked in the same pass that hashes the bytes. So what starts is what was
asked for, to the last byte, each time; and no job can change what the next one gets.
"""

import errno
import hashlib
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from tshrag_agent.loads.fetch import checked_name, fetch
from tshrag_common.errors import Refused, StorageFull
from tshrag_common.sources.chunks import GetChunk
from tshrag_common.sources.faults import DigestMismatch, SourceNotFound
from tshrag_common.sources.policy import SourceLimits
from tshrag_common.sources.threads import Check, Locks, in_thread
from tshrag_common.sources.tree import Budget, TreeWriter, parts_of, size_text
from tshrag_common.sources.unpack import untar

logger = logging.getLogger(__name__)

TREE = "load"
LOAD_BIN = "load_bin"
_READ_BYTES = 1 << 18


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A load in a job's directory: its own tree, and ``load_bin`` that leads to the entry."""

    tree: Path
    entry: Path | None
    load_bin: Path | None


class _Kept(msgspec.Struct):
    """A file of the cache; `used` only grows."""

    size: int
    used: int


class LoadCache:
    """One folder (``TSHRAG_CACHE``/loads), one owner: this agent. Open it before anything else."""

    def __init__(
        self,
        folder: Path,
        get_chunk: GetChunk,
        *,
        max_bytes: int,
        limits: SourceLimits | None = None,
    ) -> None:
        self._folder, self._get_chunk, self._max_bytes = folder, get_chunk, max_bytes
        self._limits = limits or SourceLimits()
        self._locks = Locks()
        self._pins = Counter[str]()
        self._kept: dict[str, _Kept] = {}  # by name of file: whole loads and parts
        self._uses = 0

    @property
    def size_bytes(self) -> int:
        return sum(kept.size for kept in self._kept.values())

    def holds(self, digest: str) -> bool:
        """Tell whether `digest` is here; it is checked when it is prepared, not now."""
        return checked_name(digest) in self._kept

    async def open(self) -> None:
        """Learn what an earlier process has left: loads, and parts to go on with."""
        for name, size in await in_thread(lambda _: _listed(self._folder)):
            self._note(name, size)

    @contextmanager
    def pinned(self, digest: str) -> Iterator[None]:
        """Keep `digest` from being evicted."""
        self._pins[digest] += 1
        try:
            yield
        finally:
            self._pins[digest] -= 1
            if not self._pins[digest]:
                del self._pins[digest]

    async def ensure(self, digest: str, size_bytes: int = 0) -> None:
        """Have `digest` here. Who asks at the same time for the same waits for the one fetch.

        `size_bytes` of its LoadRef makes room before, not after.

        Raises:
            DigestMismatch, ArchiveLimit, Unavailable: as of ``fetch``.
            StorageFull: it is larger than the cache, or everything else is in use.

        """
        name = checked_name(digest)
        with self.pinned(digest):
            async with self._locks.of(digest):
                if name not in self._kept:
                    await self._fetch(digest, name, size_bytes)

    async def prepare(
        self, digest: str, into: Path, entry: str = "", size_bytes: int = 0
    ) -> Prepared:
        """Put the load into ``into/load``, fetched if need be, checked in any case.

        ``into/load_bin`` is a link to `entry` of that tree, which becomes executable. A tree that
        an earlier try has left is replaced. A file that is damaged on the disk is fetched again.

        Raises:
            DigestMismatch: it is damaged still; nothing is left in `into`.
            SourceNotFound: the load has no such entry.
            Refused, Unavailable: as of ``ensure``.

        """
        name = checked_name(digest)
        with self.pinned(digest):
            for is_last in (False, True):
                await self.ensure(digest, size_bytes)
                try:
                    return await self._place(digest, into, entry)
                except (DigestMismatch, FileNotFoundError):
                    if is_last:
                        raise
                    logger.warning("load damaged in the cache", extra={"digest": digest})
                    async with self._locks.of(digest):
                        await self._drop(name)
        raise AssertionError("the loop returns or raises")

    async def _place(self, digest: str, into: Path, entry: str) -> Prepared:
        name = checked_name(digest)
        self._note(name)
        path, limits = self._folder / name, self._limits
        try:
            return await in_thread(lambda check: _placed(path, digest, into, entry, limits, check))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StorageFull("jobs", f"no room to unpack load {digest[:12]}") from None

    async def _fetch(self, digest: str, name: str, size_bytes: int) -> None:
        part = name + ".part"
        if size_bytes > self._max_bytes:
            said = f"load {digest[:12]} > {size_text(self._max_bytes)}"
            raise StorageFull("cache", said, "raise its max_bytes")

        async def counted(digest: str, offset: int) -> bytes:
            chunk = await self._get_chunk(digest, offset)
            self._note(part, max(size_bytes, offset + len(chunk)))
            return chunk

        await self._make_room(size_bytes - self._size(part))
        self._note(part, max(size_bytes, self._size(part)))  # the room is ours from here on
        limit = min(self._max_bytes, self._limits.packed_bytes)
        path = self._folder / name
        size = await fetch(digest, path, counted, size_bytes=size_bytes, limit_bytes=limit)
        self._kept.pop(part, None)
        self._note(name, size)
        await self._make_room(0)

    async def _make_room(self, wanted: int) -> None:
        """Remove what was used longest ago and is not pinned, until `wanted` bytes fit."""
        while self.size_bytes + wanted > self._max_bytes:
            free = [name for name in self._kept if not self._pins[_digest_in(name)]]
            if not free:
                said = f"{size_text(self._max_bytes)} of loads are all in use"
                raise StorageFull("cache", said, "raise its max_bytes")
            name = min(free, key=lambda name: self._kept[name].used)
            # Nobody holds the lock of what is not pinned, so this does not wait; it keeps
            # whoever asks for the same load now away until the file is gone.
            async with self._locks.of(_digest_in(name)):
                await self._drop(name)

    async def _drop(self, name: str) -> None:
        self._kept.pop(name, None)
        await in_thread(lambda _: (self._folder / name).unlink(missing_ok=True))

    def _note(self, name: str, size: int | None = None) -> None:
        """Mark a file as used now, and as here when its size is given."""
        self._uses += 1
        if name in self._kept:
            self._kept[name].used = self._uses
        if size is not None:
            self._kept[name] = _Kept(size, self._uses)

    def _size(self, name: str) -> int:
        return self._kept[name].size if name in self._kept else 0


class _Hashing:
    """Reads for the unpacker and hashes what it reads."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._sha256 = file, hashlib.sha256()

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        self._sha256.update(data)
        return data

    def finish(self, check: Check) -> str:
        """Read the rest; return the digest of everything."""
        while self.read(_READ_BYTES):
            check()
        return self._sha256.hexdigest()


def _placed(
    path: Path, digest: str, into: Path, entry: str, limits: SourceLimits, check: Check
) -> Prepared:
    """Unpack and check in one pass, then give the tree its name."""
    into.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".load-", dir=into))
    try:
        _unpack_checked(path, digest, aside / TREE, limits, check)
        found = _made_executable(aside / TREE, entry) if entry else None
        shutil.rmtree(into / TREE, ignore_errors=True)
        (aside / TREE).rename(into / TREE)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    os.utime(path)  # for the order of eviction after a restart
    if found is None:
        return Prepared(tree=into / TREE, entry=None, load_bin=None)
    load_bin = into / LOAD_BIN
    load_bin.unlink(missing_ok=True)
    load_bin.symlink_to(Path(TREE, found))
    return Prepared(tree=into / TREE, entry=into / TREE / found, load_bin=load_bin)


def _unpack_checked(
    path: Path, digest: str, tree: Path, limits: SourceLimits, check: Check
) -> None:
    budget, fault = Budget(limits, check), None
    with path.open("rb") as file, TreeWriter(tree, budget) as writer:
        hashing = _Hashing(file)
        try:
            untar(hashing, writer, budget)
        except Refused as refused:
            fault = refused  # perhaps only because the bytes are not those that we want
        got = hashing.finish(check)
    if got != digest:
        raise DigestMismatch(digest, got)
    if fault is not None:
        raise fault


def _made_executable(tree: Path, entry: str) -> Path:
    """Return where `entry` is in the tree, now executable. The tree holds no links."""
    found = Path(*parts_of(entry))
    if not (tree / found).is_file():
        raise SourceNotFound("", f"the load has no entry {entry!a}")
    (tree / found).chmod(0o755)
    return found


def _listed(folder: Path) -> list[tuple[str, int]]:
    """Return name and size of what is kept, what was used longest ago first; leave the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    found: list[tuple[float, str, int]] = []
    for path in folder.iterdir():
        if _is_ours(path.name):
            status = path.stat()
            found.append((status.st_mtime, path.name, status.st_size))
        else:
            logger.warning("foreign file in the cache of loads", extra={"file": path.name})
    return [(name, size) for _, name, size in sorted(found)]


def _is_ours(name: str) -> bool:
    with suppress(Refused):
        whole = checked_name(_digest_in(name))
        return name in (whole, whole + ".part")
    return False


def _digest_in(name: str) -> str:
    return name.partition(".")[0]
