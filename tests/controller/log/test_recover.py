"""From a checkpoint and the LOG behind it: nothing of what has ended is lost either."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.served_lab import ScriptedAgent, ServedLab, served, until
from tests.support.stored import a_batch, a_series
from tshrag_common import ids, metric_requests as mr, requests as r
from tshrag_common.bus.connection import connect
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.clock import SystemClock
from tshrag_common.errors import LabError
from tshrag_common.streams import CHECKPOINT, LOG, MET
from tshrag_common.views import RunView
from tshrag_controller.log.follow import LogGap, replay
from tshrag_controller.reseed import Reseeded, reseed
from tshrag_controller.settings import ControllerSettings, ControllerTable, NatsTable


@pytest.fixture
async def lab(tmp_path: Path, nats_url: str) -> AsyncIterator[ServedLab]:
    async with served(tmp_path, nats_url, checkpoint_frames=10) as made:
        yield made


async def some_runs(lab: ServedLab, agent: ScriptedAgent, count: int = 4) -> list[str]:
    runs = [await lab.submit() for _ in range(count)]
    for run in runs:
        await agent.run_through(run)
    return runs


async def purged(lab: ServedLab) -> None:
    """Wait until a checkpoint has taken the beginning of the LOG away."""
    log = JetStream(lab.bus)
    first = (await log.stream_info(LOG)).first_seq

    async def is_purged() -> bool:
        await lab.submit(park=True)
        return (await log.stream_info(LOG)).first_seq > first

    await until(is_purged)


def store(lab: ServedLab) -> Path:
    return lab.settings.state / "store"


async def views(lab: ServedLab) -> tuple[RunView, ...]:
    return (await lab.client.runs(r.ListRuns(limit=100))).runs


async def after_checkpoint(lab: ServedLab) -> tuple[ScriptedAgent, tuple[RunView, ...]]:
    """Return an agent, and the runs that have ended; the LOG does not hold them all any more."""
    agent = ScriptedAgent(lab)
    await agent.hello()
    await some_runs(lab, agent)
    await lab.stop()
    log = JetStream(lab.bus)
    tail = await log.tail(CHECKPOINT)
    assert tail is not None
    info = await log.stream_info(LOG)
    assert info.messages < 5, "it is purged behind the checkpoint"
    await lab.start()
    await agent.hello()
    await some_runs(lab, agent, 2)
    return agent, await views(lab)


async def works(lab: ServedLab, agent: ScriptedAgent) -> None:
    await agent.hello()
    await some_runs(lab, agent, 1)


async def test_a_projection_that_was_deleted_is_there_again(lab: ServedLab) -> None:
    agent, before = await after_checkpoint(lab)
    await lab.stop()
    for path in store(lab).glob("projection.db*"):
        path.unlink()
    await lab.start()
    assert await views(lab) == before
    assert len(before) == 6
    await works(lab, agent)


async def test_a_projection_that_was_damaged_is_put_aside_and_made_again(lab: ServedLab) -> None:
    agent, before = await after_checkpoint(lab)
    await lab.kill()
    (store(lab) / "projection.db").write_bytes(b"this is no database " * 500)
    await lab.start()
    assert await views(lab) == before
    assert (store(lab) / "projection.db.aside-1").exists()
    await works(lab, agent)


async def test_a_projection_of_long_ago_is_replaced(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    await some_runs(lab, agent, 1)
    await lab.stop()
    old = (store(lab) / "projection.db").read_bytes()
    await lab.start()
    await agent.hello()
    await some_runs(lab, agent, 6)
    before = await views(lab)
    await lab.stop()
    for path in store(lab).glob("projection.db*"):
        path.unlink()
    (store(lab) / "projection.db").write_bytes(old)
    await lab.start()
    assert await views(lab) == before
    await works(lab, agent)


@pytest.mark.parametrize("is_kept", [True, False])
async def test_samples_that_were_damaged_are_put_aside_and_new_ones_are_taken(
    lab: ServedLab, is_kept: bool
) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    run = ids.run_id(await lab.submit())
    start = await agent.next_start(run)
    await agent.started(start)
    await agent.samples(a_batch(run, a_series([1.0])))

    async def stored() -> bool:
        answer = await agent.beat()
        agent.confirmed["samples"] = answer.samples_upto
        return answer.samples_upto == 1

    await until(stored)
    await lab.kill()
    for path in store(lab).glob("hot.db-*"):
        path.unlink()
    (store(lab) / "hot.db").write_bytes(b"garbage" * 1000)
    if not is_kept:
        await JetStream(lab.bus).purge(MET, 1_000_000)
    await lab.start()
    assert "hot.db was damaged" in " ".join((await lab.client.health()).reasons)
    await agent.beat()
    await agent.samples(a_batch(run, a_series([2.0])))
    await agent.ended(start, samples_upto=2)

    async def ended() -> bool:
        await agent.beat()
        return bool((await lab.client.run(run)).run.ended_at)

    await until(ended)
    answer = await lab.client.series(mr.GetSeries(run=run, key="net.latency"))
    assert answer.value == ((1.0, 2.0) if is_kept else (2.0,)), "what is gone is not waited for"
    reasons = " ".join((await lab.client.health()).reasons)
    assert ("data_missing" in reasons) is not is_kept


async def test_a_log_that_was_lost_is_not_led_on(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    await some_runs(lab, agent, 1)
    await lab.kill()
    for name in (LOG, CHECKPOINT):
        await lab.bus.request(f"$JS.API.STREAM.DELETE.{name}", b"", 5)
    with pytest.raises(LabError) as refused:
        await lab.start()
    assert refused.value.code == "log_behind_projection"
    lab._task = None


async def reseeded(lab: ServedLab) -> Reseeded:
    return await reseed(JetStream(lab.bus), lab.settings, SystemClock())


@pytest.mark.parametrize("gone", [(LOG,), (LOG, CHECKPOINT, "EV")])
async def test_a_log_that_was_lost_is_begun_anew_from_what_is_known(
    lab: ServedLab, gone: tuple[str, ...]
) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    ended = await some_runs(lab, agent, 3)
    alive = await lab.submit()
    before = await agent.next_start(ids.run_id(alive))
    await agent.started(before)
    agent.confirmed["reports"] = (await agent.beat()).reports_upto
    parked = await lab.submit(park=True)
    await lab.kill()
    for name in gone:
        await lab.bus.request(f"$JS.API.STREAM.DELETE.{name}", b"", 5)
    done = await reseeded(lab)
    assert sorted(done.lost) == sorted([alive, parked])
    await lab.start()
    states = {view.id: (view.state, view.reason.partition(":")[0]) for view in await views(lab)}
    assert [states[run] for run in ended] == [("passed", "")] * 3
    assert states[alive] == states[parked] == ("error", "log_lost")
    run = await lab.submit()
    await agent.hello()
    start = await agent.next_start(ids.run_id(run))
    assert start.fence > before.fence, "no fence is given twice"
    await agent.started(start)
    await agent.ended(start)

    async def passed() -> bool:
        await agent.beat()
        return (await lab.client.run(run)).run.state == "passed"

    await until(passed)
    # what was begun anew is a lab like any other: it survives the loss of its projection
    was = await views(lab)
    await lab.kill()
    for path in store(lab).glob("projection.db*"):
        path.unlink()
    await lab.start()
    assert await views(lab) == was


async def test_a_log_that_is_there_is_not_begun_anew(lab: ServedLab) -> None:
    await lab.submit(park=True)
    for end in (lab.kill, lab.stop):  # with frames, and empty behind its checkpoint
        await end()
        with pytest.raises(LabError) as refused:
            await reseeded(lab)
        assert refused.value.code == "log_in_use"
        await lab.start()


async def test_a_lab_without_a_past_is_not_begun_anew(tmp_path: Path, nats_url: str) -> None:
    table = ControllerTable(state=str(tmp_path / "fresh"))
    settings = ControllerSettings(controller=table, nats=NatsTable(url=nats_url))
    bus = await connect(nats_url, name="tests", within_s=10)
    with pytest.raises(LabError) as refused:
        await reseed(JetStream(bus), settings, SystemClock())
    assert refused.value.code == "nothing_known"
    await bus.close()


async def test_a_lab_made_anew_takes_agents_that_remember_the_old_one(
    lab: ServedLab,
) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    await some_runs(lab, agent, 2)
    agent.confirmed["reports"] = (await agent.beat()).reports_upto
    assert agent.confirmed["reports"] > 1
    await lab.kill()
    for name in (LOG, CHECKPOINT, "EV"):
        await lab.bus.request(f"$JS.API.STREAM.DELETE.{name}", b"", 5)
    for path in store(lab).glob("*.db*"):
        path.unlink()
    await lab.start()
    await works(lab, agent)


async def test_checkpoints_go_on_while_work_goes_on(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    await some_runs(lab, agent, 6)
    await purged(lab)
    await lab.kill()
    await lab.start()
    assert sum(run.state == "passed" for run in await views(lab)) == 6


async def test_a_purge_in_the_middle_of_a_start_leaves_no_hole(lab: ServedLab) -> None:
    """A standby read on behind it once, and its Lab was another one than the leader's."""
    for _ in range(4):
        await lab.submit(park=True)
    log = JetStream(lab.bus)
    info = await log.stream_info(LOG)
    await log.purge(LOG, info.last_seq)
    await lab.submit(park=True)
    with pytest.raises(LogGap, match=f"frames {info.first_seq}[.]"):
        async for _ in replay(log, "late", info.first_seq, info.last_seq):
            pass
