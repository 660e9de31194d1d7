"""Sockets for samples that attempts take in turn: binding a pair costs as much as a short job.

The job sees ``metrics.sock`` in its own directory, a link to the pair that it was lent; by that
link the next agent finds the pair of an attempt that it adopts. Where that path is too long for a
UNIX socket, the job is told the path of the pair itself, which never is.

Beside each socket lies a symbolic link that leads to it, and jobs get that link under another name
(a hard link): a file system takes longer for a new inode than for a name.
"""

import contextlib
import logging
import os
from pathlib import Path

from tshrag_agent.attempts.metric_gate import MetricGate
from tshrag_agent.journal.pressure import Pressure
from tshrag_agent.reports.metric_socket import NAME, STREAM, MetricSocket, is_short, link_of
from tshrag_common.clock import Clock
from tshrag_common.errors import LabError

logger = logging.getLogger(__name__)

_KEPT = 64
"""Pairs that stay open while nobody uses them."""


class MetricSockets:
    """All pairs of one agent; they lie in `folder`, numbered."""

    def __init__(self, folder: Path, clock: Clock, pressure: Pressure) -> None:
        self._folder, self._clock, self._pressure = folder, clock, pressure
        self._free: list[MetricSocket] = []
        self._lent: set[MetricSocket] = set()
        self._count = 0

    async def lend(self, job_dir: Path, gate: MetricGate) -> tuple[str, MetricSocket | None]:
        """Return the path for ``$TSHRAG_METRICS`` and the pair behind it; none could be had: ""."""
        link = job_dir / NAME
        try:
            pair = await self._pair(link, gate)
            _link(link, pair.path)
            _link(job_dir / (NAME + STREAM), pair.path.with_name(pair.path.name + STREAM))
        except (LabError, OSError) as error:
            gate.refuse("socket", str(error))
            return "", None
        self._lent.add(pair)
        return str(link if is_short(link) else pair.path), pair

    async def give_back(self, pair: MetricSocket) -> None:
        """Take what was sent; the pair is for another attempt then."""
        self._lent.discard(pair)
        await pair.rest()
        if len(self._free) < _KEPT:
            self._free.append(pair)
        else:
            await pair.close()

    async def close(self) -> None:
        """Remove the pairs that nobody uses; let go of those whose job the next agent adopts."""
        while self._free:
            await self._free.pop().close()
        while self._lent:
            self._lent.pop().let_go()

    async def _pair(self, link: Path, gate: MetricGate) -> MetricSocket:
        known = _lent_before(link)
        if known is None and self._free:
            pair = self._free.pop()
            pair.lend(gate)
            return pair
        folder = known or self._next_folder()
        folder.mkdir(parents=True, exist_ok=True)
        pair = MetricSocket(folder, gate, self._clock, self._pressure)
        await pair.open()
        return pair

    def _next_folder(self) -> Path:
        """Return a folder that no earlier agent has lent to somebody who lives on."""
        while True:
            self._count += 1
            folder = self._folder / str(self._count)
            if not (folder / NAME).exists():
                return folder


def _lent_before(link: Path) -> Path | None:
    """Return the folder of the pair that an earlier agent lent to this job."""
    return link.readlink().parent if link.is_symlink() else None


def _link(link: Path, target: Path) -> None:
    """Let `link` lead to `target`; by an inode of its own only where there is no other way."""
    with contextlib.suppress(FileExistsError):
        known = link_of(target)
        if not known.is_symlink():
            known.symlink_to(target)
        try:
            os.link(known, link, follow_symlinks=False)
        except OSError:  # it is there; or another file system, or too many names
            link.symlink_to(target)
