import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.kept import Crash, KeptStore
from tests.support.stored import samples
from tshrag_common.errors import Refused
from tshrag_common.metrics import MetricInfo, SampleBatch, pack
from tshrag_controller.store import partitions, segments
from tshrag_controller.store.columns import columns
from tshrag_controller.store.hot import HotLimits
from tshrag_controller.store.keep import Rules
from tshrag_controller.store.parquet import SegmentDamaged
from tshrag_controller.store.segments import CACHE, SEALED, SegmentsAway

ROOT = Path(__file__).parent.parent.parent.parent
STEPS = (
    "written", "sealed", "compacted", "replaced", "uploaded", "verified", "moved", "removed",
)  # fmt: skip


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[KeptStore]:
    made = KeptStore(tmp_path)
    await made.begin()
    yield made
    await made.store.close()


def files(kept: KeptStore, folder: str) -> list[Path]:
    return sorted((kept.folder / folder).rglob("*.parquet"))


async def test_samples_stay_the_same_from_the_first_day_to_the_last(kept: KeptStore) -> None:
    await kept.arrive()
    assert await kept.read() == kept.told
    kept.pass_days(1)
    moved = await kept.keeper.round()
    assert (moved.sealed, moved.samples) == (1, 200)
    assert await kept.read() == kept.told
    await kept.arrive()
    assert await kept.read() == kept.told  # one run, half of it sealed
    kept.pass_days(8)
    moved = await kept.keeper.round()
    assert (moved.sealed, moved.uploaded) == (1, 2)
    kept.pass_days(1)
    await kept.keeper.round()
    kept.pass_days(1)
    await kept.keeper.round()
    assert files(kept, f"store/{SEALED}") == []
    assert len(files(kept, "objects")) == 2
    assert await kept.read() == kept.told
    assert len(files(kept, f"store/{CACHE}")) == 2


@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_between_two_steps_loses_nothing_and_doubles_nothing(
    tmp_path: Path, step: str
) -> None:
    kept = KeptStore(tmp_path)
    await kept.begin()
    for _ in range(2):  # two partitions of one day: there is something to join
        await kept.arrive()
        await kept.store.close_partition(whatever_day=True)
    crashes = 0

    def crash(at: str) -> None:
        nonlocal crashes
        if at == step:
            crashes += 1
            raise Crash(at)

    for days in (1, 8, 1, 1):
        kept.pass_days(days)
        await kept.open(crash)
        try:
            await kept.keeper.round()
        except Crash:
            await kept.store.close()
            await kept.open()  # before anything is repaired
        assert await kept.read() == kept.told, f"day {days}, {step}"
        await kept.keeper.round()
        assert await kept.read() == kept.told, f"day {days}, {step}, healed"
        await kept.store.close()
    assert crashes
    await kept.open()
    kept.pass_days(1)
    await kept.keeper.round()
    assert await kept.read() == kept.told
    known = await kept.store.query(segments.segments)
    assert [each.place for each in known] == ["cold"]
    assert [path.name for path in files(kept, "objects")] == [known[0].name.rsplit("/")[-1]]
    assert files(kept, f"store/{SEALED}") == []
    await kept.store.close()


async def test_a_batch_that_comes_again_after_sealing_is_still_the_same(kept: KeptStore) -> None:
    await kept.arrive()
    kept.pass_days(1)
    await kept.keeper.round()
    kept._messages, told = 0, kept.told.copy()
    assert (await kept.arrive()).samples == 0  # the numbers of the first message
    assert await kept.read() == told


async def test_a_full_partition_makes_room_for_another_one_the_same_day(tmp_path: Path) -> None:
    kept = KeptStore(tmp_path)
    kept.limits = HotLimits(partition_samples=300)
    await kept.begin()
    for _ in range(5):
        await kept.arrive()
    parts = await kept.store.query(partitions.partitions)
    assert [(each.samples, each.state) for each in parts] == [
        (400, "closed"), (400, "closed"), (200, "open"),
    ]  # fmt: skip
    moved = await kept.keeper.round()
    assert (moved.sealed, moved.compacted) == (2, 0)  # its day is not over
    assert await kept.read() == kept.told
    kept.pass_days(1)
    moved = await kept.keeper.round()
    assert (moved.sealed, moved.compacted) == (1, 1)
    assert len(await kept.store.query(segments.segments)) == 1
    assert await kept.read() == kept.told
    await kept.store.close()


