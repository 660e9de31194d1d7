"""Pack a tree in the one canonical way: equal trees give equal bytes on every machine.

A tar with names sorted component by component, directories before what is in them, modes 0755
(directories, and files that their owner may execute) and 0644, no owner, no time. The digest of a
load is the sha256 of these bytes, before any compression.
"""

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from tshrag_common.sources import tar
from tshrag_common.sources.faults import ArchiveKind, ArchiveLink, ArchiveName, SourceRefused
from tshrag_common.sources.policy import SourceLimits
from tshrag_common.sources.threads import Check, never
from tshrag_common.sources.tree import Budget, kind_text, parts_of

LEFT_OUT = frozenset({".git", "__pycache__"})
"""Never part of a load: they differ between two checkouts of the same thing."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """A packed tree."""

    digest: str
    size_bytes: int
    entries: int


def pack(
    tree: Path,
    into: Path,
    limits: SourceLimits,
    check: Check = never,
    leave_out: frozenset[str] = LEFT_OUT,
) -> Packed:
    """Pack `tree` into the new file `into`.

    Raises:
        ArchiveLink, ArchiveKind, ArchiveName, ArchiveLimit: it holds what a load may not have.
        SourceRefused: it changed while it was read.

    """
    with into.open("xb") as file:
        return _digested(tree, limits, check, leave_out, file.write)


def tree_digest(
    tree: Path,
    limits: SourceLimits,
    check: Check = never,
    leave_out: frozenset[str] = frozenset(),
) -> str:
    """Return what `pack` would give, of every byte that is there now."""
    return _digested(tree, limits, check, leave_out, len).digest


def _digested(
    tree: Path,
    limits: SourceLimits,
    check: Check,
    leave_out: frozenset[str],
    write: Callable[[bytes], object],
) -> Packed:
    sha256, size, budget = hashlib.sha256(), 0, Budget(limits, check)
    for chunk in _blocks(tree, budget, leave_out):
        sha256.update(chunk)
        write(chunk)
        size += len(chunk)
    return Packed(digest=sha256.hexdigest(), size_bytes=size, entries=budget.entries)


def _blocks(tree: Path, budget: Budget, leave_out: frozenset[str]) -> Iterator[bytes]:
    for name, found in _walk(tree, "", leave_out):
        is_directory = found.is_dir(follow_symlinks=False)
        budget.entry(parts_of(name))
        status = found.stat(follow_symlinks=False)
        _check_kind(name, found.path, status.st_mode)
        if is_directory:
            yield tar.header(name, is_directory=True, executable=True, size=0)
        else:
            yield from _file(name, found.path, budget)
    yield tar.END


def _walk(
    directory: Path | str, above: str, leave_out: frozenset[str]
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(directory) as entries:
        kept = [(_encoded(entry.name), entry) for entry in entries if entry.name not in leave_out]
    for _, entry in sorted(kept, key=lambda pair: pair[0]):
        name = above + entry.name
        yield name, entry
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, name + "/", leave_out)


def _file(name: str, path: str, budget: Budget) -> Iterator[bytes]:
    with io.FileIO(os.open(path, _READ)) as file:
        status = os.fstat(file.fileno())
        _check_kind(name, path, status.st_mode)
        executable = bool(status.st_mode & stat.S_IXUSR)
        yield tar.header(name, is_directory=False, executable=executable, size=status.st_size)
        left = status.st_size
        while left and (chunk := file.read(min(tar.CHUNK, left))):
            left -= len(chunk)
            budget.data(len(chunk))
            yield chunk
        if left or file.read(1):
            raise SourceRefused("", f"{name!a} changed while it was packed", "pack it again")
        yield tar.padding(status.st_size)


def _check_kind(name: str, path: str, mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise ArchiveLink(name, str(Path(path).readlink()))
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ArchiveKind(name, kind_text(mode))


def _encoded(name: str) -> bytes:
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise ArchiveName(name, "is not UTF-8") from None
