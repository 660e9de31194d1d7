"""A raw file of output that came over a wire; bounded."""

import os
from pathlib import Path

from tshrag_common.reports import OutputEnd


class RawLog:
    """A raw file of output that came over a wire; bounded."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._room = most_bytes
        self._cut = 0

    def write(self, data: bytes) -> None:
        kept = data[: self._room]
        if kept and self._fd >= 0:
            os.write(self._fd, kept)
        self._room -= len(kept)
        self._cut += len(data) - len(kept)

    def counted(self, end: OutputEnd) -> OutputEnd:
        return OutputEnd(end.length_bytes + self._cut, end.cut_bytes + self._cut)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
