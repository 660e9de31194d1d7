"""An agent whose settings were changed while an attempt lived that they know no more."""

import asyncio
from pathlib import Path

import msgspec

from tests.support.agent_process import an_agent
from tests.support.leader import Leader
from tests.support.nats_server import NatsServer
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import AttemptRow, Begin, DutFence
from tshrag_agent.settings import AgentSettings, AgentTable
from tshrag_common import wire
from tshrag_common.ids import DutId
from tshrag_common.jobs import JobSpec, Need, Target
from tshrag_common.labkeys import new_lab


async def test_an_agent_starts_although_a_dut_of_its_journal_is_not_configured_any_more(
    tmp_path: Path,
) -> None:
    server = NatsServer(tmp_path / "nats")
    await asyncio.to_thread(server.start)
    leader = await Leader.begin(server, new_lab())
    board, target = DutId("board"), Target(runtime="ssh")
    spec = JobSpec(kind="command", argv=("true",), need=Need(target=target, role="dut"))
    start = msgspec.structs.replace(leader.a_start(), dut=board)
    settings = AgentSettings(agent=AgentTable(name="a1", store=str(tmp_path / "store")))
    journal = await Journal.open(settings.state / "journal.db")
    row = AttemptRow(fence=start.fence, start=wire.body(start), spec=msgspec.msgpack.encode(spec))
    await journal.write(Begin(row), DutFence(board, start.fence))
    await journal.close()
    async with an_agent(tmp_path, leader, server.url):
        (ended,) = await leader.until_ended(start)
        assert ended.error is not None
        assert (ended.outcome, ended.error.code) == ("error", "no_transport")
    await leader.bus.close()
    await asyncio.to_thread(server.stop)
