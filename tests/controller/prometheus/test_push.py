import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.kept import KeptStore
from tests.support.prometheus import PrometheusServer
from tshrag_controller.prometheus.push import Pusher, RemoteAway, Target
from tshrag_controller.store import partitions, since
from tshrag_controller.store.since import Place


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrometheusServer]:
    made = PrometheusServer(tmp_path / "prometheus")
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[KeptStore]:
    made = KeptStore(tmp_path)
    made.now = time.time_ns() // 1000 - 60_000_000
    await made.begin()
    yield made
    await made.store.close()


def a_pusher(kept: KeptStore, url: str, **more: int) -> Pusher:
    return Pusher(kept.store, Target(url=f"{url}/api/v1/write", **more))  # type: ignore[arg-type]


def wanted(kept: KeptStore) -> set[tuple[str, int, float]]:
    """Return what Prometheus should have: one sample a millisecond and series, the last one."""
    newest: dict[tuple[str, int], float] = {}
    for (name, at, value, _), _count in kept.told.items():
        newest[name.split("/")[0], at // 1000] = value
    return {(key, at, value) for (key, at), value in newest.items()}


def found(server: PrometheusServer) -> set[tuple[str, int, float]]:
    told: set[tuple[str, int, float]] = set()
    for key in ("net.latency", "cpu.load"):
        for labels, values in server.query(f"tshrag_{key.replace('.', '_')}[2h]").items():
            assert dict(labels)["agent"] == "a1"
            told |= {(key, round(at * 1000), value) for at, value in values}
    return told


@pytest.mark.slow
async def test_samples_arrive_in_a_real_prometheus_over_an_outage(
    kept: KeptStore, server: PrometheusServer
) -> None:
    pusher = a_pusher(kept, server.url)
    await pusher.begin()
    await kept.arrive()
    assert not await pusher.once()
    first = found(server)
    assert len(first) == len({(key, at) for key, at, _ in wanted(kept)}) > 50
    server.stop()
    kept.now += 1_000_000
    await kept.arrive()
    with pytest.raises(RemoteAway):
        await pusher.once()
    kept.now += 1_000_000
    await kept.arrive()
    server.start()
    again = a_pusher(kept, server.url)  # as after a restart of ours
    await again.begin()
    assert not await again.once()
    have = found(server)
    assert first < have
    assert {(key, at) for key, at, _ in have} == {(key, at) for key, at, _ in wanted(kept)}
    assert {value for _, _, value in have} <= {value for _, _, value, _ in kept.told}


@pytest.mark.slow
async def test_what_is_too_old_is_left_out_and_the_rest_goes_on(
    kept: KeptStore, server: PrometheusServer
) -> None:
    pusher = a_pusher(kept, server.url, max_age_s=86_400)
    await pusher.begin()
    kept.now -= 5 * 3_600_000_000
    await kept.arrive()  # prometheus would answer 500 to it for ever
    kept.now += 5 * 3_600_000_000
    await kept.arrive()
    assert not await pusher.once()
    assert pusher.refused + pusher.sent == len({(key, at) for key, at, _ in wanted(kept)}) > 150
    kept.now += 1_000_000
    await kept.arrive()
    assert not await pusher.once()
    young = a_pusher(kept, server.url, max_age_s=3600)
    young.place = type(young.place)()
    assert not await young.once()
    assert young.refused == 0
    assert len(found(server)) >= len({(k, at) for k, at, _ in wanted(kept) if at > 0}) // 2


async def test_nothing_is_joined_or_sealed_before_it_was_copied(kept: KeptStore) -> None:
    pusher = a_pusher(kept, "http://127.0.0.1:1")
    await pusher.begin()
    kept.keeper.copied = lambda: pusher.place
    for _ in range(20):
        await kept.arrive(2)
    assert (await kept.keeper.round()).merged == 0
    await kept.store.close_partition(whatever_day=True)
    assert (await kept.keeper.round()).sealed == 0
    with pytest.raises(RemoteAway):
        await pusher.once()
    kept.pass_days(2)  # nobody would take these any more
    assert (await kept.keeper.round()).sealed == 1
    assert not await pusher.once()  # nothing is left to send
    assert await kept.read() == kept.told
    assert await kept.store.query(partitions.partitions) == []


async def test_what_no_server_takes_is_counted_and_passed_over(
    kept: KeptStore, server: PrometheusServer
) -> None:
    pusher = Pusher(kept.store, Target(url=f"{server.url}/api/v1/nothing"))
    await pusher.begin()
    await kept.arrive()
    assert not await pusher.once()
    assert (pusher.refused, pusher.sent) == (len({(k, at) for k, at, _ in wanted(kept)}), 0)


@pytest.mark.slow
@pytest.mark.parametrize("window", ["30m", "0s"])
async def test_who_takes_over_leaves_no_gap_and_the_server_may_refuse_what_it_has(
    tmp_path: Path, kept: KeptStore, server: PrometheusServer, window: str
) -> None:
    server.stop()
    config = server.folder / "prometheus.yml"
    config.write_text(config.read_text().replace("30m", window))
    server.start()
    other = KeptStore(tmp_path / "standby")
    kept.now -= 100_000_000
    other.now = kept.now
    await other.begin()
    leader, standby = a_pusher(kept, server.url), a_pusher(other, server.url)
    await leader.begin()
    told = 0
    for second in range(90):
        kept.now = other.now = kept.now + 1_000_000
        if second % 10 == 0:
            await kept.arrive(5)
            await other.arrive(5)
        if second < 60:
            await leader.once()
        for pusher, each in ((leader, kept), (standby, other)):
            pusher._trail.note(each.now, await each.store.query(since.newest))
        told = leader.copied_at
        standby.follow(told)
    assert standby.place > Place()  # it does not begin with all that it has
    assert len(found(server)) < len(wanted(kept))
    await standby.begin()  # the leader is killed
    while await standby.once():
        pass
    assert {(key, at) for key, at, _ in found(server)} == {(key, at) for key, at, _ in wanted(kept)}
    assert (standby.refused > 0) == (window == "0s")
    await other.store.close()
