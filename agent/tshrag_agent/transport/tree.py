"""Files and directories on their way to and from a DUT: packed, unpacked, checked, bounded.

Only regular files and directories travel. What a DUT sends is hostile: names that leave the
target, links, devices and more bytes than asked for are refused before anything is written there.
Everything here blocks; call it in a thread.
"""

import hashlib
import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

_CHUNK_BYTES = 1 << 20
MOST_FILES = 100_000


def walk(source: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Yield (name below `source`, path, stat), directories before what is in them.

    The name of `source` itself is empty.

    Raises:
        ValueError: there is a link, a device or the like, or a name with a line break.

    """
    found = source.lstat()
    yield "", source, found
    if not stat.S_ISDIR(found.st_mode):
        _plain(source, found)
        return
    for folder, folders, files in os.walk(source):
        for name in sorted(folders) + sorted(files):
            path = Path(folder, name)
            found = path.lstat()
            _plain(path, found)
            yield path.relative_to(source).as_posix(), path, found


def is_folder(found: os.stat_result) -> bool:
    return stat.S_ISDIR(found.st_mode)


def _plain(path: Path, found: os.stat_result) -> None:
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise ValueError(f"{str(path)!a} is neither a file nor a directory")
    if any(sign in path.name for sign in "\n\r\\"):
        raise ValueError(f"{str(path)!a}: no line break or backslash in a name")


def sums(source: Path, alone: str) -> bytes:
    """Return what ``sha256sum -c`` takes, with the names that `pack` gives."""
    lines = [
        f"{_sha256(path)}  {name or alone}\n".encode("utf-8", "surrogateescape")
        for name, path, found in walk(source)
        if stat.S_ISREG(found.st_mode)
    ]
    return b"".join(lines)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    return sum(found.st_size for _, _, found in walk(path) if stat.S_ISREG(found.st_mode))


def pack(source: Path, alone: str) -> IO[bytes]:
    """Return a tar in a temporary file, at its begin.

    It holds what is below the directory `source`, or the file `source` under the name `alone`.
    """
    packed = tempfile.TemporaryFile()  # noqa: SIM115 - handed to the caller, who closes it
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, path, found in walk(source):
            if name or stat.S_ISREG(found.st_mode):
                _add(tar, name or alone, path, found)
    packed.seek(0)
    return packed


def _add(tar: tarfile.TarFile, name: str, path: Path, found: os.stat_result) -> None:
    member = tarfile.TarInfo(name)
    member.mode, member.mtime = stat.S_IMODE(found.st_mode) & 0o777, int(found.st_mtime)
    if stat.S_ISDIR(found.st_mode):
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
        return
    member.size = found.st_size
    with path.open("rb") as file:
        tar.addfile(member, file)


def unpack(packed: IO[bytes], target: Path, most_bytes: int) -> int:
    """Write the files of a hostile tar below `target`; return their bytes.

    Links, devices and names that leave `target` are left out: a DUT has such things lying about.

    Raises:
        ValueError: it holds more than `most_bytes` or too many files, or it is no tar.

    """
    total = count = 0
    try:
        with tarfile.open(fileobj=packed, mode="r:") as tar:
            for member in tar:
                total, count = total + member.size, count + 1
                if total > most_bytes or count > MOST_FILES:
                    raise ValueError(f"more than {most_bytes} bytes or {MOST_FILES} files")
                _take(tar, member, target)
    except tarfile.TarError as error:
        raise ValueError(f"no tar came: {error}") from None
    return total


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    parts = PurePosixPath(member.name).parts
    if ".." in parts or member.name.startswith("/"):
        return
    place = target.joinpath(*parts)
    if member.isdir():
        place.mkdir(parents=True, exist_ok=True)
    elif member.isreg():
        place.parent.mkdir(parents=True, exist_ok=True)
        file = tar.extractfile(member)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(place, flags, 0o644), "wb") as out:
            shutil.copyfileobj(file or io.BytesIO(), out, _CHUNK_BYTES)
            os.fchmod(out.fileno(), (member.mode & 0o755) | 0o600)


def copy_tree(source: Path, target: Path, most_bytes: int | None = None) -> None:
    """Copy a file or a directory with its modes; refuse more than `most_bytes`."""
    if most_bytes is not None and (size := size_of(source)) > most_bytes:
        raise ValueError(f"{size} bytes, at most {most_bytes}")
    target.parent.mkdir(parents=True, exist_ok=True)
    for name, path, found in walk(source):
        place = target / name if name else target
        if stat.S_ISDIR(found.st_mode):
            place.mkdir(exist_ok=True)
        else:
            shutil.copyfile(path, place, follow_symlinks=False)
        place.chmod(stat.S_IMODE(found.st_mode) & 0o777)
