import csv
import io
import json
import random
import statistics
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.kept import KeptStore
from tests.support.stored import a_batch, a_series, samples
from tshrag_common.errors import NotFound, Refused
from tshrag_common.ids import OrgId
from tshrag_common.metrics import MetricInfo, SampleBatch, pack
from tshrag_controller.store import parquet
from tshrag_controller.store.keep import Rules
from tshrag_controller.store.query_process import Ask, Format, Ready, Told, answer
from tshrag_controller.store.querying import Queries, QueryLate
from tshrag_controller.store.segments import SEALED
from tshrag_controller.store.tail import Scope, Unpacked


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[KeptStore]:
    """Some samples are cold, some sealed, some in a closed partition, some have just come."""
    made = KeptStore(tmp_path)
    await made.begin()
    await made.arrive()
    for days in (1, 8, 1):
        made.pass_days(days)
        await made.keeper.round()
    await made.arrive()
    await made.keeper.round(everything=True)
    await made.arrive()
    await made.store.close_partition(whatever_day=True)
    await made.arrive()
    yield made
    await made.store.close()


def ask(
    kept: KeptStore,
    sql: str,
    *,
    org: str = "default",
    form: Format = "rows",
    out: str = "",
    **scope: object,
) -> Told:
    """Carry a query out in this process; what is cold is fetched by the caller."""
    where = Scope(org=org, **scope)  # type: ignore[arg-type]  # as the test says
    asked_ = Ask(sql=sql, scope=where, folder=str(kept.store.folder), format=form, out=out)
    return answer(asked_, Ready())


async def asked(kept: KeptStore, sql: str, **more: object) -> list[tuple[object, ...]]:
    told = ask(kept, sql, **more)  # type: ignore[arg-type]  # as the test says
    if told.away:
        await kept.keeper.fetch(told.away)
        told = ask(kept, sql, **more)  # type: ignore[arg-type]  # as the test says
    assert told.error is None, told.error
    return [tuple(row) for row in told.rows]


def refused(kept: KeptStore, sql: str) -> str:
    told = ask(kept, sql)
    assert told.error is not None, f"{sql}: {told.rows[:3]}"
    return told.error.message


async def test_a_query_sees_every_sample_once_wherever_it_rests(kept: KeptStore) -> None:
    assert await asked(kept, "SELECT count(*) FROM samples") == [(800,)]
    sums = {
        key: [v for (name, _, v, _) in kept.told if name.startswith(key)] for key in ("net", "cpu")
    }
    rows = await asked(
        kept,
        "SELECT key, count(*), fsum(value), min(value), max(value), sum(duration_us) "
        "FROM samples GROUP BY key ORDER BY key DESC",
    )
    for row, values in zip(rows, sums.values(), strict=True):
        assert row[1] == len(values)
        assert row[2] == pytest.approx(sum(values))
        assert row[3:5] == (min(values), max(values))
    assert rows[0][0] == "net.latency"


async def test_statistics_of_sql_are_those_of_numpy(kept: KeptStore) -> None:
    values = [value for _, _, value, _ in kept.told]
    ((avg, median, p99, stdev),) = await asked(
        kept,
        "SELECT favg(value), median(value), quantile_cont(value, 0.99), stddev_samp(value) "
        "FROM samples",
    )
    assert avg == pytest.approx(float(np.mean(values)))
    assert median == pytest.approx(statistics.median(values))
    assert p99 == pytest.approx(float(np.percentile(values, 99)))
    assert stdev == pytest.approx(statistics.stdev(values))


async def test_runs_jobs_and_series_are_views_too(kept: KeptStore) -> None:
    ((run, state, created),) = await asked(kept, "SELECT run, state, created_at FROM runs")
    assert (run, state) == (kept.run, "running")
    assert str(created).endswith("Z")
    jobs = await asked(kept, "SELECT job, name, started_at IS NULL FROM jobs ORDER BY job")
    assert [row[1:] for row in jobs] == [("job1", False), ("job2", False)]
    rows = await asked(
        kept,
        "SELECT j.name, s.key, s.samples FROM series s JOIN jobs j USING (job) ORDER BY ALL",
    )
    assert rows == [
        (name, key, 200) for name in ("job1", "job2") for key in ("cpu.load", "net.latency")
    ]


async def test_bounds_let_less_be_read(kept: KeptStore) -> None:
    first = min(at for _, at, _, _ in kept.told)
    count = "SELECT count(*) FROM samples"
    assert await asked(kept, count, since=first + 86_400_000_000) == [(600,)]
    assert await asked(kept, count, until=first + 86_400_000_000) == [(200,)]
    assert await asked(kept, count, key="net.*") == [(400,)]
    assert await asked(kept, count, run=kept.run) == [(800,)]
    assert await asked(kept, count, run="run-other") == [(0,)]
    assert ask(kept, count, since=first + 86_400_000_000).away == ()  # the cold is not asked for


