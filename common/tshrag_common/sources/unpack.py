"""Unpack an archive that may be hostile: tar, tar.gz and zip, known by their bytes.

The standard extractors were bypassed more than once; this one knows no links, devices or owners
at all, so there is nothing to get past. Archives inside of archives stay closed.
"""

import errno
import gzip
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tshrag_common.errors import shown
from tshrag_common.sources.faults import ArchiveBroken, ArchiveKind, ArchiveLimit, ArchiveLink
from tshrag_common.sources.policy import SourceLimits
from tshrag_common.sources.tar import Source, TarReader
from tshrag_common.sources.threads import Check, never
from tshrag_common.sources.tree import Budget, TreeWriter, kind_text, parts_of, size_text

_CHUNK = 1 << 16
_ZIP_END = b"PK\x05\x06"
_MAX_DIRECTORY_BYTES = 16 << 20  # of a zip's table of contents: it is held in memory
_ZIP_FAULTS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError,
    ValueError,
)  # fmt: skip
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def unpack(archive: Path, into: Path, limits: SourceLimits, check: Check = never) -> None:
    """Unpack `archive` into the fresh directory `into`; what is left after an error is junk.

    Raises:
        ArchiveBroken, ArchiveLink, ArchiveKind, ArchiveName, ArchiveLimit: it was not taken.

    """
    if archive.stat().st_size > limits.packed_bytes:
        raise ArchiveLimit("", f"> {size_text(limits.packed_bytes)} packed")
    budget = Budget(limits, check)
    with archive.open("rb") as file, TreeWriter(into, budget) as tree:
        magic = file.read(4)
        file.seek(0)
        if magic[:2] == b"PK":
            _unzip(file, tree, budget)
        elif magic[:2] == b"\x1f\x8b":
            packed = _Gunzip(file, budget)
            untar(packed, tree, budget)
            packed.drain()
        else:
            untar(file, tree, budget)


def untar(source: Source, tree: TreeWriter, budget: Budget) -> None:
    """Put the members of an open tar into `tree`; stop behind the end mark."""
    reader = TarReader(source)
    for member in reader.members():
        if member.is_directory:
            tree.directory(member.name)
        else:
            budget.expect(member.size)
            tree.file(member.name, reader.data(), executable=member.executable)


class _Counting(io.RawIOBase):
    """How many packed bytes have been read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # Buffer has no slots to write to before 3.12
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


class _Gunzip:
    """The inside of a gzip, with an eye on how much comes out of how little."""

    def __init__(self, file: BinaryIO, budget: Budget) -> None:
        self._packed = _Counting(file)
        self._gzip = gzip.GzipFile(fileobj=io.BufferedReader(self._packed))
        self._budget = budget
        self._count = 0

    def read(self, count: int) -> bytes:
        try:
            return self._read(count)
        except EOFError:
            return b""  # the reader of the tar knows at which member

    def drain(self) -> None:
        """Read what follows the end mark: the checksum of the gzip stands behind it."""
        try:
            while chunk := self._read(_CHUNK):
                self._budget.data(len(chunk))
        except EOFError:
            raise ArchiveBroken("", "gzip: unexpected end behind the last member") from None

    def _read(self, count: int) -> bytes:
        try:
            data = self._gzip.read(count)
        except (OSError, zlib.error) as error:
            raise ArchiveBroken("", f"gzip: {str(error)[:100]}") from None
        self._count += len(data)
        self._budget.ratio(self._count, self._packed.count)
        return data


def _unzip(file: BinaryIO, tree: TreeWriter, budget: Budget) -> None:
    _check_zip_directory(file)
    try:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                _unzip_member(archive, info, tree, budget)
    except _ZIP_FAULTS as error:
        raise ArchiveBroken("", f"zip: {shown(str(error), 120)}") from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # it seeks to wherever the archive says
            raise
        raise ArchiveBroken("", "zip: damaged table of contents") from None


def _unzip_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, tree: TreeWriter, budget: Budget
) -> None:
    name, mode = info.orig_filename, info.external_attr >> 16
    parts_of(name)  # before zipfile looks at it: it cuts names at a NUL
    if stat.S_ISLNK(mode):
        with archive.open(info) as link:
            raise ArchiveLink(name, link.read(80).decode(errors="replace"))
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveKind(name, kind_text(mode))
    if info.flag_bits & 0x1 or info.compress_type not in _METHODS:
        raise ArchiveKind(name, "encrypted, or packed in a way that is not read")
    if info.is_dir():
        tree.directory(name)
        return
    with archive.open(info) as member:
        budget.expect(info.file_size)
        chunks = _ratio_kept(member.read, info.compress_size, budget)
        tree.file(name, chunks, executable=bool(mode & 0o100))


def _ratio_kept(read: Callable[[int], bytes], packed: int, budget: Budget) -> Iterator[bytes]:
    count = 0
    while chunk := read(_CHUNK):
        count += len(chunk)
        budget.ratio(count, packed)
        yield chunk


def _check_zip_directory(file: BinaryIO) -> None:
    """Refuse a table of contents that would fill the memory before the first file is seen."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 22 - 65535))
    tail = file.read()
    file.seek(0)
    at = len(tail) - 22 if tail[-22:-18] == _ZIP_END else tail.rfind(_ZIP_END)
    if at < 0 or len(tail) < at + 22:
        raise ArchiveBroken("", "zip: unexpected end: no table of contents")
    directory = struct.unpack_from("<L", tail, at + 12)[0]
    if directory > _MAX_DIRECTORY_BYTES or b"PK\x06\x07" in tail[max(0, at - 20) : at]:
        raise ArchiveLimit("", "zip: a table of contents for too many files")
