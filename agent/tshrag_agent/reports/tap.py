"""All samples of one attempt: what it says in its output, its files and its socket; and the host's.

Batches wait here until they are put into the journal, together with the offsets of the output that
they were found in.
"""

import asyncio
import contextlib
import os
from pathlib import Path

import msgspec

from tshrag_agent.attempts.dut_clock import DutClock
from tshrag_agent.attempts.metric_gate import AHEAD_S, MetricGate
from tshrag_agent.attempts.metric_lines import MetricLines
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import Append
from tshrag_agent.reports.batcher import Batcher
from tshrag_agent.reports.metric_files import MetricFiles
from tshrag_agent.reports.metric_socket import MetricSocket
from tshrag_agent.reports.metric_sockets import MetricSockets
from tshrag_common import wire
from tshrag_common.clock import Clock
from tshrag_common.commands import StartAttempt
from tshrag_common.jobs import JobSpec
from tshrag_common.metrics import SampleBatch

POLL_S = 0.5


class SampleTap:
    """Where the samples of one attempt come together."""

    def __init__(
        self,
        start: StartAttempt,
        spec: JobSpec,
        clock: Clock,
        *,
        ahead_s: float = AHEAD_S,
        dut_clock: DutClock | None = None,
    ) -> None:
        """Open it; with `dut_clock` the times that the attempt writes are those of its DUT."""
        self._clock, self.dut_clock = clock, dut_clock
        self._batches: list[SampleBatch] = []
        self._batcher = Batcher(clock, self._batches.append)
        self.source = self._batcher.source(start.run, start.job, start.attempt, start.dut or "")
        self.gate = MetricGate(
            self.source.add,
            declared=spec.metrics,
            namespace=spec.namespace,
            ahead_s=ahead_s,
            clock=dut_clock,
        )
        self._lines = {name: MetricLines(self.gate) for name in ("stdout", "stderr")}
        self._socket: MetricSocket | None = None
        self._sockets: MetricSockets | None = None
        self._files: MetricFiles | None = None
        self._at_end: dict[str, int] = {}  # offsets, when all was read

    async def open(self, job_dir: Path, sockets: MetricSockets) -> str:
        """Open the socket of the job; return its path, empty where there can be none."""
        self._sockets = sockets
        path, self._socket = await sockets.lend(job_dir, self.gate)
        return path

    def follow(self, metrics: Path, offsets: str = "{}") -> None:
        """Take samples from the CSV files in `metrics`, by `poll` and `finish`.

        `offsets` is what `offsets` of an earlier agent has returned.
        """
        begin_at = msgspec.json.decode(offsets, type=dict[str, int])
        self._files = MetricFiles(metrics, self.gate, self._clock, begin_at)
        self._metrics = metrics
        self._poll_at = self._clock.monotonic() + POLL_S

    async def poll(self) -> bool:
        """Look into the files, when it is time; true: there was something.

        Not to be cancelled, or a piece is lost.
        """
        now = self._clock.monotonic()
        if self._files is not None and now >= self._poll_at:
            self._poll_at = now + POLL_S
            if self._files.is_open or _has_files(self._metrics):
                return await self._files.poll() > 0
        return False

    @property
    def offsets(self) -> str:
        """Return how far the files have become samples, for the journal."""
        found = self._files.offsets if self._files is not None else self._at_end
        return msgspec.json.encode(found).decode() if found else "{}"

    def feed(self, stream: str, data: bytes) -> None:
        """Look for samples in output."""
        self._lines[stream].feed(data, self._clock.now())

    def take(self, all_of_it: bool) -> list[SampleBatch]:
        """Return batches that are full or old, or all that there is."""
        if all_of_it:
            self.source.flush()
        else:
            self._batcher.flush_due()
        if not self._batches:
            return []
        taken = self._batches.copy()
        self._batches.clear()
        return taken

    async def finish(self) -> None:
        """Take what socket and files still hold; the processes are gone."""
        socket, self._socket = self._socket, None
        if socket is not None and self._sockets is not None:
            await self._sockets.give_back(socket)
        files, self._files = self._files, None
        if files is not None and (files.is_open or _has_files(self._metrics)):
            await files.finish()
            self._at_end = _sizes(self._metrics)

    def close(self) -> None:
        """Take last lines that nothing ended."""
        for lines in self._lines.values():
            lines.close(self._clock.now())
        self.gate.settle(self._clock.now())
        self.source.flush()


class HostTap:
    """Samples that belong to no attempt: those of the host."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._batches: list[SampleBatch] = []
        self.source = Batcher(clock, self._batches.append).source()

    async def run(self, interval_s: float) -> None:
        """Put what was measured into the journal, for ever."""
        while True:
            await asyncio.sleep(interval_s)
            self.source.flush()
            batches = tuple(map(wire.body, self._batches))
            self._batches.clear()
            if batches:
                await self._journal.write(Append("samples", batches))


def _has_files(folder: Path) -> bool:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return next(entries, None) is not None
    return False


def _sizes(folder: Path) -> dict[str, int]:
    """Return the sizes of the CSV files in `folder`, as offsets at their ends."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return {
            entry.name: entry.stat(follow_symlinks=False).st_size
            for entry in entries
            if entry.name.endswith(".csv")
        }
    return {}