async def test_an_org_sees_its_own_samples_and_those_of_hosts_only(tmp_path: Path) -> None:
    kept = KeptStore(tmp_path)
    await kept.begin()
    other = await kept.lab.started_run(number=2, org=OrgId("rivals"))
    await kept.store.take_samples([samples(a_batch(other, a_series([66.0])), spool="m9")])
    host = SampleBatch(series=(pack(MetricInfo(key="host.load"), [kept.now], [0.5]),))
    await kept.store.take_samples([samples(host, agent="a9")])
    await kept.arrive(1)
    for _ in range(2):
        seen = {
            org: sorted(await asked(kept, "SELECT DISTINCT run FROM samples", org=org))
            for org in ("default", "rivals", "strangers")
        }
        assert seen == {
            "default": sorted([("",), (kept.run,)]),
            "rivals": sorted([("",), (other,)]),
            "strangers": [("",)],
        }
        assert await asked(kept, "SELECT run FROM runs", org="rivals") == [(other,)]
        assert await asked(kept, "SELECT DISTINCT run FROM jobs", org="rivals") == [(other,)]
        await kept.keeper.round(everything=True)
    await kept.store.close()


HOSTILE = (
    "SELECT * FROM read_parquet('{sealed}')",
    "SELECT * FROM '{sealed}'",
    'SELECT * FROM "{sealed}"',
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM '/etc/passwd'",
    'WITH "/etc/hosts.csv" AS (SELECT 1) SELECT * FROM (SELECT * FROM "/etc/hosts.csv")',
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM parquet_metadata('{sealed}')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_views()",
    "SELECT * FROM pragma_database_list()",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM main.labels",
    "SELECT * FROM memory.main.samples",
    "SELECT * FROM labels",
    "SELECT * FROM tail",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('labels')",
    "SELECT current_setting('allowed_paths')",
    "SELECT getenv('HOME')",
    "SELECT getvariable('x')",
    "FROM samples; FROM runs",
    "SELECT 1; DROP VIEW samples",
    "COPY (SELECT 1) TO '/tmp/out.csv'",
    "COPY samples TO '/tmp/out.parquet'",
    "EXPORT DATABASE '/tmp/out'",
    "ATTACH '/tmp/x.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET memory_limit='100GB'",
    "PRAGMA database_list",
    "CREATE TABLE x AS SELECT 1",
    "INSERT INTO runs VALUES (1)",
    "DELETE FROM runs",
    "UPDATE runs SET state='passed'",
    "CALL duckdb_settings()",
    "EXPLAIN ANALYZE SELECT 1",
    "DESCRIBE samples",
    "SUMMARIZE samples",
    "SHOW TABLES",
    "VACUUM",
    "CHECKPOINT",
    "USE memory",
    "",
    ";",
    "SELECT",
    "SELEC 1",
    "SELECT * FROM nowhere",
    "SELECT * FROM samples AS x, lateral (SELECT * FROM read_text('/etc/passwd'))",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "SELECT [x FOR x IN (SELECT list(content) FROM read_text('/etc/passwd'))]",
    "SELECT * FROM samples WHERE value IN (SELECT size FROM read_text('/etc/passwd'))",
    "(SELECT 1) UNION ALL (SELECT size FROM read_text('/etc/passwd'))",
    "WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT size FROM read_text('/etc/passwd')) FROM a",
    "PIVOT samples ON key USING count(*)",
)


async def test_what_is_no_reading_of_the_views_is_refused(tmp_path: Path) -> None:
    kept = KeptStore(tmp_path)
    await kept.begin()
    other = await kept.lab.started_run(number=2, org=OrgId("rivals"))
    await kept.store.take_samples([samples(a_batch(other, a_series([66.0])), spool="m9")])
    await kept.keeper.round(everything=True)
    (sealed,) = (kept.store.folder / SEALED).rglob("*.parquet")
    for sql in HOSTILE:
        said = refused(kept, sql.format(sealed=sealed))
        assert said, sql
        assert "66" not in said, sql
    await kept.store.close()


async def test_the_database_itself_opens_no_other_file(kept: KeptStore) -> None:
    """The second wall: what would get past the guard still reads nothing."""
    (sealed,) = (kept.store.folder / SEALED).rglob("*.parquet")
    connection = parquet.open_duckdb()
    connection.execute(f"SET allowed_paths=['{sealed}']")
    connection.execute("SET enable_external_access=false; SET lock_configuration=true")
    duckdb = parquet.duckdb()
    for sql in (each for each in HOSTILE if "/etc/passwd" in each and "COPY" not in each):
        with pytest.raises(duckdb.Error):
            connection.execute(sql.format(sealed="/etc/passwd")).fetchall()
    for sql in ("SET enable_external_access=true", "SET memory_limit='9GB'", "INSTALL httpfs"):
        with pytest.raises(duckdb.Error):
            connection.execute(sql)
    connection.close()


async def test_a_query_that_needs_too_much_memory_says_so(kept: KeptStore) -> None:
    said = refused(kept, "SELECT count(DISTINCT hash(a.range, 7)) FROM range(60000000) a")
    assert "MB would be needed" in said


