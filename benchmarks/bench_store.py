"""The store of samples: lines into a spool, ingest, live reads, hot and cold queries, bytes.

Everything stands beside a limit of the same minute and the same data: the splitting of the lines,
a plain SQLite loop, a Prometheus that takes remote writes, DuckDB over one table, raw columns.
"""

import asyncio
import shutil
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec

from benchmarks import stored_data as data, work
from benchmarks.harness import Figure, Scale, a_lab, figure, run_async
from tshrag_common import store_requests as sr
from tshrag_common.client import Client
from tshrag_controller.store import parquet, segments
from tshrag_controller.store.keep import Keeper, Rules
from tshrag_controller.store.query_process import Ask
from tshrag_controller.store.querying import Queries
from tshrag_controller.store.tail import Scope

HOT, COLD, LIVE_PER_S = 1_000_000, 100_000_000, 50_000
HOT_SQL = "SELECT key, count(*), avg(value), max(value) FROM samples GROUP BY key"


def measure(scale: Scale) -> list[Figure]:
    return run_async(_measure(scale))


async def _measure(scale: Scale) -> list[Figure]:
    folder = Path(tempfile.mkdtemp(prefix="tshrag-bench-store-"))
    try:
        return [
            await asyncio.to_thread(_lines, scale),
            *await _ingest(scale, folder),
            *await _hot(scale, folder / "hot"),
            *await _cold(scale, folder / "cold"),
            await _live(scale),
        ]
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _lines(scale: Scale) -> Figure:
    """Lines of a load until they are batches for the journal."""
    lines = scale.of(200_000, 2000)
    text = data.lines(lines)
    ours = [data.parsed_per_s(text, lines) for _ in range(scale.of(5, 1))]
    limits = [data.split_per_s(text, lines) for _ in range(scale.of(5, 1))]
    return figure(
        "store_lines", "lines '::metric KEY VALUE' parsed, checked and batched for the spool",
        "lines/s", ours=ours, limits=limits, limit_is="the same lines split into key and number",
    )  # fmt: skip


async def _ingest(scale: Scale, folder: Path) -> list[Figure]:
    """Batches of 1,000 into the store; beside it the same samples elsewhere."""
    count, rounds = scale.of(1_000_000, 4000), scale.of(3, 1)
    ours: list[float] = []
    loops: list[float] = []
    pushed: list[float] = []
    for number in range(rounds):
        store, messages = await data.a_store(folder / f"in-{number}", count)
        began = time.perf_counter()
        for at in range(0, len(messages), 8):
            await store.take_samples(messages[at : at + 8])
        ours.append(count / (time.perf_counter() - began))
        await store.close()
        loops.append(
            await asyncio.to_thread(data.sqlite_rows_per_s, folder / f"rows-{number}", count)
        )
        pushed.append(
            await asyncio.to_thread(data.remote_write_per_s, folder / f"p-{number}", count)
        )
    limits = {"sqlite": (loops, "rows into SQLite, 1,000 a transaction")}
    if all(pushed):
        limits["prometheus"] = (pushed, "remote write into Debian's Prometheus, 10,000 a request")
    return [
        figure(
            f"store_ingest_vs_{name}",
            "samples stored, batches of 1,000, committed and synced",
            "samples/s",
            ours=ours,
            limits=values,
            limit_is=limit_is,
            aim=500_000,
        )
        for name, (values, limit_is) in limits.items()
    ]


async def _hot(scale: Scale, folder: Path) -> list[Figure]:
    """One million samples in the live tail: how long a query takes, and what they weigh."""
    count = scale.of(HOT, 10_000)
    store, messages = await data.a_store(folder, count)
    await store.take_samples(messages)
    queries = Queries(store)
    asked = Ask(sql=HOT_SQL, scope=Scope(org="default"), folder=str(folder))
    await queries.ask(msgspec.structs.replace(asked, sql="SELECT 1"))  # the process is there
    first = await _ms(lambda: queries.ask(asked))
    ours = [await _ms(lambda: queries.ask(asked)) for _ in range(scale.of(15, 2))]
    plain = await asyncio.to_thread(data.plain_duckdb_ms, count, HOT_SQL, scale.of(15, 2))
    await queries.close()
    hot_bytes = await store.query(_chunk_bytes)
    keeper = Keeper(store, f"file://{folder / 'objects'}", {}, Rules())
    await keeper.round(everything=True)
    sealed = await store.query(segments.segments)
    cold_bytes = sum(each.bytes for each in sealed)
    await store.close()
    raw = [16.0]
    return [
        figure(
            "store_hot_query", f"count, mean and max by key of {count:,} new samples",
            "ms", ours=ours, limits=plain, limit_is="DuckDB over a table in memory, same process",
            aim=100, better="lower", facts={"first_ms": first},
        ),
        figure(
            "store_bytes_hot", "bytes of a sample in the live tail", "B", ours=[hot_bytes / count],
            limits=raw, limit_is="raw columns of instants and doubles", aim=12, better="lower",
        ),
        figure(
            "store_bytes_cold", "bytes of a sample in a segment", "B", ours=[cold_bytes / count],
            limits=raw, limit_is="raw columns of instants and doubles", aim=4, better="lower",
        ),
    ]  # fmt: skip


