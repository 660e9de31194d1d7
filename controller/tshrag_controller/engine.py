"""The one owner of the Lab: a turn is decide, append one frame, let go.

Everything that may change the lab, or wants to read it, is an input: a function of a Decision.
Inputs that come while a frame is on its way make up the next one; that is the group commit.
An answer leaves the house only when its frame is in the LOG.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from tshrag_common.clock import Clock
from tshrag_common.errors import LabError
from tshrag_common.failpoints import failpoint
from tshrag_common.ids import Epoch
from tshrag_controller.core.apply import forget
from tshrag_controller.core.decision import BrokenLab, Decision, Effect, ForgetRun, Reading
from tshrag_controller.core.events import AnyEvent
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.on_tick import next_due, on_tick
from tshrag_controller.core.queues_followed import tidy
from tshrag_controller.core.replay import apply_frame
from tshrag_controller.core.resume import on_resume
from tshrag_controller.core.revive import index_anew, recorded
from tshrag_controller.core.schedule import schedule
from tshrag_controller.log.frames import Frame

logger = logging.getLogger(__name__)

T = TypeVar("T")
Decide = Callable[[Decision], T]

TURN_INPUTS = 512
TURN_EVENTS = 6000
INDEX_EVENTS = 50_000
"""Events that a standby follows before it makes the indexes of its Lab anew."""
SAFETY_TICK_S = 5.0
"""Everything is started by an event; the tick is there in case that we are wrong."""


class Pen(Protocol):
    """What appends frames to the LOG: a frame is there, or `Fenced` is raised."""

    async def append(self, frame: Frame) -> list[int]:
        """Store `frame`, in several messages where it is too large; return their sequences."""
        ...


class LabClock:
    """Wall time that never jumps: taken once, carried on by the monotonic clock.

    A standby carries on the time of its leader, so that it does not jump at a takeover either.
    """

    def __init__(self, clock: Clock, not_before: int) -> None:
        self._clock = clock
        self._wall = max(clock.now(), not_before)
        self._began = clock.monotonic()

    def now(self) -> int:
        return self._wall + round((self._clock.monotonic() - self._began) * 1e6)

    def follow(self, at: int) -> None:
        """Take the time of the leader, who has just said that it is `at`."""
        self._wall, self._began = at, self._clock.monotonic()

    def not_before(self, at: int) -> None:
        """Let it be at least `at`: the time of a lab never goes back."""
        if self.now() < at:
            self.follow(at)


class Engine:
    """Owns the Lab: leads for as long as its frames are taken, or follows another who does."""

    def __init__(
        self,
        lab: Lab,
        pen: Pen,
        clock: LabClock,
        on_commit: Callable[[Lab, Frame, int], None],
        carry_out: Callable[[Lab, Sequence[Effect]], None],
    ) -> None:
        self._lab, self._pen, self._clock = lab, pen, clock
        self._on_commit, self._carry_out = on_commit, carry_out
        self._inbox: asyncio.Queue[tuple[Decide[Any], asyncio.Future[Any] | None]]
        self._inbox = asyncio.Queue()
        self._snapshots: list[asyncio.Future[tuple[bytes, int, int]]] = []
        self.turns = 0
        self.follows = False
        """While it follows, `ask` only reads, at once, and what is told to it is dropped."""
        self._since_indexed = 0
        self._tidied: tuple[int, bool] = (-1, False)
        self._finishing, self._finished = False, asyncio.Event()

    @property
    def sequence(self) -> int:
        """Return the sequence of the newest frame that was committed."""
        return self._lab.sequence

    @property
    def epoch(self) -> Epoch:
        return self._lab.epoch

    def ask(self, decide: Decide[T]) -> Awaitable[T]:
        """Let `decide` be part of the next turn; its answer comes when the frame is stored."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self.follows:
            self._read(decide, answer)
        else:
            self._inbox.put_nowait((decide, answer))
        return answer

    def ask_queues(self, decide: Decide[T]) -> Awaitable[T]:
        """Ask what looks at who waits: queues of a Lab that follows are put right before."""
        now = self._clock.now()
        if self.follows and (self._lab.sequence, next_due(self._lab) <= now) != self._tidied:
            tidy(self._lab, now)
            self._tidied = (self._lab.sequence, next_due(self._lab) <= now)
        return self.ask(decide)

    def tell(self, decide: Decide[None]) -> None:
        """Let `decide` be part of the next turn; nobody waits for it."""
        if not self.follows:
            self._inbox.put_nowait((decide, None))

    def follow(self, sequence: int, frame: Frame) -> None:
        """Let a frame of the leader have happened here too."""
        lab = self._lab
        apply_frame(lab, sequence, frame.at, frame.ev_hi, frame.events)
        self._since_indexed += len(frame.events)
        if self._since_indexed > INDEX_EVENTS:
            self._index()
        self._on_commit(lab, frame, sequence)

    def take_up(self) -> None:
        """Lead from here on: the Lab is that of the newest frame, and its writer is this one."""
        self._clock.not_before(self._lab.at)
        self._index()
        self.follows = False

    def _index(self) -> None:
        """Make the indexes anew: nothing is taken out of them while somebody else decides."""
        index_anew(self._lab, max(self._lab.at, self._clock.now()))
        self._since_indexed = 0

    def _read(self, decide: Decide[T], answer: "asyncio.Future[T]") -> None:
        try:
            _answer(answer, decide(Reading(self._lab, self._clock.now())))
        except LabError as refused:
            _answer(answer, refused)
        except Exception as error:
            logger.exception("a question failed")
            _answer(answer, error)

    def snapshot(self) -> Awaitable[tuple[bytes, int, int]]:
        """Return the recorded Lab between two turns, its sequence, and ``ev_hi``."""
        wanted: asyncio.Future[tuple[bytes, int, int]]
        wanted = asyncio.get_running_loop().create_future()
        self._snapshots.append(wanted)
        self.tell(lambda _: None)
        return wanted

    def ev_applied(self, sequence: int) -> None:
        """Note, inside a turn, that reports are applied up to `sequence` of stream EV."""
        self._lab.ev_hi = max(self._lab.ev_hi, sequence)

    async def lead(self) -> None:
        """Make turns until the LOG refuses a frame.

        Raises:
            Fenced: another controller leads; the Lab must be dropped.

        """
        try:
            while not self._finishing:
                await self.turn(await self._wait())
        finally:
            self._finished.set()

    async def finish(self) -> None:
        """Make no turn after the one that is under way; return when that is stored and answered."""
        self._finishing = True
        self.tell(lambda _: None)
        await self._finished.wait()

    async def _wait(self) -> tuple[Decide[Any], asyncio.Future[Any] | None] | None:
        """Wait for an input, a timer, or the safety tick; None where it was time."""
        if not self._inbox.empty():
            return self._inbox.get_nowait()
        due = next_due(self._lab)
        pause = min(SAFETY_TICK_S, (due - self._clock.now()) / 1e6) if due else SAFETY_TICK_S
        try:
            async with asyncio.timeout(max(0.0, pause)):
                return await self._inbox.get()
        except TimeoutError:
            return None

    async def turn(self, first: tuple[Decide[Any], asyncio.Future[Any] | None] | None) -> None:
        """Decide all that waits, commit it as one frame, then let the effects go."""
        lab = self._lab
        for wanted in self._snapshots:
            _answer(wanted, (recorded(lab), lab.sequence, lab.ev_hi))
        self._snapshots.clear()
        decision = Decision(lab, self._clock.now())
        answers: list[tuple[asyncio.Future[Any], Any]] = []
        ev_before = lab.ev_hi
        if first is not None:
            self._decide(decision, first, answers)
        taken = 1
        while (
            taken < TURN_INPUTS and len(decision.events) < TURN_EVENTS and not self._inbox.empty()
        ):
            self._decide(decision, self._inbox.get_nowait(), answers)
            taken += 1
        if not self.turns:
            on_resume(decision)
        on_tick(decision)
        schedule(decision)  # at once: nothing waits for a tick
        if decision.events or lab.ev_hi != ev_before:
            await self._commit(decision)
        self.turns += 1
        for future, value in answers:
            _answer(future, value)
        self._let_go(decision.effects)

    def _decide(
        self,
        decision: Decision,
        waiting: tuple[Decide[Any], asyncio.Future[Any] | None],
        answers: list[tuple[asyncio.Future[Any], Any]],
    ) -> None:
        decide, future = waiting
        value: Any
        events, effects = len(decision.events), len(decision.effects)
        try:
            value = decide(decision)
        except LabError as refused:
            value = refused
            if future is None:
                logger.warning("an input was refused", extra={"why": refused.line})
        except BrokenLab:
            raise  # an event is half in the Lab: only the LOG knows how it was
        except Exception as error:
            if len(decision.events) > events:
                raise  # decided by half: the next leader begins from the LOG
            del decision.effects[effects:]
            logger.exception("an input failed, and has changed nothing")
            value = error
        if future is not None:
            answers.append((future, value))

    async def _commit(self, decision: Decision) -> None:
        lab = self._lab
        events: tuple[AnyEvent, ...] = tuple(decision.events)
        frame = Frame(epoch=lab.epoch, at=decision.now, ev_hi=lab.ev_hi, events=events)
        failpoint("engine.decided")
        sequences = await self._pen.append(frame)
        failpoint("engine.appended")
        lab.sequence, lab.at, lab.turn_fences = sequences[-1], frame.at, 0
        self._on_commit(lab, frame, sequences[-1])

    def _let_go(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ForgetRun) and effect.run in self._lab.runs:
                forget(self._lab, effect.run)
        self._carry_out(self._lab, effects)


def _answer(future: asyncio.Future[Any], value: Any) -> None:
    if future.done():
        return
    if isinstance(value, Exception):
        future.set_exception(value)
    else:
        future.set_result(value)
