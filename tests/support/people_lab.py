"""A served controller and a real agent with boards that are this machine, all in this process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.agent_process import end_shepherd
from tests.support.served_lab import ServedLab, until
from tshrag_agent.daemon import Daemon
from tshrag_agent.process import opened
from tshrag_agent.settings import AgentSettings, AgentTable, DutTable
from tshrag_agent.transport.ways import Guard, LocalWay
from tshrag_common.ids import AgentId


def on_board(command: str = "true", **more: object) -> dict[str, object]:
    """Return a profile with one job on a board of kind pi."""
    step = {"command": command, "target": "dut"}
    return {
        "name": "on-board",
        "targets": {"dut": {"runtime": "dut", "kind": "pi"}},
        "schedule": {"sequence": [step]},
        **more,
    }


@asynccontextmanager
async def an_agent_of(
    lab: ServedLab, folder: Path, boards: Sequence[str] = ("b1",), name: str = "a1"
) -> AsyncIterator[Daemon]:
    """Be a real agent of `lab` while the block lasts."""
    table = AgentTable(
        name=name, slots=2, store=str(folder / "store"), cache=str(folder / "cache"), beat_s=0.2,
        drain_s=0.1, sample_s=0,
    )  # fmt: skip
    way = LocalWay(guard=Guard(run_dir=str(folder / "run")))
    duts = tuple(DutTable(id=board, kind="pi", local=way) for board in boards)
    settings = AgentSettings(agent=table, dut=duts)
    bundle = lab.keys.plain_agent(AgentId(name), lab.url)

    async def has_duts() -> bool:
        found = {view.dut.id: view.state for view in (await lab.client.duts()).duts}
        return all(found.get(board) not in (None, "unreachable") for board in boards)  # type: ignore[call-overload]  # a name

    try:
        async with opened(settings, bundle) as daemon, asyncio.TaskGroup() as group:
            group.create_task(daemon.serve(), name="agent")
            try:
                await until(has_duts, 30.0)
                yield daemon
            finally:
                daemon.stop()
    finally:
        await asyncio.to_thread(end_shepherd, folder / "store")
