"""A write that a crash has cut in its middle: a part of it stands at the end of a database's WAL.

What SQLite had synced before is whole, and what comes behind it must be seen for what it is.
"""

import contextlib
import random
from collections.abc import Callable
from pathlib import Path


class Torn(BaseException):
    """The process died while its disk was writing; nothing of it can catch that."""


class Tears:
    """The cuts of one disk, from a crash until all that had its files open is gone."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._folder, self._chance = folder, chance
        self._left: dict[Path, bytes] = {}
        self.is_dying = False
        """A commit that ends while this is true is never known to have ended: raise `Torn`."""

    def tear(self, write: Callable[[], None]) -> bool:
        """Let `write` be cut; tell whether anything of it was begun."""
        wals = {path: path.read_bytes() for path in sorted(self._folder.rglob("*.db-wal"))}
        bases = {path: _base(path).read_bytes() for path in wals}
        self.is_dying = True
        with contextlib.suppress(Torn):
            write()
        self.is_dying = False
        cut = 0
        for wal, before in wals.items():
            after = wal.read_bytes()
            if after == before:
                continue
            begun = len(after) - len(before) if after.startswith(before) else 0
            keeps = self._chance.randrange(begun) if begun > 0 else 0
            self._left |= {_base(wal): bases[wal], wal: before + after[len(before) :][:keeps]}
            cut += keeps > 0
        return cut > 0

    def leave(self) -> None:
        """Put on the disk what the crash has left; all files are closed by now."""
        for path, data in self._left.items():
            path.write_bytes(data)
            path.with_name(f"{path.name.removesuffix('-wal')}-shm").unlink(missing_ok=True)
        self._left = {}


def _base(wal: Path) -> Path:
    return wal.with_name(wal.name.removesuffix("-wal"))
