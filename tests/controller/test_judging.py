"""What a verdict rests on, from stored samples to evidence: silence never passes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.builders import T0, S, a_spec
from tests.support.served_lab import ScriptedAgent, ServedLab, now, served, until_final
from tests.support.stored import LATENCY, StoredLab, a_batch, a_series, samples
from tshrag_common import ids
from tshrag_common.criteria import CompiledBound, CompiledCriterion, Evidence, Scope
from tshrag_common.ids import RunId
from tshrag_common.jobs import JobSpec
from tshrag_common.metrics import MetricInfo
from tshrag_common.reports import MetricNotice
from tshrag_controller.core.criteria import Expected
from tshrag_controller.core.source import Source
from tshrag_controller.judging import judge_all
from tshrag_controller.log.frames import MOST_EVENT_BYTES
from tshrag_controller.store.sources import Judged, judged
from tshrag_controller.store.store import Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "store")
    yield opened
    await opened.close()


def at_most(limit: float, scope: Scope = "run", key: str = "net.latency") -> CompiledCriterion:
    bounds = (CompiledBound(name="max", number=limit),)
    return CompiledCriterion(name="c", key=key, statistic="avg", bounds=bounds, scope=scope)


def declaring(*infos: MetricInfo) -> JobSpec:
    return a_spec(metrics=infos)


async def verdict(store: Store, run: RunId, criterion: CompiledCriterion) -> Evidence:
    found = await store.query(lambda db: judged(db, run, (criterion,)))
    (evidence,) = await asyncio.to_thread(judge_all, (criterion,), found)
    return evidence


async def with_end(store: Store, scope: Scope = "run", **end: Any) -> Evidence:
    """Judge a run of one job that stored two samples and ended with `end`."""
    lab = StoredLab(store)
    run = await lab.started_run()
    await store.take_samples([samples(a_batch(run, a_series([0.001, 0.003])))])
    lab.ended(lab.fence(run), **end)
    await lab.write()
    return await verdict(store, run, at_most(5, scope))


async def test_samples_within_their_bounds_pass(store: Store) -> None:
    evidence = await with_end(store)
    assert (evidence.verdict, evidence.samples) == ("pass", 2)
    assert evidence.value == 2.0, "in ms, as the metric is printed"


async def test_a_source_that_fell_silent_never_passes(store: Store) -> None:
    stale = MetricNotice("net", 3, "metric_stale: no answer since 12:00")
    evidence = await with_end(store, notices=(stale,))
    assert evidence.verdict == "error"
    assert evidence.reason == "samples of net.latency are stale: no answer since 12:00"


async def test_a_stale_source_beside_it_does_no_harm(store: Store) -> None:
    stale = MetricNotice("dut.board", 3, "metric_stale: no answer")
    assert (await with_end(store, notices=(stale,))).verdict == "pass"


@pytest.mark.parametrize("key", ["net.latency", "Net::Latency", "…"])
async def test_samples_that_the_agent_refused_are_missing(store: Store, key: str) -> None:
    notice = MetricNotice(key, 4, "metric_value: NaN")
    evidence = await with_end(store, notices=(notice,))
    assert (evidence.verdict, evidence.reason) == (
        "error", "4 samples of net.latency are missing",
    )  # fmt: skip


async def test_samples_that_we_refused_are_missing(store: Store) -> None:
    lab = StoredLab(store)
    run = await lab.started_run()
    other = MetricInfo(key="net.latency", unit="bytes")
    batches = (a_batch(run, a_series([0.001])), a_batch(run, a_series([7, 8], other, at=T0 + S)))
    await store.take_samples([samples(*batches)])
    lab.ended(lab.fence(run))
    await lab.write()
    evidence = await verdict(store, run, at_most(5))
    assert (evidence.verdict, evidence.reason) == (
        "error", "2 samples of net.latency are missing",
    )  # fmt: skip


@pytest.mark.parametrize("scope", ["job", "host"])
async def test_a_job_that_declares_a_metric_and_is_silent_is_an_error_beside_others_that_pass(
    store: Store, scope: Scope
) -> None:
    lab = StoredLab(store)
    run = await lab.started_run(jobs=2, spec=declaring(LATENCY))
    await store.take_samples([samples(a_batch(run, a_series([0.001])))])
    for serial in (1, 2):
        lab.ended(lab.fence(run, serial))
    await lab.write()
    evidence = await verdict(store, run, at_most(5, scope))
    if scope == "job":
        assert evidence.verdict == "error"
        assert evidence.group == ids.job_of(run, 2)
        assert evidence.counts == {"error": 1, "pass": 1}
    else:
        assert evidence.verdict == "pass", "its host has told"


async def test_a_job_that_declares_nothing_owes_nothing(store: Store) -> None:
    lab = StoredLab(store)
    run = await lab.started_run(jobs=2)
    await store.take_samples([samples(a_batch(run, a_series([0.001])))])
    for serial in (1, 2):
        lab.ended(lab.fence(run, serial))
    await lab.write()
    assert (await verdict(store, run, at_most(5, "job"))).verdict == "pass"


async def test_a_job_that_never_started_owes_nothing(store: Store) -> None:
    lab = StoredLab(store)
    lab.hello(slots=1)
    run = await lab.started_run(jobs=1, spec=declaring(LATENCY))
    await store.take_samples([samples(a_batch(run, a_series([0.001])))])
    lab.submit(lab.lab.runs[run].plan, 2)
    lab.ended(lab.fence(run))
    await lab.write()
    found = await store.query(lambda db: judged(db, run, (at_most(5, "job"),)))
    assert found.expected == (Expected((ids.job_of(run, 1),)),)


async def test_only_the_newest_attempt_of_a_job_counts(store: Store) -> None:
    lab = StoredLab(store)
    run = await lab.started_run()
    await store.take_samples([samples(a_batch(run, a_series([99.0])))])
    lab.ended(lab.fence(run), "error")
    lab.pass_time(5)
    await lab.write()
    await store.take_samples([samples(a_batch(run, a_series([0.001]), attempt=2), first=2)])
    lab.ended(lab.fence(run))
    await lab.write()
    assert (await verdict(store, run, at_most(5))).verdict == "pass"


async def test_a_key_that_nobody_told_is_an_error(store: Store) -> None:
    lab = StoredLab(store)
    run = await lab.started_run()
    lab.ended(lab.fence(run))
    await lab.write()
    evidence = await verdict(store, run, at_most(5))
    assert evidence.verdict == "error"
    assert evidence.reason == (
        "no samples of net.latency were stored; does the load emit that key?"
    )


@pytest.fixture
async def lab(tmp_path: Path, nats_url: str) -> AsyncIterator[ServedLab]:
    async with served(tmp_path, nats_url) as made:
        yield made


PROFILE = {
    "name": "t",
    "schedule": {"sequence": [{"command": "true"}]},
    "criteria": {"latency": {"metric": "net::latency", "stat": "avg", "max": "5ms"}},
}


@pytest.mark.parametrize(
    ("values", "state"), [([0.001], "passed"), ([0.009], "failed"), ([], "error")]
)
async def test_a_run_ends_as_its_criteria_say_from_the_wire_to_the_verdict(
    lab: ServedLab, values: list[float], state: str
) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    run = ids.run_id(await lab.submit(PROFILE))
    start = await agent.next_start(run)
    await agent.started(start)
    last = 0
    if values:
        last = await agent.samples(a_batch(run, a_series(values, at=now())))
    await agent.ended(start, samples_upto=last)
    await agent.beat()
    assert await until_final(lab, run) == state
    (evidence,) = (await lab.client.run(run)).run.evidence
    assert evidence.verdict == {"passed": "pass", "failed": "fail", "error": "error"}[state]


async def test_a_verdict_that_waited_when_the_controller_died_is_found(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    run = ids.run_id(await lab.submit(PROFILE))
    start = await agent.next_start(run)
    last = await agent.samples(a_batch(run, a_series([0.001], at=now())))
    await agent.ended(start, samples_upto=last)
    await lab.kill()
    await lab.start()
    await agent.beat()
    assert await until_final(lab, run) == "passed"


def test_evidence_that_no_event_can_hold_tells_groups_by_their_counts() -> None:
    criteria = tuple(
        CompiledCriterion(
            name=f"c{number}", key="k." + "x" * 190, statistic="avg",
            bounds=(CompiledBound(name="max", number=5.0),), scope="job",
        )
        for number in range(200)
    )  # fmt: skip
    jobs = tuple(ids.job_of(ids.new_run(1, 1), serial) for serial in range(1, 31))
    sources = tuple(Source(key="k." + "x" * 190, times=[T0], values=[1.0], job=job) for job in jobs)
    evidence = judge_all(criteria, Judged(sources, (Expected(),) * 200))
    assert len(msgspec.msgpack.encode(evidence)) < MOST_EVENT_BYTES
    assert evidence[0].counts == {"pass": 30}
    assert evidence[0].groups == ()
