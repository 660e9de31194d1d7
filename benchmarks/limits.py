"""What a machine can do at all: the limits and peers that our figures stand beside."""

import asyncio
import atexit
import ctypes
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from functools import cache
from pathlib import Path

from tshrag_common import wire
from tshrag_common.bus.connection import Bus, connect
from tshrag_common.bus.jetstream import MESSAGE_ID, JetStream
from tshrag_common.bus.messages import Message
from tshrag_common.bus.puller import Puller
from tshrag_common.labkeys import load_lab
from tshrag_common.metrics import MetricInfo, SampleBatch, Series, pack
from tshrag_common.streams import ConsumerConfig, StreamConfig
from tshrag_controller.cli.processes import LabProcesses

SPAWN_THREADS = 8
BATCH_SAMPLES = 1000
_MADE = MetricInfo(key="a.b")
_chance = random.Random(1)

_SPAWN_C = """
#include <pthread.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
extern char **environ;
static int each;
static void *spawn(void *unused) {
    char *argv[] = {"/bin/true", 0};
    for (int n = 0; n < each; n++) {
        pid_t pid;
        int status;
        if (posix_spawn(&pid, argv[0], 0, 0, argv, environ)) abort();
        waitpid(pid, &status, 0);
    }
    return unused;
}
int main(int argc, char **argv) {
    int threads = atoi(argv[2]);
    pthread_t made[64];
    each = atoi(argv[1]) / threads;
    for (int n = 0; n < threads; n++) pthread_create(&made[n], 0, spawn, 0);
    for (int n = 0; n < threads; n++) pthread_join(made[n], 0);
    return 0;
}
"""


