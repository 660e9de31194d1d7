"""A controller that stands by: it follows the LOG with a warm Lab until the LOG takes its frame."""

import asyncio
import logging

from tshrag_common.bus.connection import Bus
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.bus.messages import Message
from tshrag_common.clock import Clock
from tshrag_common.errors import Unavailable
from tshrag_common.streams import LOG
from tshrag_controller import witness
from tshrag_controller.core.events import LeaderChosen
from tshrag_controller.core.lab import Lab
from tshrag_controller.engine import Engine, LabClock
from tshrag_controller.log.append import epoch_of, stand
from tshrag_controller.log.election import next_epoch
from tshrag_controller.log.follow import LogGap, follow
from tshrag_controller.log.frames import Frame
from tshrag_controller.pulses import Pulses

logger = logging.getLogger(__name__)

LOOK_S = 0.1
FROZEN_S = 1.0
"""When a look took longer, this process stood still: nobody could be heard meanwhile."""
AGAIN_S = 0.3
BEHIND_S = 2.0
FRESH_S = 5.0
SURE_S = 1.0
"""How long a leader answers without asking the LOG whether it still is the one: less than a
standby waits before it leads."""


class _Won(Exception):
    """Ends the group that followed."""


class Standby:
    """Follows and waits; afterwards tells whether what is read here is the present."""

    def __init__(
        self,
        bus: Bus,
        lab: Lab,
        engine: Engine,
        pulses: Pulses,
        clock: Clock,
        lab_clock: LabClock,
        node: str,
    ) -> None:
        self._bus, self._log = bus, JetStream(bus, timeout_s=2.0)
        self._lab, self._engine, self._pulses = lab, engine, pulses
        self._clock, self._lab_clock, self._node = clock, lab_clock, node
        self._moved = asyncio.Condition()
        self._sure = (0.0, -1)
        """When we last knew that we lead, and over which of the bus's connections: whoever loses
        one may have been given up at once."""
        self._was_at = (lab.sequence, clock.monotonic())
        self._has_failed = False

    async def stand_by(self) -> None:
        """Follow until this controller has won an election; then the Lab is its own.

        Raises:
            LogGap: in a group: frames are missing; only a new start helps.

        """
        sign = self._on_reconnect
        self._bus.on_reconnect(sign)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(), name="follow")
                await self._win()
                raise _Won
        except* _Won:
            self._engine.take_up()
            self._sure = (self._clock.monotonic(), self._bus.reconnects)
        finally:
            self._bus.forget_reconnect(sign)

    async def newest(self) -> int:
        """Return a sequence of the LOG that holds all that was answered before this question.

        Raises:
            Unavailable: another controller leads, though we did not know; or the LOG is away.
            TimeoutError: we are too far behind.

        """
        if self._engine.follows:
            upto = (await self._log.stream_info(LOG)).last_seq
            async with asyncio.timeout(FRESH_S), self._moved:
                await self._moved.wait_for(lambda: self._engine.sequence >= upto)
            return upto
        now, over = self._clock.monotonic(), self._bus.reconnects
        if now - self._sure[0] > SURE_S or over != self._sure[1]:
            if (by := await self._deposed_by()) is not None:
                self._pulses.step_down(*by)
                raise Unavailable("", "another controller leads", code="not_leading")
            self._sure = (now, over)
        return self._engine.sequence

    async def _deposed_by(self) -> tuple[int, int] | None:
        """Ask the LOG whether another has written; a purge may have left nothing but its number."""
        sequence, epoch = self._engine.sequence, self._engine.epoch
        tail = await self._log.tail(LOG)
        if tail is None:
            newest = (await self._log.stream_info(LOG)).last_seq
            tail = await self._log.tail(LOG) if newest > sequence else None  # ours, just now
            if tail is None:
                return (epoch + 1, newest) if newest > sequence else None
        return (found, tail.sequence) if (found := epoch_of(tail.message_id)) > epoch else None

    async def answer_lead(self, _question: Message) -> bytes | None:
        """Say that we lead; who asks doubts it, so it must be true."""
        answer = self._pulses.answer_lead()
        if answer is not None:
            await self.newest()
        return answer

    def _on_reconnect(self) -> None:
        self._pulses.electorate.sign(self._clock.monotonic())

    async def _follow(self) -> None:
        lab, electorate = self._lab, self._pulses.electorate
        async for batch in follow(self._log, f"{self._node}-standby", lab.sequence + 1):
            for sequence, frame in batch:
                if sequence > lab.sequence + 1:
                    what = f"frames {lab.sequence + 1}..{sequence - 1} are gone"
                    raise LogGap("lab.v1.log", what)
                if sequence == lab.sequence + 1:
                    self._engine.follow(sequence, frame)
                await asyncio.sleep(0)  # beats and questions come in between
            electorate.sign(self._clock.monotonic())
            self._pulses.news.set()
            async with self._moved:
                self._moved.notify_all()

    async def _win(self) -> None:
        """Return when the LOG has taken our frame."""
        if await self._nobody_leads() and await self._try():
            return
        looked_at = self._clock.monotonic()
        electorate = self._pulses.electorate
        electorate.sign(looked_at)
        while True:
            await self._look_up()
            await self._look_behind()
            now = self._clock.monotonic()
            if now - looked_at > FROZEN_S + LOOK_S or not self._bus.is_connected:
                electorate.sign(now)
            looked_at = now
            if await self._is_due(now) and await self._try():
                return
            looked_at = self._clock.monotonic()

    async def _look_up(self) -> None:
        """Wait a moment, or for news that may matter."""
        self._pulses.news.clear()
        try:
            async with asyncio.timeout(LOOK_S):
                await self._pulses.news.wait()
        except TimeoutError:
            return

    async def _look_behind(self) -> None:
        """See that what we wait for can still come: a purged LOG stays silent about its past."""
        now, lab = self._clock.monotonic(), self._lab
        if lab.sequence != self._was_at[0]:
            self._was_at = (lab.sequence, now)
        newest = max(
            (each.pulse.sequence for each in self._pulses.electorate.others(now)), default=0
        )
        is_behind = newest > lab.sequence or self._has_failed
        if not is_behind or now - self._was_at[1] < BEHIND_S or not self._bus.is_connected:
            return
        self._was_at, self._has_failed = (lab.sequence, now), False
        try:
            info = await self._log.stream_info(LOG)
        except Unavailable:
            return
        if lab.sequence + 1 < info.first_seq:
            what = f"frames {lab.sequence + 1}..{info.first_seq - 1} are gone"
            raise LogGap("lab.v1.log", what)

    async def _is_due(self, now: float) -> bool:
        verdict = self._pulses.electorate.verdict(now, self._lab, self._pulses.lacks() > 0)
        return verdict == "try" or (verdict == "ask" and await self._nobody_leads())

    async def _nobody_leads(self) -> bool:
        """Ask for a leader; what is answered counts only where nobody was chosen meanwhile."""
        epoch = self._lab.epoch
        return await self._pulses.nobody_leads() and self._lab.epoch == epoch

    async def _try(self) -> bool:
        """Append the first frame of the next epoch; whoever has won follows its own frame too."""
        lab = self._lab
        self._lab_clock.not_before(lab.at)
        chosen = LeaderChosen(epoch=next_epoch(lab), node=self._node)
        frame = Frame(
            epoch=chosen.epoch, at=self._lab_clock.now(), ev_hi=lab.ev_hi, events=(chosen,)
        )
        sequence = await stand(self._log, self._node, frame, lab.sequence)
        if sequence is None:
            logger.info("another controller was first", extra={"epoch": frame.epoch})
            self._has_failed = True
            await asyncio.sleep(AGAIN_S)
            return False
        witness.note_frame(frame, sequence)
        if lab.sequence < sequence:
            self._engine.follow(sequence, frame)
        logger.info("elected", extra={"epoch": frame.epoch, "sequence": sequence})
        return lab.epoch == frame.epoch
