"""Leases over a real bus: a controller and an agent in this process, told by signed commands."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.people_lab import an_agent_of, on_board
from tests.support.served_lab import ServedLab, served, until, until_final
from tests.support.waiting import wait_until
from tshrag_agent.daemon import Daemon
from tshrag_common import lease_requests as lr, requests as r, suspend_requests as sr
from tshrag_common.clock import SystemClock
from tshrag_common.errors import Refused
from tshrag_common.ids import DutId
from tshrag_controller.cli import render

B1 = DutId("b1")


@pytest.fixture
async def lab(tmp_path: Path, nats_url: str) -> AsyncIterator[ServedLab]:
    async with served(tmp_path / "lab", nats_url) as made:
        yield made


def knows(daemon: Daemon, fence: int) -> bool:
    hold = daemon.leases.of(B1)
    return (hold.fence if hold else 0) == fence


async def test_the_agent_learns_who_holds_a_dut_and_when_it_is_free_again(
    lab: ServedLab, tmp_path: Path
) -> None:
    async with an_agent_of(lab, tmp_path / "a1") as daemon:
        taken = await lab.client.lease_take(lr.LeaseTake(lease="lease-1", dut="b1", for_s=600))
        assert (taken.dut, taken.agent, taken.state) == ("b1", "a1", "held")
        await wait_until(lambda: knows(daemon, taken.fence))
        held = daemon.leases.check(B1, taken.fence)  # type: ignore[arg-type]  # a fence off the wire
        assert (held.owner, held.until) == (taken.owner, taken.until)
        await lab.client.lease_release("b1")
        await wait_until(lambda: knows(daemon, 0))
        (was,) = (await lab.client.leases(lr.ListLeases(ended=True))).ended
        assert (was.lease, was.cause, was.dut) == ("lease-1", "released", "b1")
        assert 0 < was.since <= was.ended_at


async def test_a_command_that_was_lost_is_mended_by_the_heartbeat(
    lab: ServedLab, tmp_path: Path
) -> None:
    async with an_agent_of(lab, tmp_path / "a1") as daemon:
        taken = await lab.client.lease_take(lr.LeaseTake(lease="lease-1", dut="b1"))
        await wait_until(lambda: knows(daemon, taken.fence))
        daemon.leases.free(taken.fence)  # type: ignore[arg-type]  # as if it had never been heard
        await wait_until(lambda: knows(daemon, taken.fence), within_s=30)


async def test_an_agent_that_starts_again_knows_its_leases(lab: ServedLab, tmp_path: Path) -> None:
    async with an_agent_of(lab, tmp_path / "a1"):
        taken = await lab.client.lease_take(lr.LeaseTake(lease="lease-1", dut="b1"))
    async with an_agent_of(lab, tmp_path / "a1") as daemon:
        assert knows(daemon, taken.fence)


async def test_a_job_waits_for_a_leased_board_and_a_person_for_a_job(
    lab: ServedLab, tmp_path: Path
) -> None:
    async with an_agent_of(lab, tmp_path / "a1") as daemon:
        await lab.client.lease_take(lr.LeaseTake(lease="lease-1", dut="b1"))
        run = await lab.submit(on_board("sleep 1"))
        why = await lab.client.why(run)
        assert "b1 is leased by default/anybody" in why.sentence
        with pytest.raises(Refused, match="--wait"):
            await lab.client.lease_take(lr.LeaseTake(lease="lease-2", kind="pi"))
        asking = lr.LeaseTake(lease="lease-2", kind="pi", wait_s=20)
        waiting = asyncio.get_running_loop().create_task(lab.client.lease_take(asking), name="wait")

        async def stands_in_line() -> bool:
            return any(each.state == "waiting" for each in (await lab.client.leases()).leases)

        await until(stands_in_line)
        await lab.client.lease_release("lease-1")
        assert await until_final(lab, run, 60) == "passed"
        second = await waiting
        if second.state == "waiting":  # a slow machine: ask again, the place is kept
            second = await lab.client.lease_take(asking)
        assert second.dut == "b1"
        await wait_until(lambda: knows(daemon, second.fence))


async def test_leases_outlive_the_controller(lab: ServedLab, tmp_path: Path) -> None:
    async with an_agent_of(lab, tmp_path / "a1") as daemon:
        taken = await lab.client.lease_take(lr.LeaseTake(lease="lease-1", dut="b1"))
        await lab.kill()
        await lab.start()
        (found,) = (await lab.client.leases()).leases
        assert (found.fence, found.until, found.mine) == (taken.fence, taken.until, True)
        renewed = await lab.client.lease_renew(lr.LeaseRenew(lease="b1", for_s=9000))
        assert renewed.until > taken.until

        def is_renewed() -> bool:
            hold = daemon.leases.of(B1)
            return hold is not None and hold.until == renewed.until

        await wait_until(is_renewed, within_s=30)


async def test_a_held_run_does_not_start_and_a_window_can_be_moved(
    lab: ServedLab, tmp_path: Path
) -> None:
    async with an_agent_of(lab, tmp_path / "a1"):
        taken = await lab.client.lease_take(lr.LeaseTake(lease="lease-1", dut="b1"))
        run = await lab.submit(on_board())
        held = await lab.client.hold(sr.Hold(id=run, reason="new firmware"))
        assert held.jobs == (f"job-{run[4:]}-001",)
        (seen,) = (await lab.client.jobs(r.ListJobs(id=run))).jobs
        assert (seen.state, seen.held) == ("waiting", "new firmware")
        (listed,) = (await lab.client.runs(r.ListRuns())).runs
        assert (listed.held, render.run_state(listed).plain) == (1, "on hold")
        assert render.run_counts(listed).plain == "1 on hold"
        assert render.job_state(seen).plain == "on hold"
        await lab.client.lease_release(taken.lease)
        assert (await lab.client.why(run)).sentence == "it is held back: new firmware"
        later = SystemClock().now() + 3600 * 1_000_000
        moved = await lab.client.reschedule(sr.Reschedule(run=run, not_before=later))
        assert moved.not_before == later
        await lab.client.let_go(sr.LetGo(id=run))
        assert (await lab.client.run(run)).run.held == 0
        assert (await lab.client.why(run)).reason == "window"
        await lab.client.reschedule(sr.Reschedule(run=run, not_before=0))
        assert await until_final(lab, run, 60) == "passed"
