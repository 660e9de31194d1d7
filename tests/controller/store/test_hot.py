import sqlite3
from pathlib import Path
from typing import Any

from tests.support.builders import ORG, T0
from tests.support.stored import LATENCY, StoredLab, a_batch, a_series, samples
from tshrag_common import ids
from tshrag_common.ids import RunId
from tshrag_common.metric_requests import GetSeries
from tshrag_common.metrics import MetricInfo, SampleBatch, Series
from tshrag_controller.store import queries, series
from tshrag_controller.store.hot import HotLimits
from tshrag_controller.store.store import Store, StoreOptions


async def values(store: Store, run: RunId, key: str = "net.latency", **more: Any) -> list[float]:
    asked = GetSeries(run=run, key=key, **more)
    answer = await store.query(lambda db: series.get_series(db, ORG, asked))
    return list(answer.value)


async def test_each_batch_is_stored_once_however_often_it_comes(store: Store) -> None:
    run = await StoredLab(store).started_run()
    message = samples(a_batch(run, a_series([1, 2])), a_batch(run, a_series([3], at=T0 + 9_000)))
    for expected in ((3, 2), (0, 2), (0, 2)):
        (outcome,) = await store.take_samples([message])
        assert (outcome.samples, outcome.upto) == expected
    overlap = samples(*message.batches, a_batch(run, a_series([4], at=T0 + 10_000)))
    (outcome,) = await store.take_samples([overlap])
    assert (outcome.samples, outcome.upto) == (1, 3)
    assert await values(store, run) == [1, 2, 3, 4]
    assert (await store.query(queries.counters))["samples"] == 4


async def test_the_same_holds_over_a_restart(store: Store) -> None:
    run = await StoredLab(store).started_run()
    message = samples(a_batch(run, a_series([1, 2])))
    await store.take_samples([message])
    again = await Store.open(store.folder)
    (outcome,) = await again.take_samples([message])
    assert (outcome.samples, outcome.upto) == (0, 1)
    more = samples(a_batch(run, a_series([3], at=T0 + 5000)), first=2)
    await again.take_samples([more])
    assert await values(again, run) == [1, 2, 3]
    await again.close()


async def test_a_gap_takes_nothing_and_says_from_where(store: Store) -> None:
    run = await StoredLab(store).started_run()
    first = samples(a_batch(run, a_series([1])))
    third = samples(a_batch(run, a_series([3])), first=3)
    outcomes = await store.take_samples([first, third])
    assert [(each.upto, each.gap_from) for each in outcomes] == [(1, 0), (1, 2)]
    assert await values(store, run) == [1]


async def test_a_new_store_takes_the_newest_first_and_then_what_was_before(store: Store) -> None:
    run = await StoredLab(store).started_run()
    parts = [samples(a_batch(run, a_series([n], at=T0 + n)), first=n) for n in range(1, 7)]
    await store.take_samples(parts[3:5], "newest")
    assert await values(store, run) == [4, 5]
    assert await store.two_parts() == [("a1", "samples", "m1", 4, 0)]
    await store.take_samples(parts[:2], "rest")
    again = await Store.open(store.folder)
    (outcome,) = await again.take_samples([parts[5]], "newest")
    assert (outcome.upto, outcome.whole) == (6, 2)
    outcomes = await again.take_samples(parts[:5], "rest")
    assert [(each.samples, each.whole) for each in outcomes] == [
        (0, 2), (0, 2), (1, 6), (0, 6), (0, 6),
    ]  # fmt: skip
    assert await values(again, run) == [1, 2, 3, 4, 5, 6]
    assert await again.two_parts() == []
    await again.close()


async def test_a_new_spool_counts_from_one_again(store: Store) -> None:
    run = await StoredLab(store).started_run()
    await store.take_samples([samples(a_batch(run, a_series([1])))])
    fresh = samples(a_batch(run, a_series([2], at=T0 + 1)), spool="m2")
    (outcome,) = await store.take_samples([fresh])
    assert (outcome.samples, outcome.upto) == (1, 1)
    assert await values(store, run) == [1, 2]
    assert ("a1", "samples", "m2", 1) in await store.marks()


async def test_what_comes_late_of_an_old_spool_is_not_stored_twice(store: Store) -> None:
    run = await StoredLab(store).started_run()
    old = samples(a_batch(run, a_series([1])))
    new = samples(a_batch(run, a_series([2], at=T0 + 1)), spool="m2")
    for message, expected in ((old, 1), (new, 1), (old, 0), (new, 0)):
        (outcome,) = await store.take_samples([message])
        assert outcome.samples == expected
    assert await values(store, run) == [1, 2]


