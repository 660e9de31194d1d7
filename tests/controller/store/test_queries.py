from functools import partial

import pytest

from tests.support.builders import ORG, T0, S
from tests.support.stored import StoredLab, a_batch, a_series, samples
from tshrag_common import ids
from tshrag_common.errors import ErrorReport, LabError, NotFound
from tshrag_common.ids import OrgId
from tshrag_common.metric_requests import GetSeries, ListMetrics
from tshrag_common.metrics import MetricInfo
from tshrag_common.requests import ListJobs, ListRuns, RunsAnswer
from tshrag_controller.store import queries, series
from tshrag_controller.store.store import Store

OTHER = OrgId("other")


async def runs(store: Store, org: OrgId = ORG, **asked: object) -> RunsAnswer:
    request = ListRuns(**asked)  # type: ignore[arg-type]  # fields of any type
    return await store.query(partial(queries.list_runs, org=org, asked=request))


async def test_runs_come_newest_first_in_pages_by_state_and_by_part_of_the_name(
    store: Store,
) -> None:
    lab = StoredLab(store)
    made = [await lab.started_run(number=number, name=f"Night-{number}") for number in range(1, 6)]
    lab.ended(lab.fence(made[0]))
    await lab.write()
    newest = [run.id for run in (await runs(store)).runs]
    assert newest == list(reversed(made))
    page = await runs(store, limit=2, offset=2)
    assert ([run.id for run in page.runs], page.more) == ([made[2], made[1]], True)
    assert not (await runs(store, limit=2, offset=3)).more
    assert [run.id for run in (await runs(store, state="passed")).runs] == [made[0]]
    assert [run.id for run in (await runs(store, name="night-3")).runs] == [made[2]]
    assert not (await runs(store, name="%")).runs, "no wildcard of SQL comes in by a name"


async def test_no_org_sees_anything_of_another(store: Store) -> None:
    lab = StoredLab(store)
    run = await lab.started_run(key="nightly")
    assert not (await runs(store, OTHER)).runs
    for read in (
        partial(queries.get_run, org=OTHER, name=run),
        partial(queries.number_of, org=OTHER, run=run),
        partial(queries.list_jobs, org=OTHER, asked=ListJobs(id=run)),
        partial(queries.list_jobs, org=OTHER, asked=ListJobs(id=ids.job_of(run, 1))),
        partial(series.list_metrics, org=OTHER, asked=ListMetrics(run=run)),
        partial(series.get_series, org=OTHER, asked=GetSeries(run=run, key="x")),
    ):
        with pytest.raises(NotFound) as refused:
            await store.query(read)
        assert "nearest" not in refused.value.line
    assert await store.query(lambda db: queries.run_by_key(db, OTHER, "nightly")) is None
    assert await store.query(lambda db: queries.run_by_key(db, ORG, "nightly")) == run
    assert await store.query(lambda db: queries.owner_of(db, run)) == ORG


async def test_an_unknown_run_names_the_nearest_and_an_unknown_state_the_states(
    store: Store,
) -> None:
    run = await StoredLab(store).started_run()
    with pytest.raises(NotFound) as unknown:
        await store.query(lambda db: queries.get_run(db, ORG, run[:-1] + "z"))
    assert unknown.value.line == (f"unknown_run: {run[:-1] + 'z'!a} is not known; nearest: {run}")
    with pytest.raises(NotFound) as no_job:
        asked = ListJobs(id=ids.job_of(run, 9))
        await store.query(lambda db: queries.list_jobs(db, ORG, asked))
    assert no_job.value.line.endswith(f"is not known; nearest: {ids.job_of(run, 1)}")
    with pytest.raises(LabError) as state:
        await runs(store, state="pased")
    assert (
        state.value.line == "filter: state: 'pased' is no state; nearest: passed, failed, expired"
    )
    with pytest.raises(LabError, match="is no state; one of waiting, running"):
        await runs(store, state="status;DROP")
    job = ids.job_of(run, 7)
    with pytest.raises(NotFound) as no_job:
        await store.query(partial(queries.list_jobs, org=ORG, asked=ListJobs(id=job)))
    assert no_job.value.code == "unknown_job"