def _chunk_bytes(db: sqlite3.Connection) -> int:
    size = "length(at) + length(value) + coalesce(length(duration), 0) + 40"
    sql = f"SELECT sum({size}) FROM hot.chunks_1"
    return int(db.execute(sql).fetchone()[0])


async def _cold(scale: Scale, folder: Path) -> list[Figure]:
    """A hundred million samples in segments: how long a query takes, and its memory."""
    count = scale.of(COLD, 200_000)
    store, _ = await data.a_store(folder, 0)
    written = await asyncio.to_thread(data.segments_of, folder, count)
    await store.change(lambda db: segments.register(db, written, "local", store.now()))
    queries = Queries(store, timeout_s=120.0)
    asked = Ask(sql=HOT_SQL, scope=Scope(org="default"), folder=str(folder))
    await queries.ask(asked)
    peaks: list[float] = []
    ours: list[float] = []
    limits: list[float] = []
    for _ in range(scale.of(5, 1)):
        ours.append(await _ms(lambda: queries.ask(asked)) / 1000)
        peaks.append(data.peak_mb(queries.pid))
        limits.append(await asyncio.to_thread(_plain_scan_s, folder))
    await queries.close()
    await store.close()
    return [
        figure(
            "store_cold_query", f"count, mean and max by key of {count:,} samples in segments",
            "s", ours=ours, limits=limits, limit_is="bare DuckDB over the same files",
            aim=5, better="lower",
        ),
        figure(
            "store_cold_memory", "peak memory of the process of queries over it", "MB",
            ours=peaks, limits=[500.0] * len(peaks), limit_is="the bound", aim=500, better="lower",
        ),
    ]  # fmt: skip


def _plain_scan_s(folder: Path) -> float:
    connection = parquet.open_duckdb("4GB")
    paths = sorted((folder / segments.SEALED).rglob("*.parquet"))
    began = time.perf_counter()
    connection.execute(HOT_SQL.replace("samples", parquet.files(paths))).fetchall()
    took = time.perf_counter() - began
    connection.close()
    return took


async def _live(scale: Scale) -> Figure:
    """How old the newest sample is that a query sees, while a job emits 50,000 a second."""
    seconds = scale.of(10, 1)
    rate = scale.of(LIVE_PER_S, 5000)
    ages: list[float] = []
    trips: list[float] = []
    async with a_lab(slots=2) as lab:
        sql = "SELECT epoch_us(max(time)) FROM samples"
        step: dict[str, object] = {
            "load": "samples", "params": {"count": rate * (seconds + 2), "rate": rate},
        }  # fmt: skip
        run = await work.submit(lab.client, work.repeated(1, step))
        asked = sr.Query(sql=sql, key="samples.value", run=run)
        async for _ in _until_told(lab.client, asked):
            await asyncio.sleep(0.05)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            newest = int(str((await lab.client.query(asked)).rows[0][0]))
            ages.append((time.time_ns() // 1000 - newest) / 1000)
            trips.append(await _ms(lab.client.stats))
        await work.ended(lab.client, run)
    p99 = sorted(ages)[min(len(ages) - 1, len(ages) * 99 // 100)]
    trip = sorted(trips)[min(len(trips) - 1, len(trips) * 99 // 100)]
    return figure(
        "store_live_age",
        f"p99 of the age of the newest sample in a query's answer, at {rate:,} samples/s",
        "ms", ours=[p99], limits=[trip], limit_is="p99 of a question that reads no samples",
        aim=300, better="lower", facts={"queries": len(ages), "p50": sorted(ages)[len(ages) // 2]},
    )  # fmt: skip


async def _until_told(client: Client, asked: sr.Query) -> AsyncIterator[int]:
    """Ask until there are samples."""
    tries = 0
    while (await client.query(asked)).rows[0][0] is None:
        tries += 1
        yield tries


async def _ms(work_: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work_()
    return 1e3 * (time.perf_counter() - began)
