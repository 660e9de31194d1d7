"""A job that kills its agent: it is adopted a few times, then it is the job that ends."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess
from tests.support.leader import Leader
from tests.support.nats_server import NatsServer
from tshrag_agent.attempts.recover import MOST_KILLED
from tshrag_common.ids import AgentId
from tshrag_common.jobs import JobSpec
from tshrag_common.labkeys import new_lab
from tshrag_common.reports import Started


@pytest.fixture
async def leader(tmp_path: Path) -> AsyncIterator[tuple[Leader, NatsServer]]:
    server = NatsServer(tmp_path / "nats")
    await asyncio.to_thread(server.start)
    leader = await Leader.begin(server, new_lab())
    yield leader, server
    await leader.bus.close()
    await asyncio.to_thread(server.stop)


async def started_again(leader: Leader, agent: AgentProcess, *options: str) -> None:
    """Start the agent as its supervisor would, and wait for its hello."""
    known = len(leader.hellos)
    agent.start(*options)
    await leader.until(lambda: len(leader.hellos) > known, 40)


async def a_job_that_runs(leader: Leader, agent: AgentProcess, *options: str) -> object:
    await started_again(leader, agent, *options)
    spec = JobSpec(kind="command", argv=("/bin/sh", "-c", "echo up; sleep 300"))
    start = await leader.start(spec)
    await leader.until(lambda: any(isinstance(r, Started) for r in leader.reports), 40)
    return start


async def test_an_attempt_under_which_agents_die_is_given_up(
    tmp_path: Path, leader: tuple[Leader, NatsServer]
) -> None:
    led, server = leader
    agent = AgentProcess(tmp_path / "a1", led.keys.plain_agent(AgentId("a1"), server.url))
    try:
        start = await a_job_that_runs(led, agent)
        for _ in range(MOST_KILLED - 1):
            agent.kill9()
            await started_again(led, agent)
            assert not led.ends
        agent.kill9()
        await started_again(led, agent)
        await led.until(lambda: led.ends, 40)
        (ended,) = led.ends.values()
        assert ended.error is not None
        assert (ended.outcome, ended.error.code) == ("error", "agent_killed")
        assert ended.error.message == "3 agents were killed while it ran"
        assert ended.error.retryable
        again = await led.start(JobSpec(kind="command", argv=("true",)))  # the agent lives on
        (ended,) = await led.until_ended(again, within_s=40)
        assert ended.outcome == "passed"
        assert start is not None
    finally:
        agent.stop()
        agent.end_shepherd()


async def test_agents_that_are_exchanged_in_order_do_not_count(
    tmp_path: Path, leader: tuple[Leader, NatsServer]
) -> None:
    led, server = leader
    agent = AgentProcess(tmp_path / "a1", led.keys.plain_agent(AgentId("a1"), server.url))
    try:
        await a_job_that_runs(led, agent, "--handover")
        for _ in range(MOST_KILLED + 1):
            assert agent.stop() == 0
            await started_again(led, agent, "--handover")
        assert not led.ends
    finally:
        agent.stop()
        agent.end_shepherd()