@pytest.mark.slow
async def test_a_query_that_takes_too_long_is_ended_and_the_next_one_is_answered(
    kept: KeptStore,
) -> None:
    queries = Queries(kept.store, timeout_s=20.0)
    scope = Scope(org="default", since=kept.now - 1000)
    count = Ask(sql="SELECT count(*) FROM samples", scope=scope, folder=str(kept.store.folder))
    assert (await queries.ask(count)).rows == ((600,),)
    queries.timeout_s = 0.5
    endless = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range*b.range%7=1"
    with pytest.raises(QueryLate):
        await queries.ask(Ask(sql=endless, scope=scope, folder=str(kept.store.folder)))
    queries.timeout_s = 20.0
    assert (await queries.ask(count)).rows == ((600,),)
    everything = Ask(sql=count.sql, scope=Scope(org="default"), folder=str(kept.store.folder))
    assert (await queries.ask(everything)).rows == ((800,),)  # the cold was fetched
    with pytest.raises(Refused, match="no table"):
        await queries.ask(Ask(sql="FROM secrets", scope=scope, folder=str(kept.store.folder)))
    await queries.close()


async def test_chunks_that_were_joined_are_read_anew(tmp_path: Path) -> None:
    kept = KeptStore(tmp_path)
    await kept.begin()
    ready, count = Ready(), "SELECT count(*), fsum(value) FROM samples"
    ready.cache = Unpacked(most_samples=40)
    for number in range(1, 41):
        await kept.arrive(2)
        asked_ = Ask(sql=count, scope=Scope(org="default"), folder=str(kept.store.folder))
        ((n, total),) = answer(asked_, ready).rows
        assert n == 8 * number
        assert total == pytest.approx(sum(value for _, _, value, _ in kept.told))
        if number % 20 == 0:
            assert (await kept.keeper.round()).merged
    assert len(ready.cache._kept) <= 20
    await kept.store.close()


FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")')


async def test_csv_holds_no_formulas(kept: KeptStore, tmp_path: Path) -> None:
    values = ", ".join("('" + each.replace("'", "''") + "', 1.5)" for each in FORMULAS)
    out = tmp_path / "out.csv"
    sql = f"SELECT t AS \"=cmd\", n FROM (VALUES {values}, ('plain', -2.5)) x(t, n)"
    assert ask(kept, sql, form="csv", out=str(out)).error is None
    rows = list(csv.reader(io.StringIO(out.read_bytes().decode(), newline="")))
    assert rows[0] == ["'=cmd", "n"]
    assert [row[0] for row in rows[1:]] == [*("'" + each for each in FORMULAS), "plain"]
    assert rows[-1][1] == "-2.5"
    assert out.read_text().count('"') >= 4 * len(rows)


async def test_every_format_holds_the_same_rows(kept: KeptStore, tmp_path: Path) -> None:
    duckdb = parquet.duckdb()
    sql = "SELECT time, key, value FROM samples ORDER BY ALL LIMIT 300"
    since = kept.now - 1000
    rows = await asked(kept, sql, since=since)
    assert len(rows) == 300
    for form in ("parquet", "arrow", "json", "csv"):
        out = tmp_path / form
        assert ask(kept, sql, form=form, out=str(out), since=since).error is None
    found = (
        duckdb.connect().execute(f"SELECT value FROM read_parquet('{tmp_path}/parquet')").fetchall()
    )
    wanted = [row[2] for row in rows]
    assert [row[0] for row in found] == wanted
    assert [row["value"] for row in json.loads((tmp_path / "json").read_text())] == wanted
    import nanoarrow

    stream = nanoarrow.ArrayStream.from_path(str(tmp_path / "arrow"))
    assert [row["value"] for row in stream.read_all().to_pylist()] == wanted


async def test_a_file_belongs_to_the_org_that_asked(kept: KeptStore) -> None:
    results = Queries(kept.store).results
    name, path = results.new(OrgId("default"))
    path.write_bytes(b"0123456789")
    assert results.read(OrgId("default"), name, 4, 3) == (b"456", 10)
    for org, asked_for in (("rivals", name), ("default", "../../keys.json")):
        with pytest.raises(NotFound):
            results.read(OrgId(org), asked_for, 0, 100)


async def test_random_series_survive_sealing_bit_by_bit(tmp_path: Path) -> None:
    chance = random.Random(1)
    kept = KeptStore(tmp_path, Rules(hot_days=0))
    await kept.begin()
    values = [0.0, -0.0, 5e-324, 1e-300, 2.0**63, -(2.0**63), 1 / 3]
    values += [chance.uniform(-1, 1) * 10.0 ** chance.randrange(-300, 18) for _ in range(500)]
    times = [kept.now + chance.randrange(10**9) for _ in values]
    series = pack(MetricInfo(key="x.y"), times, values)
    await kept.store.take_samples([samples(a_batch(kept.run, series))])
    await kept.keeper.round(everything=True)
    found = await asked(kept, "SELECT epoch_us(time), value FROM samples")
    as_bits = sorted((at, np.float64(value).tobytes()) for at, value in found)  # type: ignore[arg-type]
    wanted = sorted((at, np.float64(v).tobytes()) for at, v in zip(times, values, strict=True))
    assert as_bits == wanted
    await kept.store.close()