@cache
def _spawner() -> str | None:
    """Return the compiled limit of spawning; None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="bench-limit-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    source, program = folder / "limit.c", folder / "limit"
    source.write_text(_SPAWN_C)
    subprocess.run([compiler, "-O2", "-pthread", "-o", program, source], check=True)
    return str(program)


def spawn_limit_is() -> str:
    how = "C" if _spawner() else "ctypes"
    return f"bare posix_spawn and waitpid in {SPAWN_THREADS} threads of {how}"


def spawns_per_s(count: int) -> float:
    """Return how many processes of /bin/true this machine starts and reaps a second."""
    program = _spawner()
    began = time.perf_counter()
    if program is not None:
        subprocess.run([program, str(count), str(SPAWN_THREADS)], check=True)
    else:
        _spawn_by_ctypes(count)
    return count / (time.perf_counter() - began)


def _spawn_by_ctypes(count: int) -> None:
    libc = ctypes.CDLL(None)  # CDLL lets go of the GIL
    argv = (ctypes.c_char_p * 2)(b"/bin/true", None)
    environ = (ctypes.c_char_p * 1)(None)

    def spawn() -> None:
        pid, status = ctypes.c_int(), ctypes.c_int()
        for _ in range(count // SPAWN_THREADS):
            libc.posix_spawn(ctypes.byref(pid), b"/bin/true", None, None, argv, environ)
            libc.waitpid(pid, ctypes.byref(status), 0)

    threads = [threading.Thread(target=spawn) for _ in range(SPAWN_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Wire:
    """Two bare connections to the broker of a lab, with the rights of its controller."""

    def __init__(self, asker: Bus, answerer: Bus) -> None:
        self._asker, self._answerer = asker, answerer
        self._subject = asker.new_inbox()

    @classmethod
    async def open(cls, processes: LabProcesses) -> "Wire":
        credentials = load_lab(processes.state / "keys.json").controller_creds("bench").text
        ends = [
            await connect(processes.bundle.url, name=f"bench-{name}", credentials=credentials)
            for name in ("asker", "answerer")
        ]
        wire = cls(*ends)
        await wire._listen()
        return wire

    async def _listen(self) -> None:
        self._tasks = asyncio.Queue[Message]()
        await self._answerer.subscribe(self._subject, self._tasks.put_nowait)
        await self._answerer.settled()

    async def answer(self) -> None:
        """Answer every question, for ever."""
        while True:
            message = await self._tasks.get()
            await self._answerer.respond(message, message.data)

    async def round_trips_ms(self, count: int) -> list[float]:
        """Return how long each of `count` requests took, one after the other."""
        took: list[float] = []
        for _ in range(count):
            began = time.perf_counter()
            await self._asker.request(self._subject, b"x" * 64, 5.0)
            took.append(1e3 * (time.perf_counter() - began))
        return took

    async def requests_per_s(self, count: int, at_once: int = 64) -> float:
        """Return how many requests a second are answered, `at_once` of them in flight."""
        numbers = iter(range(count))

        async def ask() -> None:
            for _ in numbers:
                await self._asker.request(self._subject, b"x" * 64, 30.0)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(at_once):
                group.create_task(ask(), name=f"ask-{number}")
        return count / (time.perf_counter() - began)

    async def bytes_per_s(self, size: int, piece: int = 64 << 10) -> float:
        """Return how many bytes a second arrive on one subject, in messages of `piece` bytes."""
        data, count = bytes(piece), max(1, size // piece)
        while not self._tasks.empty():
            self._tasks.get_nowait()
        began = time.perf_counter()

        async def send() -> None:
            for _ in range(count):
                await self._asker.publish(self._subject, data)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(send(), name="send")
            for _ in range(count):
                await self._tasks.get()
        return count * piece / (time.perf_counter() - began)

    async def samples_stored_per_s(self, count: int) -> float:
        """Return how many samples a second a stream takes: published, acknowledged, nobody reads.

        Messages are as large as an agent makes them, one in flight, as an agent sends them.
        """
        stream = JetStream(self._asker)
        subject = self._subject.replace("_INBOX", "BENCH")
        config = StreamConfig(name="BENCH", subjects=(subject,), max_bytes=1 << 30)
        await stream.ensure_stream(config)
        batch = array("q", range(BATCH_SAMPLES)).tobytes() * 2  # instants and values
        message = batch * 16
        each = BATCH_SAMPLES * 16
        try:
            began = time.perf_counter()
            for number in range(max(1, count // each)):
                await stream.publish(subject, message, {MESSAGE_ID: f"bench-{number}"})
            return max(1, count // each) * each / (time.perf_counter() - began)
        finally:
            await stream.delete_stream("BENCH")

    async def samples_piped_per_s(self, count: int, *, made: bool = False) -> float:
        """Return how many samples a second go the whole way of ours into nothing.

        Encoded, published and acknowledged, pulled by another connection, decoded, dropped. The
        same bytes again and again; with `made` each sample is drawn, as our load does it.
        """
        stream, reader = JetStream(self._asker), JetStream(self._answerer)
        subject = self._subject.replace("_INBOX", "PIPE")
        config = StreamConfig(name="PIPE", subjects=(subject,), max_bytes=1 << 30)
        await stream.ensure_stream(config)
        consumer = ConsumerConfig(
            name="pipe", ack_policy="none", deliver_policy="by_start_sequence", opt_start_seq=1
        )
        column = array("q", range(10**15, 10**15 + BATCH_SAMPLES)).tobytes()
        series = Series(key="a.b", times=column, values=column)
        bodies = [wire.body(SampleBatch(series=(series,))) for _ in range(16)]
        messages = max(1, count // (16 * BATCH_SAMPLES))
        try:
            began = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                taken = group.create_task(_dropped(Puller(reader, "PIPE", consumer), messages))
                for number in range(messages):
                    bodies = [_made_body(number) for _ in range(16)] if made else bodies
                    data = wire.batch("bench", "pipe", 1 + 16 * number, bodies)
                    await stream.publish(subject, data, {MESSAGE_ID: f"pipe-{number}"})
            return taken.result() / (time.perf_counter() - began)
        finally:
            await stream.delete_stream("PIPE")

    async def close(self) -> None:
        await self._asker.close()
        await self._answerer.close()


def _made_body(number: int) -> bytes:
    """Return a batch of samples that nobody has seen before."""
    begin = 10**15 + number * BATCH_SAMPLES
    values = [_chance.gauss(100.0, 10.0) for _ in range(BATCH_SAMPLES)]
    times = list(range(begin, begin + BATCH_SAMPLES))
    return wire.body(SampleBatch(series=(pack(_MADE, times, values),)))


async def _dropped(puller: Puller, messages: int) -> int:
    """Decode so many messages; return how many samples they held."""
    samples = seen = 0
    async for batch in puller.batches():
        for message in batch:
            decoded = wire.SAMPLES.decode(message.data)
            samples += sum(each.count for each in decoded.batches)
            seen += 1
        if seen >= messages:
            break
    return samples


def sqlite_samples_per_s(count: int) -> float:
    """Return how many samples a second a plain loop puts into SQLite, a row each, by thousands."""
    with tempfile.TemporaryDirectory(prefix="bench-sqlite-") as folder:
        db = sqlite3.connect(Path(folder, "samples.db"), isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE samples (series INTEGER, at INTEGER, value REAL)")
        began = time.perf_counter()
        for first in range(0, count, BATCH_SAMPLES):
            rows = [(1, at, float(at)) for at in range(first, first + BATCH_SAMPLES)]
            db.execute("BEGIN")
            db.executemany("INSERT INTO samples VALUES (?,?,?)", rows)
            db.execute("COMMIT")
        took = time.perf_counter() - began
        db.close()
    return count / took


def python_starts_ms(argv: list[str], count: int) -> list[float]:
    """Return how long each start of `argv` took; an empty one is ``python -c pass``."""
    words = argv or [sys.executable, "-c", "pass"]
    took: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        took.append(1e3 * (time.perf_counter() - began))
    return took


def percentile(values: list[float], per_cent: float) -> float:
    """Return the value below which `per_cent` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * per_cent / 100))]


def median(values: list[float]) -> float:
    return statistics.median(values)
