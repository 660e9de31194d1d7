from pathlib import Path

import pytest

from tests.support.builders import ORG, T0, a_spec
from tests.support.kept import KeptStore
from tests.support.stored import LATENCY, StoredLab, a_batch, a_series, samples
from tshrag_common.errors import NotFound
from tshrag_common.ids import RunId
from tshrag_common.metric_requests import InfosAnswer, InfoView, ListInfos
from tshrag_common.metrics import MetricInfo
from tshrag_controller.store.hot import HotLimits
from tshrag_controller.store.infos import list_infos
from tshrag_controller.store.store import Store, StoreOptions

REQUESTS = MetricInfo(
    key="net.requests", type="counter", description="asked so far", labels=("op",)
)
SPEC = a_spec(metrics=(LATENCY, REQUESTS))


async def infos(store: Store, run: RunId, key: str = "*") -> InfosAnswer:
    return await store.query(lambda db: list_infos(db, ORG, ListInfos(run=run, key=key)))


def named(answer: InfosAnswer) -> dict[str, InfoView]:
    return {info.key: info for info in answer.infos}


async def test_a_metric_is_told_with_its_writer_its_labels_and_its_span(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    lab = StoredLab(store)
    run = await lab.started_run(jobs=2, spec=SPEC)
    read = MetricInfo(key="net.requests.op_read", type="counter")
    host = MetricInfo(key="attempt.cpu", unit="%")
    await store.take_samples(
        [samples(
            a_batch(run, a_series([1, 2, 3]), a_series([5], read), a_series([0.5], host)),
            a_batch(run, a_series([4], at=T0 + 9_000_000), serial=2),
        )]
    )  # fmt: skip
    found = named(await infos(store, run))
    assert list(found) == ["attempt.cpu", "net.latency", "net.requests", "net.requests.op_read"]
    latency = found["net.latency"]
    assert (latency.unit, latency.type, latency.declared) == ("ms", "gauge", True)
    assert (latency.series, latency.count) == (2, 4)
    assert (latency.first_at, latency.last_at) == (T0, T0 + 9_000_000)
    assert latency.writers and latency.writers != ("agent",)
    assert found["attempt.cpu"].writers == ("agent",)
    labelled = found["net.requests.op_read"]
    assert (labelled.labels, labelled.description) == (("op",), "asked so far")
    silent = found["net.requests"]
    assert (silent.count, silent.first_at, silent.declared) == (0, 0, True)
    assert list(named(await infos(store, run, "net::lat*"))) == ["net.latency"]
    await store.close()


async def test_what_is_beyond_a_cap_is_an_overflow(tmp_path: Path) -> None:
    store = await Store.open(tmp_path, options=StoreOptions(limits=HotLimits(run_series=1)))
    lab = StoredLab(store)
    run = await lab.started_run(spec=SPEC)
    other = MetricInfo(key="net.other")
    await store.take_samples([samples(a_batch(run, a_series([1]), a_series([1, 2], other)))])
    found = named(await infos(store, run))
    assert (found["…"].overflow, found["…"].refused) == (2, 2)
    assert found["net.latency"].overflow == 0
    await store.close()


async def test_sealed_samples_count_as_those_that_are_not(tmp_path: Path) -> None:
    kept = KeptStore(tmp_path)
    await kept.begin()
    await kept.arrive()

    async def told() -> dict[str, InfoView]:
        return named(await infos(kept.store, kept.run))

    before = await told()
    assert sum(info.count for info in before.values()) == 200
    kept.pass_days(1)
    await kept.keeper.round()
    assert await told() == before
    await kept.arrive()
    after = await told()
    assert sum(info.count for info in after.values()) == 400
    assert {key: info.series for key, info in after.items()} == {
        key: info.series for key, info in before.items()
    }
    await kept.store.close()


async def test_a_run_of_nobody_is_not_found(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    with pytest.raises(NotFound):
        await infos(store, RunId("01K" + "0" * 23))
    await store.close()
