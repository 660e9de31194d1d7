"""The agent's half of a lease: it ends an attempt before anybody else may have what it holds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

from tests.support.waiting import wait_until
from tshrag_agent.attempts.contact import Contact
from tshrag_common import ids
from tshrag_common.commands import CancelAttempt, StartAttempt
from tshrag_common.errors import ErrorReport
from tshrag_common.ids import DEFAULT_ORG, Fence, JobId
from tshrag_common.jobs import JobSpec


class HandClock:
    """Time that the test turns."""

    def __init__(self) -> None:
        self._now_s = 1000.0

    def now(self) -> int:
        return round(self._now_s * 1e6)

    def monotonic(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        self._now_s += seconds


class Kept:
    """An attempt that notes why it was interrupted."""

    def __init__(self, lease_s: float) -> None:
        run = ids.new_run(1, 1)
        self.spec = JobSpec(kind="command")
        self.start = StartAttempt(
            fence=Fence(7), org=DEFAULT_ORG, run=run, job=JobId(ids.job_of(run, 1)), attempt=1,
            name="x", spec=0, lease_s=lease_s,
        )  # fmt: skip
        self.said: list[ErrorReport] = []

    def cancel(self, command: CancelAttempt) -> None:
        raise AssertionError("a lease interrupts")

    def interrupt(self, error: ErrorReport) -> None:
        self.said.append(error)

    async def gone(self) -> None:
        return None


class Renewals:
    """A shepherd that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, float]] = []

    async def renew(self, leases: Mapping[str, float], *, timeout_s: float) -> set[str]:
        self.told.append(dict(leases))
        return set()


@contextlib.asynccontextmanager
async def at_work(
    lease_s: float, clock: HandClock
) -> AsyncIterator[tuple[Contact, Kept, Renewals]]:
    attempt, shepherd = Kept(lease_s), Renewals()
    contact = Contact({Fence(7): attempt}, shepherd, clock)
    task = asyncio.create_task(contact.run())
    try:
        yield contact, attempt, shepherd
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_an_attempt_ends_four_seconds_before_its_lease_by_the_time_of_sending() -> None:
    clock = HandClock()
    async with at_work(20.0, clock) as (contact, attempt, _):
        clock.advance(5.0)
        contact.renew(clock.monotonic() - 1.0)  # the answer took a second, and counts for nothing
        clock.advance(14.5)
        contact.entered()
        await asyncio.sleep(0)
        assert contact.left_s(20.0) == 0.5
        assert attempt.said == []
        clock.advance(0.5)
        contact.entered()
        await wait_until(lambda: attempt.said)
    assert attempt.said[0].code == "lease_over"
    assert attempt.said[0].retryable


async def test_an_answered_heartbeat_renews_and_an_older_one_takes_nothing_back() -> None:
    clock = HandClock()
    async with at_work(20.0, clock) as (contact, attempt, _):
        clock.advance(10.0)
        contact.renew(clock.monotonic())
        contact.renew(clock.monotonic() - 9.0)
        clock.advance(10.0)
        contact.entered()
        await asyncio.sleep(0)
        assert attempt.said == []
        assert contact.left_s(20.0) == 6.0


async def test_without_a_lease_silence_ends_nothing() -> None:
    clock = HandClock()
    async with at_work(0.0, clock) as (contact, attempt, _):
        clock.advance(10_000.0)
        contact.entered()
        await asyncio.sleep(0)
        assert attempt.said == []
        assert contact.left_s(0.0) is None


async def test_the_shepherd_is_told_how_long_it_may_keep_a_process_alive() -> None:
    clock = HandClock()
    async with at_work(60.0, clock) as (contact, _, shepherd):
        contact.hold("7.main", 60.0)
        contact.hold("8.main", 0.0)
        clock.advance(5.0)
        contact.renew(clock.monotonic() - 2.0)
        await wait_until(lambda: shepherd.told)
        assert shepherd.told == [{"7.main": 54.0}]
        contact.drop("7.main")
        contact.renew(clock.monotonic())
        await asyncio.sleep(0.01)
        assert len(shepherd.told) == 1
