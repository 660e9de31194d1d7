"""Write a tree that somebody else describes: a tar, a zip, a repository. Hostile to the last byte.

Regular files and directories only, in a fresh directory, every step without following links,
modes 0755 and 0644, with bounds that hold while it is written.
"""

import io
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from tshrag_common.sources.faults import ArchiveLimit, ArchiveName
from tshrag_common.sources.policy import SourceLimits
from tshrag_common.sources.threads import Check, never, until

MAX_COMPONENT_BYTES = 255
MAX_PATH_BYTES = 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Budget:
    """What is left of the limits; every method raises ArchiveLimit beyond them."""

    def __init__(self, limits: SourceLimits, check: Check = never) -> None:
        late = ArchiveLimit("", f"> {limits.unpack_s:g} s to unpack")
        self._check = until(limits.unpack_s, late, check)
        self._limits = limits
        self.entries = 0
        self.bytes = 0

    def entry(self, parts: tuple[str, ...]) -> None:
        """Count a file or a directory."""
        self._check()
        self.entries += 1
        if self.entries > self._limits.files:
            raise ArchiveLimit("", f"> {self._limits.files:,} files")
        if len(parts) > self._limits.depth:
            raise ArchiveLimit("", f"depth > {self._limits.depth}")

    def expect(self, count: int) -> None:
        """Refuse a member by the size that it announces, before anything of it is written."""
        if self.bytes + count > self._limits.unpacked_bytes:
            raise ArchiveLimit("", f"> {size_text(self._limits.unpacked_bytes)} unpacked")

    def data(self, count: int) -> None:
        """Count unpacked bytes, before they are written."""
        self._check()
        self.expect(count)
        self.bytes += count

    def ratio(self, unpacked: int, packed: int) -> None:
        """Compare what came out of a decompressor with what went in; the first MiB is free."""
        if unpacked > (1 << 20) + self._limits.ratio * packed:
            raise ArchiveLimit("", f"> {self._limits.ratio}:1 compressed")


class TreeWriter:
    """A fresh directory and what is put into it. Use as a context manager."""

    def __init__(self, root: Path, budget: Budget) -> None:
        self._budget = budget
        self._seen: dict[tuple[str, ...], bool] = {(): True}  # is it a directory?
        root.mkdir(mode=0o755)
        self._root = os.open(root, _DIRECTORY)
        os.fchmod(self._root, 0o755)

    def __enter__(self) -> "TreeWriter":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    def directory(self, name: str) -> None:
        """Make a directory; one that is there already is welcome."""
        if parts := parts_of(name):
            self._budget.entry(parts)
            os.close(self._open(name, parts))

    def file(self, name: str, chunks: Iterable[bytes], *, executable: bool) -> None:
        """Write a file that is not there yet."""
        parts = parts_of(name)
        if not parts or name.endswith("/"):
            raise ArchiveName(name, "is no name of a file")
        self._budget.entry(parts)
        if parts in self._seen:
            raise ArchiveName(name, "is there twice")
        parent = self._open(name, parts[:-1])
        try:
            fd = os.open(parts[-1], _NEW_FILE, 0o600, dir_fd=parent)
        finally:
            os.close(parent)
        self._seen[parts] = False
        with io.FileIO(fd, "w") as file:
            for chunk in chunks:
                self._budget.data(len(chunk))
                _write_all(file.fileno(), chunk)
            os.fchmod(file.fileno(), 0o755 if executable else 0o644)

    def _open(self, name: str, parts: tuple[str, ...]) -> int:
        """Return an fd of the directory, made where it was missing."""
        fd = os.dup(self._root)
        try:
            for depth in range(1, len(parts) + 1):
                fd = self._step(name, fd, parts[:depth])
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _step(self, name: str, parent: int, parts: tuple[str, ...]) -> int:
        is_directory = self._seen.get(parts)
        if is_directory is False:
            raise ArchiveName(name, "goes through a file")
        if is_directory is None:
            self._budget.entry(parts)
            os.mkdir(parts[-1], 0o755, dir_fd=parent)
        fd = os.open(parts[-1], _DIRECTORY, dir_fd=parent)
        if is_directory is None:
            os.fchmod(fd, 0o755)
            self._seen[parts] = True
        os.close(parent)
        return fd


def parts_of(name: str) -> tuple[str, ...]:
    """Return the components of a name out of an archive, empty for its top.

    Raises:
        ArchiveName: it leads outside, or no sane file has it.

    """
    if name.startswith("/"):
        raise ArchiveName(name, "is absolute")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise ArchiveName(name, "leads outside")
    if "\\" in name or any(ord(char) < 32 or ord(char) == 127 for char in name):
        raise ArchiveName(name, "holds a backslash or a control character")
    try:
        encoded = [part.encode() for part in parts]
    except UnicodeEncodeError:
        raise ArchiveName(name, "is not UTF-8") from None
    longest = max(map(len, encoded), default=0)
    if longest > MAX_COMPONENT_BYTES or sum(map(len, encoded)) + len(parts) > MAX_PATH_BYTES:
        raise ArchiveName(name, f"is longer than {MAX_COMPONENT_BYTES} bytes")
    return parts


def kind_text(mode: int) -> str:
    """Name what is neither file nor directory."""
    kinds = {
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a fifo",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "of an unknown kind")


def size_text(count: int) -> str:
    """Return a size as people read it: ``2 GiB``, ``512 KiB``, ``1000 bytes``."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << shift and count % (1 << shift) == 0:
            return f"{count >> shift} {unit}"
    return f"{count} bytes"


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
