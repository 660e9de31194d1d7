"""Samples of the lab host and of each attempt's processes, on ticks that do not drift.

All measuring of a tick happens in one call on a worker thread, since reading /proc of many
processes takes milliseconds that a console must not wait for. A tick that could not be kept is
skipped and counted, never made up for.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

from tshrag_agent.reports.batcher import BatchSource
from tshrag_agent.reports.proc_stats import Reading, info, segment
from tshrag_common.clock import Clock

logger = logging.getLogger(__name__)

Pids = Callable[[], Iterable[int]]
"""Returns the processes of an attempt; called on a worker thread."""

_NEW_S = 2.0  # an attempt is watched within this time from its start, or it was adopted

_CPU, _RSS = info("attempt.cpu", "%"), info("attempt.rss", "MiB")
_THREADS, _PROCESSES = info("attempt.threads"), info("attempt.processes")
_READ = info("attempt.io.read", "MB", "counter")
_WRITTEN = info("attempt.io.written", "MB", "counter")


def cgroup_pids(folder: Path) -> Pids:
    """Return what lists all processes of a cgroup: exact, and one small file to read."""

    def pids() -> list[int]:
        try:
            return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
        except OSError:
            return []

    return pids


def tree_pids(root: int) -> Pids:
    """Return what lists a process and its descendants; it reads the whole process table."""

    def pids() -> list[int]:
        try:
            process = psutil.Process(root)
            return [root, *(child.pid for child in process.children(recursive=True))]
        except psutil.Error:
            return []

    return pids


class Ticks:
    """Instants at a fixed distance from the first; those that have passed are skipped."""

    def __init__(self, clock: Clock, interval_s: float) -> None:
        self.skipped = 0
        self._clock, self._interval_s = clock, interval_s
        self._next = clock.monotonic() + interval_s

    def wait_s(self) -> float:
        """Return how long to sleep until the next tick, and move on to it."""
        now = self._clock.monotonic()
        late = int(max(0.0, now - self._next) / self._interval_s)
        if now > self._next:
            late += 1
        self.skipped += late
        due = self._next + late * self._interval_s
        self._next = due + self._interval_s
        return due - now


class HostMeter:
    """Measures this host; CPU holds for the interval since the measure before."""

    def __init__(self, host: str) -> None:
        self._prefix = f"host.{segment(host)}"
        self._before = self._cpu_times()

    def measure(self) -> list[Reading]:
        return [*self._cpu(), *self._memory(), *self._traffic()]

    def _cpu(self) -> Iterator[Reading]:
        (total, idle), (total_before, idle_before) = self._cpu_times(), self._before
        self._before = (total, idle)
        if total > total_before:
            used = 1 - (idle - idle_before) / (total - total_before)
            yield Reading(info(f"{self._prefix}.cpu.used", "%"), min(1.0, max(0.0, used)))

    def _memory(self) -> Iterator[Reading]:
        memory = psutil.virtual_memory()
        for name in ("total", "used", "free", "available"):
            number = float(getattr(memory, name))
            yield Reading(info(f"{self._prefix}.mem.{name}", "MiB"), number)
        for minutes, load in zip((1, 5, 15), psutil.getloadavg(), strict=True):
            yield Reading(info(f"{self._prefix}.load.avg{minutes}"), load)

    def _traffic(self) -> Iterator[Reading]:
        disk = psutil.disk_io_counters()
        if disk is not None:
            yield self._total("disk.read", disk.read_bytes)
            yield self._total("disk.written", disk.write_bytes)
        cards = psutil.net_io_counters(pernic=True)
        outside = [card for name, card in cards.items() if name != "lo"]
        yield self._total("net.received", sum(card.bytes_recv for card in outside))
        yield self._total("net.sent", sum(card.bytes_sent for card in outside))

    def _total(self, name: str, number: int) -> Reading:
        return Reading(info(f"{self._prefix}.{name}", "MB", "counter"), float(number))

    def _cpu_times(self) -> tuple[float, float]:
        times = psutil.cpu_times()
        guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return sum(times) - guest, times.idle + getattr(times, "iowait", 0.0)


class _Process:
    """One process of an attempt, and what it had used when it was last seen."""

    def __init__(self, pid: int, watched_since: float) -> None:
        self._process = psutil.Process(pid)
        self.cpu_s = 0.0
        self.read = self.written = 0
        if self._process.create_time() < watched_since - _NEW_S:
            self.measure()  # adopted by a new agent: what it did before is not of this interval

    def measure(self) -> tuple[float, int, int, int, int]:
        """Return CPU seconds, bytes read and written since last time; RSS and threads now."""
        process = self._process
        with process.oneshot():
            times = process.cpu_times()
            rss, threads = process.memory_info().rss, process.num_threads()
            try:
                io = process.io_counters()
                read, written = io.read_bytes, io.write_bytes
            except (psutil.AccessDenied, AttributeError):
                read, written = self.read, self.written
        cpu_s = times.user + times.system
        used = (cpu_s - self.cpu_s, read - self.read, written - self.written)
        self.cpu_s, self.read, self.written = cpu_s, read, written
        return max(0.0, used[0]), max(0, used[1]), max(0, used[2]), rss, threads


class TreeMeter:
    """Measures all processes of an attempt; what a process did before it was seen counts."""

    def __init__(self, pids: Pids, clock: Clock) -> None:
        self._pids, self._clock = pids, clock
        self._processes: dict[int, _Process] = {}
        self._since = clock.now() / 1e6
        self._measured_at = clock.monotonic()
        self._read = self._written = 0

    def measure(self) -> list[Reading]:
        """Return nothing when no process is alive."""
        now = self._clock.monotonic()
        elapsed_s, self._measured_at = now - self._measured_at, now
        measured = list(self._each())
        if not measured or elapsed_s <= 0:
            return []
        cpu_s, read, written, rss, threads = map(sum, zip(*measured, strict=True))
        self._read += int(read)
        self._written += int(written)
        return [
            Reading(_CPU, cpu_s / elapsed_s),
            Reading(_RSS, float(rss)),
            Reading(_THREADS, float(threads)),
            Reading(_PROCESSES, float(len(measured))),
            Reading(_READ, float(self._read)),
            Reading(_WRITTEN, float(self._written)),
        ]

    def _each(self) -> Iterator[tuple[float, int, int, int, int]]:
        alive: dict[int, _Process] = {}
        for pid in self._pids():
            try:
                process = self._processes.get(pid) or _Process(pid, self._since)
                yield process.measure()
                alive[pid] = process
            except psutil.Error:
                continue  # it has ended, or it is not ours to see
        self._processes = alive


class Sampler:
    """Samples the host, and every attempt that is watched, once a tick."""

    def __init__(
        self, host: BatchSource, host_name: str, clock: Clock, interval_s: float = 1.0
    ) -> None:
        self._clock, self._interval_s = clock, interval_s
        self._host, self._host_meter = host, HostMeter(host_name)
        self._attempts: dict[BatchSource, TreeMeter] = {}
        self._ticks: Ticks | None = None

    @property
    def skipped(self) -> int:
        """Return how many ticks could not be kept."""
        return self._ticks.skipped if self._ticks else 0

    def watch(self, source: BatchSource, pids: Pids) -> None:
        """Sample an attempt from the next tick on, into `source`."""
        self._attempts[source] = TreeMeter(pids, self._clock)

    def unwatch(self, source: BatchSource) -> None:
        """Stop that; a measure that is under way is dropped."""
        self._attempts.pop(source, None)

    async def run(self) -> None:
        """Sample for ever; cancel it to end."""
        self._ticks = Ticks(self._clock, self._interval_s)
        while True:
            await asyncio.sleep(self._ticks.wait_s())
            at = self._clock.now()
            meters = dict(self._attempts)
            host, attempts = await asyncio.to_thread(self._measure, meters)
            self._put(self._host, at, host)
            for source, found in attempts.items():
                if self._attempts.get(source) is meters[source]:
                    self._put(source, at, found)

    def _measure(
        self, meters: dict[BatchSource, TreeMeter]
    ) -> tuple[list[Reading], dict[BatchSource, list[Reading]]]:
        host: list[Reading] = []
        try:
            host = self._host_meter.measure()
        except (psutil.Error, OSError) as error:
            logger.warning("host not measured", extra={"error": str(error)})
        return host, {source: meter.measure() for source, meter in meters.items()}

    def _put(self, source: BatchSource, at: int, found: list[Reading]) -> None:
        for reading in found:
            source.add(reading.info, at, reading.value)
