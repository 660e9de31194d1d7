"""One attempt, from the command to the last report.

Its work stands in one scope with a deadline: the time limit, or at once when it is cancelled.
Whatever ends it, its steps clean up, and only when nothing of it is alive is its end told. When
the daemon itself is stopped, nothing is told: the next agent adopts what is left.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tshrag_agent.attempts.contact import CODE as LEASE_OVER
from tshrag_agent.attempts.record import AttemptRecord
from tshrag_agent.attempts.recover import Left
from tshrag_agent.attempts.roster import Living, Roster
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import Append, End
from tshrag_agent.reports.early import EarlyReports
from tshrag_agent.transport.signs import Sign
from tshrag_common import history, wire
from tshrag_common.clock import Clock
from tshrag_common.commands import CancelAttempt, StartAttempt
from tshrag_common.errors import ErrorReport, LabError
from tshrag_common.failpoints import failpoint
from tshrag_common.jobs import JobSpec
from tshrag_common.reports import Accepted, Outcome, Started

logger = logging.getLogger(__name__)


class Steps(Protocol):
    """How the work of one attempt is done: in the agent, on the host, on a DUT."""

    async def work(self) -> None:
        """Prepare and execute; note in the record how it ended."""
        ...

    async def clean_up(self) -> None:
        """End what is alive, collect what was said; comes after `work`, however that ended.

        Not called when the daemon is stopped in the middle of `work`.
        """
        ...


@dataclass(frozen=True)
class Office:
    """What every attempt needs of its agent."""

    journal: Journal
    early: EarlyReports
    roster: Roster
    clock: Clock


class Attempt:
    """One try of a job; `conduct` is its whole life."""

    def __init__(
        self,
        office: Office,
        start: StartAttempt,
        spec: JobSpec,
        steps: Callable[["Attempt"], Steps],
        older: Living | None = None,
        *,
        left: Left | None = None,
    ) -> None:
        """Make an attempt; `left` is one that another agent has begun, as it was found."""
        self.start, self.spec = start, spec
        self.record = AttemptRecord()
        self.adopted = left is not None
        self.left = left.row if left is not None else None
        self._age_s = left.age_s if left is not None else 0.0
        if self.left is not None:
            self.record.started_at = self.left.started_at
            self.record.samples_upto = self.left.samples_upto
            self.record.output_upto = self.left.output_upto
        self._office, self._older = office, older
        self._steps = steps(self)
        self._gone = asyncio.Event()
        self._stop: tuple[Outcome, ErrorReport] | None = None
        self._scope: asyncio.Timeout | None = None

    def cancel(self, command: CancelAttempt) -> None:
        limit = f"longer than {self.spec.timeout_s:g} s"
        match command.cause:
            case "timeout":
                self._end("timeout", ErrorReport(code="timeout", message=limit))
            case "lost":
                message = "its controller has given it up"
                self._end("cancelled", ErrorReport(code="lost", message=message))
            case "cancelled":
                self._end("cancelled", ErrorReport(code="cancelled", message="as asked"))

    def interrupt(self, error: ErrorReport) -> None:
        """End it for a reason of the agent's own."""
        self._end("error", error)

    def saw(self, sign: Sign) -> None:
        """Note a crash or a boot of its DUT; what the job does not put up with ends it."""
        if sign.kind == "login":
            return
        self.record.note_dut(f"console: {sign.kind}: {sign.text}")
        if sign.is_crash and self.spec.on_crash == "fail":
            message = f"{self.start.dut}: its console said {sign.text!a}"
            self._end("failed", ErrorReport(code="dut_crashed", message=message))
        elif not (sign.is_crash or self.spec.expect_reboot or self.spec.board is not None):
            message = f"{self.start.dut}: it has booted: {sign.text!a}"
            self._end("failed", ErrorReport(code="dut_rebooted", message=message))

    def _end(self, outcome: Outcome, error: ErrorReport) -> None:
        if self._stop is not None or self._gone.is_set():
            return
        self._stop = (outcome, error)
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def gone(self) -> None:
        await self._gone.wait()

    def launched(self, at: int = 0) -> None:
        """Say that its first process runs; `at` where that is known better than now."""
        self.record.started_at = at or self._office.clock.now()
        self._office.early.tell(Started(at=self.record.started_at, fence=self.start.fence))

    @property
    def has_lost_its_lease(self) -> bool:
        """Tell whether what it held may be another's by now: it must not be touched any more."""
        error = self._stop[1] if self._stop is not None else self.record.error
        return error is not None and error.code == LEASE_OVER

    @property
    def is_over(self) -> bool:
        """Tell whether it was told to end, or its time is over."""
        return self._stop is not None or (self._scope is not None and self._scope.expired())

    async def conduct(self) -> None:
        await self._work()
        await self._clean_up()
        await self._tell()

    async def _work(self) -> None:
        scope = asyncio.timeout(self._limit_s())
        try:
            async with scope:
                self._scope = scope
                if self._stop is not None:
                    scope.reschedule(asyncio.get_running_loop().time())
                if self._older is not None:
                    await self._older.gone()
                if not self.adopted:
                    self.record.samples_from = self._office.journal.state("samples").last
                    accepted = Accepted(at=self._office.clock.now(), fence=self.start.fence)
                    self._office.early.tell(accepted)
                failpoint("attempt.accepted")
                await self._steps.work()
        except TimeoutError as error:
            if scope.expired():
                self._note_stop()
            else:  # not the limit of the job: something that it waited for was too slow
                what = str(error) or "something took too long"
                self.record.fail("error", ErrorReport(code="slow", message=what, retryable=True))
        except LabError as error:
            self.record.fail("error", error.report())
        except Exception as error:  # a fault of ours ends this attempt, not the agent
            logger.exception("an attempt failed inside the agent", extra=self.facts)
            self.record.fail("error", _internal(error))
        finally:
            self._scope = None

    async def _clean_up(self) -> None:
        failpoint("attempt.cleanup")
        try:
            await self._steps.clean_up()
        except LabError as error:
            self.record.fail("error", error.report())
        except Exception as error:  # the end must be told all the same
            logger.exception("cleaning up failed inside the agent", extra=self.facts)
            self.record.fail("error", _internal(error))

    async def _tell(self) -> None:
        """Give back what it held, and put its end into the journal."""
        office, fence = self._office, self.start.fence
        failpoint("attempt.ended")
        office.early.withdraw(fence)
        office.roster.slots.release(fence, self.start.dut)
        self._gone.set()
        facts = {"job": self.start.job, "attempt": self.start.attempt, "dut": self.start.dut or ""}
        history.note("gone", fence=fence, outcome=self.record.outcome, **facts)
        body = wire.body(self.record.ended(fence, office.clock.now()))
        seq = await office.journal.write(Append("reports", (body,)), End(fence))
        failpoint("attempt.told")
        office.roster.end(fence, seq)

    def _limit_s(self) -> float:
        """Return what is left of its time."""
        limit_s = self.spec.timeout_s
        if self.record.started_at:  # adopted
            gone_s = self._age_s
            if not gone_s:  # the wall clock is all that both agents share
                gone_s = (self._office.clock.now() - self.record.started_at) / 1e6
            limit_s = min(limit_s, max(1.0, limit_s - gone_s))
        return limit_s

    def _note_stop(self) -> None:
        message = f"longer than {self.spec.timeout_s:g} s"
        outcome, error = self._stop or (
            "timeout",
            ErrorReport(code="timeout", message=message),
        )
        self.record.fail(outcome, error)

    @property
    def facts(self) -> dict[str, object]:
        """Return what a line of the log says of it."""
        return {"run": self.start.run, "job": self.start.job, "fence": self.start.fence}


def _internal(error: Exception) -> ErrorReport:
    message = f"the agent failed: {type(error).__name__}: {error}"
    return ErrorReport(code="internal", message=message[:500], retryable=True)
