"""A lab whose state was lost and that begins anew, with agents that remember the old one."""

from pathlib import Path

from tests.support.builders import TestLab, facts
from tests.support.served_lab import ScriptedAgent, new_run, served
from tshrag_agent.attempts.fences import Fences
from tshrag_common.bus.connection import connect
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.ids import AgentId, Fence
from tshrag_common.reports import Ended, Hello, ReportBatch
from tshrag_common.streams import all_streams
from tshrag_controller.core.on_agent import on_reports


async def test_agents_heed_a_lab_that_was_made_anew(tmp_path: Path, nats_url: str) -> None:
    fences = Fences()
    for name in ("one", "two"):
        async with served(tmp_path / name, nats_url) as lab:
            await lab.restart()
            agent = ScriptedAgent(lab)
            await agent.hello()
            await lab.submit(run=new_run())
            health = await lab.client.health()
            assert fences.hear(health.epoch, 1)
        bus = await connect(nats_url, name="tests", within_s=10)
        for stream in all_streams():
            await JetStream(bus).delete_stream(stream.name)
        await bus.close()


async def test_a_lost_projection_is_made_again_from_a_log_that_is_whole(
    tmp_path: Path, nats_url: str
) -> None:
    async with served(tmp_path, nats_url) as lab:
        run = await lab.submit(park=True)
        await lab.kill()
        for file in (lab.settings.state / "store").glob("projection.db*"):
            file.unlink()
        await lab.start()
        assert (await lab.client.run(run)).run.id == run


def test_an_agent_with_more_than_a_batch_to_tell_joins_a_lab_made_anew() -> None:
    lab = TestLab()
    a1 = AgentId("a1")
    old = tuple(Ended(at=1, fence=Fence(n), outcome="passed") for n in range(1, 4))
    on_reports(lab.begin(), ReportBatch(agent=a1, spool="s1", first_seq=1, reports=old))
    assert not lab.lab.agents
    said = (old[0], Hello(at=1, facts=facts("a1")))
    on_reports(lab.begin(), ReportBatch(agent=a1, spool="s1", first_seq=4, reports=said))
    assert lab.lab.agents[a1].applied == 5
