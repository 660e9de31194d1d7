"""Data for the benchmark of the store, and the same work done by others."""

import random
import sqlite3
import time
import urllib.request
from array import array
from pathlib import Path

from tests.support.builders import T0
from tests.support.prometheus import PrometheusServer
from tests.support.stored import StoredLab, samples
from tshrag_agent.attempts.metric_gate import MetricGate
from tshrag_agent.attempts.metric_lines import MetricLines
from tshrag_agent.reports.batcher import Batcher
from tshrag_common import ids
from tshrag_common.clock import SystemClock
from tshrag_common.metrics import MetricInfo, SampleBatch, pack
from tshrag_common.reports import SamplesMessage
from tshrag_controller.prometheus import remote
from tshrag_controller.store import parquet, segments
from tshrag_controller.store.parquet import Written
from tshrag_controller.store.store import Store

BATCH, KEYS = 1000, 8


def values(count: int, seed: int = 1) -> "array[float]":
    """Return latencies as a tool prints them: milliseconds with three digits, in seconds."""
    chance = random.Random(seed)
    return array("d", (round(chance.lognormvariate(1, 0.5), 3) / 1e3 for _ in range(count)))


def times(count: int, begin: int, step: int = 1000) -> "array[int]":
    chance = random.Random(begin)
    return array("q", (begin + at * step + chance.randrange(300) for at in range(count)))


async def a_store(folder: Path, count: int) -> tuple[Store, list[SamplesMessage]]:
    """Return a store with a run, and messages of `count` samples of eight keys for it."""
    store = await Store.open(folder)
    run = await StoredLab(store).started_run()
    messages: list[SamplesMessage] = []
    numbers = values(min(count, 100_000) or 1)
    for number in range(count // BATCH):
        at = T0 + number * BATCH * 1000
        first = (number * BATCH) % max(1, len(numbers) - BATCH + 1)
        info = MetricInfo(key=f"net.latency{number % KEYS}", unit="ms")
        series = pack(info, times(BATCH, at), numbers[first : first + BATCH])
        batch = SampleBatch(run=run, job=ids.job_of(run, 1), attempt=1, series=(series,))
        messages.append(samples(batch, first=number + 1))
    return store, messages


def lines(count: int) -> bytes:
    return b"".join(b"::metric net::latency %.3fms\n" % (each * 1e3) for each in values(count))


def parsed_per_s(text: bytes, count: int) -> float:
    taken: list[SampleBatch] = []
    source = Batcher(SystemClock(), taken.append).source("run", "job", 1)
    reader = MetricLines(MetricGate(source.add))
    began = time.perf_counter()
    for at in range(0, len(text), 65536):
        reader.feed(text[at : at + 65536], T0)
    reader.close(T0)
    source.close()
    took = time.perf_counter() - began
    assert sum(batch.count for batch in taken) == count
    return count / took


def split_per_s(text: bytes, count: int) -> float:
    began = time.perf_counter()
    found = [
        (words[1], float(words[2].removesuffix(b"ms")))
        for line in text.split(b"\n")
        if len(words := line.split(b" ")) == 3
    ]
    assert len(found) == count
    return count / (time.perf_counter() - began)


def sqlite_rows_per_s(path: Path, count: int) -> float:
    """Put rows into SQLite as one would at first: an index on series and time, 1,000 a commit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE samples (series INT, at INT, value REAL, PRIMARY KEY (series, at))")
    numbers, instants = values(BATCH), times(BATCH, 0)
    began = time.perf_counter()
    for number in range(count // BATCH):
        base = T0 + number * BATCH * 1000
        rows = [
            (number % KEYS, base + at, value) for at, value in zip(instants, numbers, strict=True)
        ]
        db.executemany("INSERT INTO samples VALUES (?,?,?)", rows)
        db.commit()
    took = time.perf_counter() - began
    db.close()
    return count / took


def remote_write_per_s(folder: Path, count: int) -> float:
    """Push the same samples into a Prometheus, bodies made beforehand; 0: there is none."""
    import shutil

    if shutil.which("prometheus") is None:
        return 0.0
    server = PrometheusServer(folder)
    server.start()
    try:
        begin = int(time.time() * 1000) - 1_500_000
        numbers = values(10_000)
        bodies = [
            remote.request(
                {
                    (("__name__", f"tshrag_latency{key}"), ("agent", "a1")): dict(
                        enumerate(numbers[: 10_000 // KEYS], begin + number * (10_000 // KEYS))
                    )
                    for key in range(KEYS)
                }
            )
            for number in range(max(1, count // 10_000))
        ]
        began = time.perf_counter()
        for body in bodies:
            request = urllib.request.Request(
                f"{server.url}/api/v1/write", body, remote.HEADERS, method="POST"
            )
            urllib.request.urlopen(request, timeout=60).close()
        return len(bodies) * 10_000 / (time.perf_counter() - began)
    finally:
        server.stop()


def plain_duckdb_ms(count: int, sql: str, rounds: int) -> list[float]:
    """Return what DuckDB alone takes over a table of the same samples."""
    connection = parquet.open_duckdb("1GB")
    connection.execute(
        f"CREATE TABLE samples AS SELECT 'net.latency' || (range // 1000 % {KEYS}) AS key, "
        f"make_timestamp({T0} + range * 1000) AS time, random() AS value FROM range({count})"
    )
    took: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        connection.execute(sql).fetchall()
        took.append(1e3 * (time.perf_counter() - began))
    connection.close()
    return took


def segments_of(folder: Path, count: int) -> list[Written]:
    """Write segments of `count` samples, as a sealed store has them."""
    found: list[Written] = []
    each = min(parquet.SEGMENT_SAMPLES, count)
    for number in range(count // each):
        name = f"default/2027-01-15/bench-{number:06d}-0000.parquet"
        path = folder / segments.SEALED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        connection, begin = parquet.open_duckdb("2GB"), T0 + number * each * 1000
        connection.execute(
            f"COPY (SELECT 'default' AS org, 'run-bench' AS run, 'net.latency' || (range * {KEYS} "
            f"// {each}) AS key, 'job-bench' AS job, 1::INTEGER AS attempt, 'a1' AS agent, "
            f"'' AS dut, 'ms' AS unit, 'gauge' AS type, make_timestamp({begin} + "
            "range * 1000 + (random() * 300)::BIGINT) AS time, "
            "round(exp(1 + 0.5 * sqrt(-2 * ln(random() + 1e-12)) * cos(2 * pi() * random())), 3) "
            f"/ 1e3 AS value, 0::BIGINT AS duration_us FROM range({each})) TO "
            f"{parquet.repr_of(path)} ({parquet.FORMAT})"
        )
        connection.close()
        size, digest = parquet.sync_and_digest(path)
        facts = parquet.facts_of(path)
        found.append(
            Written(
                name=name, org="default", day="2027-01-15", samples=facts.samples, bytes=size,
                first_at=facts.first_at, last_at=facts.last_at, sha256=digest, runs=facts.runs,
            )
        )  # fmt: skip
    return found


def peak_mb(pid: int) -> float:
    """Return the greatest memory that a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0
