"""A controller and a real agent in this process, on one server; what people do goes through it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.agent_process import A1, end_shepherd
from tests.support.served_lab import ServedLab, served, until
from tshrag_agent.daemon import Daemon
from tshrag_agent.process import opened
from tshrag_agent.settings import AgentSettings, AgentTable, DutTable


class LabWithAgent:
    """The controller with its client, and the agent ``a1``."""

    def __init__(self, lab: ServedLab, agent: Daemon) -> None:
        self.lab, self.agent = lab, agent


@asynccontextmanager
async def lab_with_agent(
    folder: Path, url: str, duts: tuple[DutTable, ...] = ()
) -> AsyncIterator[LabWithAgent]:
    """Run both while the block lasts; the agent is online when it begins."""
    async with served(folder, url) as lab, an_agent_of(lab, folder, duts) as agent:
        yield LabWithAgent(lab, agent)


@asynccontextmanager
async def an_agent_of(
    lab: ServedLab, folder: Path, duts: tuple[DutTable, ...] = ()
) -> AsyncIterator[Daemon]:
    """Be the agent ``a1`` of a lab."""
    table = AgentTable(
        name="a1", slots=4, store=str(folder / "store"), cache=str(folder / "cache"),
        beat_s=0.2, drain_s=0.1, sample_s=0,
    )  # fmt: skip
    settings = AgentSettings(agent=table, dut=duts)
    bundle = lab.keys.plain_agent(A1, lab.url)

    async def is_online() -> bool:
        return any(each.state == "online" for each in (await lab.client.agents()).agents)

    try:
        async with opened(settings, bundle) as daemon, asyncio.TaskGroup() as group:
            group.create_task(daemon.serve())
            try:
                await until(is_online, 20.0)
                yield daemon
            finally:
                daemon.stop()
    finally:
        await asyncio.to_thread(end_shepherd, folder / "store")