async def test_small_chunks_are_joined_and_keep_their_order(kept: KeptStore) -> None:
    for _ in range(40):
        await kept.arrive(3)
    before = await kept.store.query(lambda db: columns(db, 1))
    assert (await kept.keeper.round()).merged == 4
    assert await kept.store.query(lambda db: columns(db, 1)) == before
    count = await kept.store.query(
        lambda db: db.execute("SELECT count(*), sum(count) FROM hot.chunks_1").fetchone()
    )
    assert count == (4, 480)
    await kept.arrive(3)
    assert await kept.read() == kept.told


async def test_samples_of_hosts_are_sealed_without_an_org(kept: KeptStore) -> None:
    load = pack(MetricInfo(key="host.load"), [kept.now], [0.5])
    await kept.store.take_samples([samples(SampleBatch(series=(load,)), agent="a9")])
    await kept.arrive()
    await kept.keeper.round(everything=True)
    known = await kept.store.query(segments.segments)
    assert sorted((each.org, each.samples) for each in known) == [("", 1), ("default", 200)]
    (column,) = await kept.store.query(lambda db: columns(db, 0))
    assert (column.key, list(column.values)) == ("host.load", [0.5])


async def test_old_samples_go_when_the_settings_say_so(tmp_path: Path) -> None:
    kept = KeptStore(tmp_path, Rules(hot_days=1, cold_days=10))
    await kept.begin()
    await kept.arrive()
    for days in (1, 1, 8):
        kept.pass_days(days)
        await kept.keeper.round()
        assert await kept.read() == kept.told
    kept.pass_days(1)
    assert (await kept.keeper.round()).expired == 1
    assert not await kept.read()
    kept.pass_days(1)
    await kept.keeper.round()
    assert files(kept, "objects") == []
    await kept.store.close()


async def test_an_object_that_was_changed_is_refused(kept: KeptStore) -> None:
    await kept.arrive()
    for days in (1, 8, 1):
        kept.pass_days(days)
        await kept.keeper.round()
    (path,) = files(kept, "objects")
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    with pytest.raises(SegmentDamaged, match="not what was stored"):
        await kept.read()


async def test_what_the_cache_cannot_hold_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    kept = KeptStore(tmp_path, Rules(cache_bytes=100))
    await kept.begin()
    await kept.arrive()
    for days in (1, 8, 1):
        kept.pass_days(days)
        await kept.keeper.round()
    with pytest.raises(Refused, match=r"raise .store. cache_bytes"):
        await kept.read()
    await kept.store.close()


async def test_a_read_of_more_than_the_cache_holds_ends_with_an_error(tmp_path: Path) -> None:
    kept = KeptStore(tmp_path)
    await kept.begin()
    for _ in range(3):
        await kept.arrive()
        await kept.keeper.round(everything=True)
        kept.pass_days(1)
    for days in (8, 1, 1):
        kept.pass_days(days)
        await kept.keeper.round()
    known = await kept.store.query(segments.segments)
    assert [each.place for each in known] == ["cold"] * 3
    kept.keeper.rules = Rules(cache_bytes=2 * max(each.bytes for each in known))
    with pytest.raises((Refused, SegmentsAway)):
        await kept.read()
    kept.keeper.rules = Rules()
    assert await kept.read() == kept.told
    await kept.store.close()


async def test_what_is_beyond_the_series_of_a_run_is_counted_and_not_kept(tmp_path: Path) -> None:
    kept = KeptStore(tmp_path)
    kept.limits = HotLimits(run_series=3)
    await kept.begin()
    outcome = await kept.arrive(5)
    assert [each.split(":")[0] for each in outcome.refused] == ["series_cap"]
    rows = await kept.store.query(
        lambda db: db.execute("SELECT key, count FROM hot.refused").fetchall()
    )
    assert rows == [("…", 5)]
    assert len(await kept.store.query(lambda db: columns(db, 1))) == 3
    await kept.store.close()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["written", "sealed", "uploaded", "moved"])
async def test_a_process_that_is_killed_while_it_moves_samples_loses_none(
    tmp_path: Path, step: str
) -> None:
    kept = KeptStore(tmp_path)
    await kept.begin()
    await kept.arrive()
    await kept.store.close()
    kept.pass_days(9)
    argv = [sys.executable, "-m", "tests.support.killed_keeper", str(tmp_path), step, str(kept.now)]
    codes = []
    for _ in range(2):  # sealed in the first round, it leaves in the second
        done = await asyncio.to_thread(
            subprocess.run, argv, cwd=ROOT, timeout=50, capture_output=True, check=False
        )
        codes.append(done.returncode)
        await kept.open()
        assert await kept.read() == kept.told
        await kept.store.close()
    assert -signal.SIGKILL in codes
    await kept.open()
    await kept.keeper.round()
    assert await kept.read() == kept.told
    await kept.store.close()