async def test_one_bad_series_does_not_take_its_company_with_it(store: Store) -> None:
    run = await StoredLab(store).started_run()
    await store.take_samples([samples(a_batch(run, a_series([1])))])
    other = MetricInfo(key="net.latency", unit="bytes")
    bad = a_series([7, 8], other, at=T0 + 5000)
    nan = Series(key="net.jitter", times=a_series([1]).times, values=b"\0" * 6 + b"\xf8\x7f")
    good = a_series([5], MetricInfo(key="net.loss"))
    (outcome,) = await store.take_samples([samples(a_batch(run, bad, nan, good), first=2)])
    assert (outcome.upto, outcome.samples) == (2, 1)
    assert [line.split(":")[0] for line in outcome.refused] == ["metric_conflict", "metric_value"]
    assert outcome.refused[0] == "metric_conflict: net.latency: net.latency is in ms, not in bytes"
    assert await values(store, run) == [1]
    assert await values(store, run, "net.loss") == [5]
    kept = await store.query(lambda db: db.execute("SELECT key, count FROM refused").fetchall())
    assert kept == [("net.jitter", 1), ("net.latency", 2)]


async def test_an_agent_stores_nothing_of_attempts_that_it_does_not_hold(store: Store) -> None:
    run = await StoredLab(store).started_run()
    alien = samples(a_batch(run, a_series([1])), agent="a2")
    unknown = samples(a_batch(run, a_series([1]), attempt=2))
    batch = SampleBatch(run=run, job="job-1; DROP", attempt=1, series=(a_series([1]),))
    hostile = samples(batch, first=2)
    outcomes = await store.take_samples([alien, unknown, hostile])
    codes = [each.refused[0].split(":")[0] for each in outcomes]
    assert codes == ["not_holder", "not_holder", "invalid_id"]
    assert all(not each.samples for each in outcomes)


async def test_samples_of_a_host_outside_any_attempt_are_kept_apart(store: Store) -> None:
    idle = SampleBatch(series=(a_series([0.5], MetricInfo(key="host.load")),))
    (outcome,) = await store.take_samples([samples(idle)])
    assert (outcome.samples, outcome.refused) == (1, ())
    rows = await store.query(lambda db: db.execute("SELECT run, key FROM series").fetchall())
    assert rows == [(0, "host.load")]


async def test_a_batch_that_was_taken_back_is_stored_whole_at_the_second_try(
    store: Store,
) -> None:
    run = await StoredLab(store).started_run()
    message = samples(a_batch(run, a_series([1, 2])))

    def torn(db: sqlite3.Connection) -> None:
        assert store._hot.store(message).samples == 2
        raise sqlite3.OperationalError("disk I/O error")

    try:
        await store._writer.call(torn)
    except Exception as error:
        assert "disk I/O" in str(error)
    (outcome,) = await store.take_samples([message])
    assert outcome.samples == 2
    assert await values(store, run) == [1, 2]


async def test_attempts_of_a_job_are_series_of_their_own(store: Store) -> None:
    lab = StoredLab(store)
    run = await lab.started_run()
    await store.take_samples([samples(a_batch(run, a_series([1])))])
    lab.ended(lab.fence(run), "error")
    lab.pass_time(5)
    await lab.write()
    await store.take_samples([samples(a_batch(run, a_series([9]), attempt=2), first=2)])
    rows = await store.query(
        lambda db: db.execute("SELECT serial, attempt, key, unit FROM series").fetchall()
    )
    assert rows == [(1, 1, LATENCY.key, "ms"), (1, 2, LATENCY.key, "ms")]
    assert ids.job_of(run, 1) in lab.lab.jobs


async def test_a_tap_hears_what_is_new_once_and_without_what_was_refused(store: Store) -> None:
    run = await StoredLab(store).started_run()
    heard: list[tuple[str, list[tuple[str, int]]]] = []

    def hear(agent: str, batches: tuple[SampleBatch, ...]) -> None:
        told = [(each.key, len(each)) for batch in batches for each in batch.series]
        heard.append((agent, told))

    store.tap(hear)
    nan = a_series([float("nan")], MetricInfo(key="net.jitter"))
    message = samples(a_batch(run, a_series([1, 2]), nan))
    await store.take_samples([message, message])
    await store.take_samples([message])
    assert heard == [("a1", [("net.latency", 2)])]


async def test_a_flood_of_series_leaves_a_counter_behind_and_no_rows(tmp_path: Path) -> None:
    limits = HotLimits(run_series=1000)
    store = await Store.open(tmp_path / "flooded", options=StoreOptions(limits=limits))
    run = await StoredLab(store).started_run()
    for number in range(20):
        flood = [a_series([1.0], MetricInfo(key=f"x.y{number}_{at}")) for at in range(1000)]
        await store.take_samples([samples(a_batch(run, *flood), first=number + 1)])
    counted = await store.query(
        lambda db: (
            db.execute("SELECT count(*) FROM series").fetchone()[0],
            db.execute("SELECT key, count FROM hot.refused").fetchall(),
            db.execute("SELECT value FROM hot.totals WHERE name='series_overflow'").fetchone()[0],
        )
    )
    assert counted == (1000, [("…", 19_000)], 19_000)
    await store.close()