async def test_a_job_tells_of_all_its_attempts(store: Store) -> None:
    lab = StoredLab(store)
    run = await lab.started_run()
    error = ErrorReport(code="dut", message="no route", retryable=True)
    lab.ended(lab.fence(run), "error", error=error)
    lab.pass_time(5)
    lab.ended(lab.fence(run), "passed", exit_code=0, stopped=("pid 7",))
    await lab.write()
    asked = ListJobs(id=ids.job_of(run, 1))
    (job,) = (await store.query(partial(queries.list_jobs, org=ORG, asked=asked))).jobs
    assert (job.state, job.what) == ("passed", "true")
    assert [(each.number, each.state, each.outcome) for each in job.attempts] == [
        (1, "ended", "error"), (2, "ended", "passed"),
    ]  # fmt: skip
    assert job.attempts[0].error == error
    assert job.attempts[1].stopped == ("pid 7",)


async def test_metrics_of_a_run_by_key_and_as_a_whole(store: Store) -> None:
    run = await StoredLab(store).started_run(jobs=2)
    loss = MetricInfo(key="net.loss", type="counter")
    await store.take_samples(
        [
            samples(
                a_batch(run, a_series([1, 2, 3])),
                a_batch(run, a_series([5], at=T0 + S), serial=2),
                a_batch(run, a_series([9], loss)),
            )
        ]
    )
    asked = ListMetrics(run=run, stats=("avg", "count", "p50"))
    answer = await store.query(partial(series.list_metrics, org=ORG, asked=asked))
    assert [(each.key, each.job[-3:]) for each in answer.series] == [
        ("net.latency", "001"), ("net.latency", "002"), ("net.loss", "001"),
    ]  # fmt: skip
    assert answer.series[0].stats == {"avg": 2.0, "count": 3, "p50": 2.0}
    assert [(each.key, each.count) for each in answer.whole] == [
        ("net.latency", 4), ("net.loss", 1),
    ]  # fmt: skip
    only = ListMetrics(run=run, key="Net::L*", job=ids.job_of(run, 2))
    answer = await store.query(partial(series.list_metrics, org=ORG, asked=only))
    assert [each.key for each in answer.series] == ["net.latency"]
    assert answer.series[0].spark == (5.0,)


async def test_samples_come_in_pages_by_time_and_an_unknown_key_names_the_nearest(
    store: Store,
) -> None:
    run = await StoredLab(store).started_run()
    later, earlier = a_series(range(5, 10), at=T0 + S), a_series(range(5), at=T0)
    await store.take_samples([samples(a_batch(run, later), a_batch(run, earlier))])
    found: list[float] = []
    for offset in (0, 4, 8):
        asked = GetSeries(run=run, key="net::latency", offset=offset, limit=4)
        page = await store.query(partial(series.get_series, org=ORG, asked=asked))
        found += page.value
        assert page.more == (offset < 8)
    assert found == list(range(10))
    with pytest.raises(NotFound) as unknown:
        wrong = GetSeries(run=run, key="net.latncy")
        await store.query(partial(series.get_series, org=ORG, asked=wrong))
    assert unknown.value.line == "unknown_metric: 'net.latncy' is not known; nearest: net.latency"


def test_a_spark_has_no_more_than_forty_values() -> None:
    assert series.spark([], []) == ()
    assert series.spark([T0], [3.0]) == (3.0,)
    long = series.spark([T0 + n * S for n in range(1000)], [float(n) for n in range(1000)])
    assert len(long) == 40
    assert list(long) == sorted(long)


async def test_what_was_not_stored_is_shown_by_its_attempt(store: Store) -> None:
    run = await StoredLab(store).started_run()
    bad = a_series([float("nan"), 1.0])
    await store.take_samples([samples(a_batch(run, bad))])
    number = await store.query(lambda db: queries.number_of(db, ORG, run))
    jobs = await store.query(lambda db: queries._attempts(db, number, [1]))
    ((attempt,),) = jobs.values()
    assert attempt.notices[0].startswith("net.latency: 2 not stored: metric_value")
