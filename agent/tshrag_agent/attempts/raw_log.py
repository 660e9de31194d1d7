"""A raw file of output that came over a wire; bounded."""

import contextlib
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
        """Keep what there is room for; a disk that is full is the pump's to tell (`LogPump`)."""
        kept = 0
        if self._room > 0 and self._fd >= 0:
            with contextlib.suppress(OSError):
                kept = os.write(self._fd, data[: self._room])
        self._room -= kept
        self._cut += len(data) - kept

    def counted(self, end: OutputEnd) -> OutputEnd:
        return OutputEnd(end.length_bytes + self._cut, end.cut_bytes + self._cut)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
