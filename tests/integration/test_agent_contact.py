"""Who is not answered gives up what may be another's; two agents are never on one DUT."""

import asyncio
import secrets
import signal
from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess, an_agent
from tests.support.leader import Leader
from tests.support.nats_server import NatsServer
from tests.support.process_trees import living
from tests.support.ssh_server import Kind, SshServer
from tests.support.tcp_proxy import Proxy
from tests.support.waiting import wait_until
from tshrag_common.ids import AgentId, Fence
from tshrag_common.jobs import JobSpec, Need, Target
from tshrag_common.labkeys import LabKeys
from tshrag_common.reports import Started

LEASE_S = 6.0
"""So the agent gives up after two seconds of silence."""


def shell(text: str, **more: object) -> JobSpec:
    return JobSpec(kind="command", argv=("/bin/sh", "-c", text), **more)  # type: ignore[arg-type]  # any fields


def runs(leader: Leader) -> bool:
    return any(isinstance(report, Started) for report in leader.reports)


async def test_an_attempt_with_a_lease_ends_when_nobody_answers(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        leased = await leader.start(shell("sleep 300"), lease_s=LEASE_S)
        free = await leader.start(shell("sleep 6"))
        await leader.until(lambda: runs(leader))
        leader.answers = False
        (ended,) = await leader.until_ended(leased, within_s=40)
        assert ended.error is not None
        assert (ended.outcome, ended.error.code) == ("error", "lease_over")
        assert ended.error.retryable
        assert any("sleep 300" in each for each in ended.stopped)
        (ended,) = await leader.until_ended(free, within_s=40)
        assert ended.outcome == "passed"


async def test_an_attempt_goes_on_while_its_lease_is_renewed(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        start = await leader.start(shell("sleep 5"), lease_s=LEASE_S)
        (ended,) = await leader.until_ended(start, within_s=40)
        assert ended.outcome == "passed"


async def test_heartbeats_do_not_wait_behind_what_a_job_says(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    """On a link of 32 KiB/s: the lease is over after 5 s without an answer, the rest takes 10 s."""
    proxy = Proxy(int(server.url.rpartition(":")[2]))
    await proxy.start()
    proxy.bytes_a_second = 32 << 10
    try:
        async with an_agent(tmp_path, leader, f"nats://127.0.0.1:{proxy.port}", beat_s=1.0):
            text = "head -c 300000 /dev/zero | tr '\\0' x; sleep 12; echo; echo the end"
            start = await leader.start(shell(text), lease_s=9.0)
            (ended,) = await leader.until_ended(start, within_s=60)
            assert ended.outcome == "passed", ended.error
            assert leader.output(start).endswith(b"the end\n")
    finally:
        await proxy.stop()


async def test_the_shepherd_ends_it_when_the_agent_is_frozen(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    sign = f"sleep 300.{secrets.randbelow(10**6)}"
    agent = AgentProcess(tmp_path / "a1", leader.keys.plain_agent(AgentId("a1"), server.url))
    agent.start()
    try:
        await leader.until(lambda: leader.hellos, 40)
        start = await leader.start(shell(f"{sign} & wait"), lease_s=LEASE_S)
        await leader.until(lambda: runs(leader), 40)
        agent.process.send_signal(signal.SIGSTOP)
        await wait_until(lambda: not living(sign.split()[1]), 40)
        agent.process.send_signal(signal.SIGCONT)
        (ended,) = await leader.until_ended(start, within_s=40)
        assert ended.error is not None
        assert ended.error.code == "lease_over"
    finally:
        agent.process.send_signal(signal.SIGCONT)
        agent.stop()
        agent.end_shepherd()


async def test_what_an_agent_adopts_keeps_its_lease(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    sign = f"sleep 300.{secrets.randbelow(10**6)}"
    agent = AgentProcess(tmp_path / "a1", leader.keys.plain_agent(AgentId("a1"), server.url))
    agent.start()
    try:
        await leader.until(lambda: leader.hellos, 40)
        await leader.start(shell(f"{sign} & wait"), lease_s=LEASE_S)
        await leader.until(lambda: runs(leader), 40)
        agent.kill9()  # nobody renews, and nobody comes back
        await wait_until(lambda: not living(sign.split()[1]), 40)
    finally:
        agent.end_shepherd()


def on_board(text: str) -> JobSpec:
    return shell(text, need=Need(target=Target(runtime="ssh", kind="pi"), role="board"))


@pytest.mark.parametrize("kind", ["openssh", "dropbear"])
async def test_two_agents_are_never_on_one_board(
    tmp_path: Path, keys: LabKeys, server: NatsServer, leader: Leader, kind: Kind
) -> None:
    """The first one is frozen and knows nothing; the fence on the board ends what it had there."""
    ssh = SshServer(kind, tmp_path / "ssh")
    await asyncio.to_thread(ssh.start)
    name = f"shared-{secrets.token_hex(4)}"
    way = ssh.way()
    table = (
        f'[[dut]]\nid = "{name}"\nkind = "pi"\nshared = true\n[dut.ssh]\nhost = "127.0.0.1"\n'
        f'port = {way.port}\nhost_key = "{way.host_key.strip()}"\nkey_file = "{way.key_file}"\n'
    )
    other_server = NatsServer(tmp_path / "nats2")
    await asyncio.to_thread(other_server.start)
    other = await Leader.begin(other_server, keys, "a2")
    first_sign, second_sign = (f"{number}.{secrets.randbelow(10**6)}" for number in (300, 301))
    first = AgentProcess(
        tmp_path / "a1", keys.plain_agent(AgentId("a1"), server.url), more=table
    ).start()
    second = AgentProcess(
        tmp_path / "a2", keys.plain_agent(AgentId("a2"), other_server.url), more=table
    ).start()
    try:
        await leader.until(lambda: leader.hellos, 40)
        await other.until(lambda: other.hellos, 40)
        deaf = f"trap '' TERM; sleep {first_sign} & setsid sleep {first_sign} & wait; sleep 300"
        old = await leader.start(on_board(deaf), dut=name, lease_s=3600.0)
        await wait_until(lambda: len(living(f"sleep\0{first_sign}")) >= 2, 40)
        first.process.send_signal(signal.SIGSTOP)
        new = await other.start(
            on_board(f"sleep {second_sign}"), dut=name, lease_s=3600.0, fence=Fence(old.fence + 2)
        )
        await wait_until(lambda: living(f"sleep\0{second_sign}"), 60)
        assert living(f"sleep\0{first_sign}") == []
        first.process.send_signal(signal.SIGCONT)
        (ended,) = await leader.until_ended(old, within_s=60)
        assert ended.outcome == "error"
        assert living(f"sleep\0{second_sign}")
        between = await leader.start(
            on_board("echo never"), dut=name, lease_s=3600.0, fence=Fence(old.fence + 1)
        )
        (ended,) = await leader.until_ended(between, within_s=60)
        assert ended.error is not None
        assert ended.error.code == "stale_fence"  # the agent had not seen the higher one
        assert new.fence > between.fence
        assert living(f"sleep\0{second_sign}")
    finally:
        first.process.send_signal(signal.SIGCONT)
        for agent in (first, second):
            agent.stop()
            agent.end_shepherd()
        await other.bus.close()
        await asyncio.to_thread(other_server.stop)
        await asyncio.to_thread(ssh.stop)
