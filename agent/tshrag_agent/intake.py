"""Commands -> attempts. What is not signed, not newer or not possible starts nothing.

All starts of one message are in the journal, with one fsync, before the first of them runs. Lost
commands need no care here: the digest of a heartbeat differs then, and a Sync follows.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from tshrag_agent.attempts.fences import Fences
from tshrag_agent.attempts.roster import Living, Roster
from tshrag_agent.holding import obey_leases, superseded
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import Append, AttemptRow, Begin, Change, DutFence, Heard
from tshrag_common import history, wire
from tshrag_common.bus.messages import Message
from tshrag_common.clock import Clock
from tshrag_common.commands import (
    CancelAttempt,
    CommandBatch,
    Drain,
    RunDrill,
    ServeChannel,
    StartAttempt,
    Sync,
)
from tshrag_common.errors import ErrorReport, StaleFence, StorageFull
from tshrag_common.failpoints import failpoint
from tshrag_common.ids import AgentId, Epoch, Fence
from tshrag_common.jobs import JobSpec
from tshrag_common.reports import Ended, Outcome
from tshrag_common.seals import BadSeal, CommandVerifier

logger = logging.getLogger(__name__)

_WAITING_MOST = 1024

Launch = Callable[[StartAttempt, JobSpec, Living | None], Living]
"""Make an attempt (its older holder of the DUT is handed over, to be waited for)."""


class Intake:
    """What this agent hears."""

    def __init__(
        self,
        agent: AgentId,
        *,
        verifier: CommandVerifier,
        journal: Journal,
        fences: Fences,
        roster: Roster,
        launch: Launch,
        clock: Clock,
        open_channel: Callable[[ServeChannel], None] = lambda command: None,
        drill: Callable[[RunDrill], None] = lambda _: None,
    ) -> None:
        self._agent, self._verifier, self._journal = agent, verifier, journal
        self._fences, self._roster, self._launch, self._clock = fences, roster, launch, clock
        self._inbox = asyncio.Queue[bytes | _Outdated](_WAITING_MOST)
        self._open_channel, self._drill = open_channel, drill
        self.draining = False
        self.counters = Counter[str]()

    def hear(self, message: Message) -> None:
        """Take a message of the bus; too many that wait are dropped, a Sync heals that."""
        try:
            self._inbox.put_nowait(message.data)
        except asyncio.QueueFull:
            self.counters["commands_dropped"] += 1

    def trust(self, controller_key: str) -> None:
        """Obey these keys of the controller from now on, and no others."""
        self._verifier.trust(controller_key)

    @property
    def heard(self) -> tuple[int, int]:
        return self._fences.heard

    async def outdate(self, epoch: Epoch, n: int) -> tuple[int, int]:
        """Obey what was heard before; from then on take nothing that was sent up to `n`.

        Return what is the newest now, for the journal: it stays so over a restart only there.
        """
        if (epoch, n) > self._fences.heard:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            await self._inbox.put(_Outdated(epoch, n, done))
            await done
        return self._fences.heard

    async def obey(self) -> None:
        """Carry out what is heard, one message after the other, for ever."""
        while True:
            heard = await self._inbox.get()
            try:
                if isinstance(heard, _Outdated):
                    self._outdate(heard)
                else:
                    await self._carry_out(heard)
            except Exception:  # one message must not end the intake
                self.counters["commands_failed"] += 1
                logger.exception("a message of commands failed")

    def _outdate(self, outdated: "_Outdated") -> None:
        self._fences.hear(outdated.epoch, outdated.n)
        if not outdated.done.done():
            outdated.done.set_result(None)

    async def _carry_out(self, data: bytes) -> None:
        batch = self._opened(data)
        if batch is None:
            return
        await obey_leases(self._journal, self._roster, self._fences, batch.commands)
        starts: list[StartAttempt] = []
        cancels: list[CancelAttempt] = []
        for command in batch.commands:
            match command:
                case StartAttempt():
                    starts.append(command)
                case CancelAttempt():
                    cancels.append(command)
                case Sync(attempts=attempts, keep=keep, cancels=ending):
                    starts.extend(attempts)
                    cancels.extend(CancelAttempt(fence=fence) for fence in ending)
                    cancels.extend(self._beyond(attempts, (*keep, *ending)))
                case Drain(on=on):
                    self.draining = on
                    logger.info("draining" if on else "taking work again")
        failpoint("intake.before_fence")
        await self._begin(batch, starts)
        for cancel in cancels:
            await self._cancel(cancel)
        self._serve_people(batch)

    def _serve_people(self, batch: CommandBatch, *, late: bool = False) -> None:
        for command in batch.commands:
            if isinstance(command, ServeChannel):
                self._open_channel(command)
            elif isinstance(command, RunDrill) and not late:
                self._drill(command)

    def _opened(self, data: bytes) -> CommandBatch | None:
        try:
            batch = wire.COMMANDS.decode(self._verifier.open(data))
        except (BadSeal, wire.BadMessage) as error:
            self.counters["commands_forged" if isinstance(error, BadSeal) else "commands_bad"] += 1
            logger.warning("commands dropped", extra={"reason": error.line})
            return None
        if batch.agent != self._agent:
            self.counters["commands_forged"] += 1
            return None
        if not self._fences.hear(batch.epoch, batch.n):
            self.counters["commands_late"] += 1
            if batch.epoch == self._fences.heard[0]:
                # overtaken by the answer to a beat: nothing says it again, and none is served twice
                self._serve_people(batch, late=True)
            return None
        return batch

    def _beyond(
        self, attempts: Iterable[StartAttempt], keep: Iterable[Fence]
    ) -> list[CancelAttempt]:
        """Return what ends the attempts that a Sync does not name."""
        named = {*(start.fence for start in attempts), *keep}
        return [
            CancelAttempt(fence=fence, cause="lost")
            for fence in self._roster.live
            if fence not in named
        ]

    async def _begin(self, batch: CommandBatch, starts: list[StartAttempt]) -> None:
        changes: list[Change] = [Heard(batch.epoch, batch.n)]
        taken: list[tuple[StartAttempt, JobSpec, Fence | None]] = []
        refused: list[Ended] = []
        specs, seen = _Specs(batch.specs), set[Fence]()
        for start in starts:
            if self._roster.knows(start.fence) or start.fence in seen:
                self.counters["starts_repeated"] += 1
                continue
            seen.add(start.fence)
            error = self._refusal(start, specs)
            if error is not None:
                refused.append(self._ended(start.fence, "refused", error))
                continue
            spec = batch.specs[start.spec]
            taken.append((start, spec, self._roster.slots.take(start, spec)))
            row = AttemptRow(
                fence=start.fence, start=wire.body(start), spec=specs.encoded(start.spec)
            )
            changes.append(Begin(row))
            if start.dut is not None:
                self._fences.take(start.dut, start.fence)
                changes += [DutFence(start.dut, start.fence), *superseded(self._roster, start)]
        if refused:
            changes.append(Append("reports", tuple(wire.body(report) for report in refused)))
        await self._write(changes, taken, refused)

    async def _write(
        self,
        changes: list[Change],
        taken: list[tuple[StartAttempt, JobSpec, Fence | None]],
        refused: list[Ended],
    ) -> None:
        try:
            last = await self._journal.write(*changes, patient=False)
        except StorageFull as error:
            self.counters["storage_full"] += 1
            logger.error("nothing starts", extra={"reason": error.line, "starts": len(taken)})
            for start, _, _ in taken:
                self._roster.slots.release(start.fence, start.dut)
            return
        failpoint("intake.journaled")
        for seq, report in enumerate(refused, last - len(refused) + 1):
            self._roster.end(report.fence, seq)
        for start, spec, older_fence in taken:
            older = self._roster.live.get(older_fence) if older_fence is not None else None
            if older is not None:
                older.cancel(CancelAttempt(fence=older.start.fence, cause="lost"))
            self._roster.enter(self._launch(start, spec, older))
            facts = {"job": start.job, "attempt": start.attempt, "dut": start.dut or ""}
            history.note("taken", fence=start.fence, epoch=self.heard[0], **facts)

    def _refusal(self, start: StartAttempt, specs: "_Specs") -> ErrorReport | None:
        spec = specs.get(start.spec)
        if spec is None:
            return ErrorReport(code="bad_command", message=f"no spec {start.spec} in the message")
        if self.draining:
            message = f"agent {self._agent} is draining"
            return ErrorReport(code="draining", message=message, retryable=True)
        if start.dut is not None:
            try:
                self._fences.check(start.dut, start.fence)
            except StaleFence as error:
                self.counters["starts_stale"] += 1
                history.note("stale_fence", job=start.job, dut=start.dut, fence=start.fence)
                return error.report()
        return self._roster.slots.refusal(start, spec)

    async def _cancel(self, command: CancelAttempt) -> None:
        attempt = self._roster.live.get(command.fence)
        if attempt is not None:
            attempt.cancel(command)
            return
        if self._roster.knows(command.fence):
            return
        outcome: Outcome = "timeout" if command.cause == "timeout" else "cancelled"
        report = self._ended(command.fence, outcome, None)
        self._roster.end(command.fence, await self._journal.append("reports", wire.body(report)))

    def _ended(self, fence: Fence, outcome: Outcome, error: ErrorReport | None) -> Ended:
        return Ended(at=self._clock.now(), fence=fence, outcome=outcome, error=error)


class _Outdated(NamedTuple):
    """A place among what is heard: what was sent up to here is too old behind it."""

    epoch: Epoch
    n: int
    done: asyncio.Future[None]


class _Specs:
    """The specs of one message; each is encoded at most once."""

    def __init__(self, specs: tuple[JobSpec, ...]) -> None:
        self._specs = specs
        self._encoded: dict[int, bytes] = {}

    def get(self, index: int) -> JobSpec | None:
        return self._specs[index] if 0 <= index < len(self._specs) else None

    def encoded(self, index: int) -> bytes:
        if index not in self._encoded:
            self._encoded[index] = msgspec.msgpack.encode(self._specs[index])
        return self._encoded[index]
