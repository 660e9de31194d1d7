"""MET and LOGS -> stores, in batches; and what they have is told to the engine.

A message counts only from the agent under whose subject it came. Acknowledged and purged when it
is committed; what cannot be read is set aside, and the reader goes on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Literal, Protocol, TypeVar

import msgspec

from tshrag_common import history, subjects
from tshrag_common.errors import LabError, Refused, Unavailable, shown
from tshrag_common.failpoints import failpoint
from tshrag_common.ids import AgentId
from tshrag_common.metrics import SampleBatch
from tshrag_common.reports import OutputBatch, SamplesMessage
from tshrag_common.wire import OUTPUT, SAMPLES, Codec
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.on_attempt import on_stored
from tshrag_controller.engine import Engine
from tshrag_controller.intake.checks import check_output, check_samples
from tshrag_controller.intake.spools import Spools
from tshrag_controller.pause import Pause
from tshrag_controller.store.hot import Stored
from tshrag_controller.store.store import Part, Store

logger = logging.getLogger(__name__)

RETRY_S = 1.0


class FromAgent(Protocol):
    """What every message of an agent's spool has."""

    @property
    def agent(self) -> AgentId: ...

    @property
    def spool(self) -> str: ...

    @property
    def first_seq(self) -> int: ...


M = TypeVar("M", SamplesMessage, OutputBatch)
T = TypeVar("T")
DataKind = Literal["samples", "output"]
SetAside = Callable[[str, str, bytes], None]
Incoming = tuple[str, int, bytes]
"""(subject, sequence in its stream, bytes)"""


class Mark(msgspec.Struct):
    """How far the spools of an agent are stored, and up to where nothing is missing before."""

    samples_spool: str = ""
    samples: int = 0
    samples_whole: int = 0
    output_spool: str = ""
    output: int = 0
    output_whole: int = 0


class Ingest:
    """Takes what pullers bring; knows how far each agent's spools are stored."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        set_aside: SetAside,
        spools: Spools,
        newest: Callable[[], Awaitable[int]],
        look: Callable[[Iterable[tuple[str, SampleBatch]]], None] = lambda _: None,
    ) -> None:
        self._store, self._engine, self._set_aside = store, engine, set_aside
        self._spools, self._newest, self._look = spools, newest, look
        self._pause = Pause()
        self.paused = self._pause.paused
        spools.on_change(self._tell)
        self.marks: dict[AgentId, Mark] = {}
        self.refused: dict[str, int] = {}
        self.gaps = 0
        self.filling: set[str] = set()
        """Parts of streams whose past is not stored here yet; see `filling.Filling`."""
        self.lacks = 0
        """How often something was confirmed to an agent that is not stored here."""

    async def recall(self) -> None:
        """Read the marks back after a start; the engine is told when their agents are heard."""
        parts: dict[tuple[str, str, str], int] = {}
        for name, data_kind, of, _, back in await self._store.two_parts():
            parts[name, data_kind, of] = back
        for agent, kind, spool, upto in await self._store.marks():
            if kind in ("samples", "output"):
                history.note("recalled", agent=agent, kind=kind, spool=spool, upto=upto)
                whole = parts.get((agent, kind, spool), upto)
                self._note(AgentId(agent), kind, spool, upto, whole)

    async def take_samples(self, messages: Sequence[Incoming], part: Part = "all") -> None:
        store = partial(self._store.take_samples, part=part)
        await self._take("samples", SAMPLES, messages, store)

    async def take_output(self, messages: Sequence[Incoming], part: Part = "all") -> None:
        store = partial(self._store.take_output, part=part)
        await self._take("output", OUTPUT, messages, store)

    async def _take(
        self,
        kind: DataKind,
        codec: Codec[M],
        messages: Sequence[Incoming],
        store: Callable[[Sequence[M]], Awaitable[list[Stored]]],
    ) -> None:
        known = [message for each in messages if (message := self._open(codec, each)) is not None]
        if not known:
            return
        await self._projected(await self._known_upto())
        async with self._pause.at_work():
            await self._store_all(kind, known, store)

    async def _store_all(
        self,
        kind: DataKind,
        known: list[M],
        store: Callable[[Sequence[M]], Awaitable[list[Stored]]],
    ) -> None:
        outcomes = await _patiently(lambda: store(known))
        if await self._skip_confirmed(kind, known, outcomes):
            outcomes = await _patiently(lambda: store(known))
        failpoint("ingest.stored")
        agents: set[AgentId] = set()
        for message, outcome in zip(known, outcomes, strict=True):
            self._look_at(kind, message, outcome)
            facts = {"spool": message.spool, "kind": kind, "agent": message.agent}
            history.note("stored", seq=message.first_seq, upto=outcome.upto, **facts)
            if isinstance(message, SamplesMessage):
                self._look(self._fresh(message, outcome))
            if not self._spools.is_current(message.agent, kind, message.spool):
                self._spools.doubt(message.agent)  # its journal may be a new one: the beat tells
            self._note(message.agent, kind, message.spool, outcome.upto, outcome.whole)
            agents.add(message.agent)
        for agent in agents:
            self._tell(agent)

    async def _known_upto(self) -> int:
        """Return a frame behind every one that these data are of."""
        while True:
            try:
                return await self._newest()
            except (Unavailable, TimeoutError):  # the stream keeps them
                await asyncio.sleep(RETRY_S)

    def _fresh(self, message: SamplesMessage, outcome: Stored) -> list[tuple[str, SampleBatch]]:
        """Return the batches that had not been stored before; a message may come again."""
        mark = self.marks.get(message.agent)
        known = mark.samples if mark is not None and mark.samples_spool == message.spool else 0
        if outcome.gap_from:
            return []
        skipped = max(0, known + 1 - message.first_seq)
        return [(message.agent, batch) for batch in message.batches[skipped:]]

    async def _projected(self, sequence: int) -> None:
        """Wait until the store knows the attempts that these data are of, or it refuses them."""
        while self._store.applied < sequence:
            try:
                await self._store.wait_applied(sequence)
            except TimeoutError:
                logger.warning("data wait for the projection", extra={"sequence": sequence})

    def _open(self, codec: Codec[M], incoming: Incoming) -> M | None:
        subject, _, data = incoming
        try:
            agent, _ = subjects.agent_of(subject)
            message = codec.decode(data)
            if message.agent != agent:
                raise Refused(subject, f"a message of {shown(message.agent)}", code="not_holder")
            if isinstance(message, SamplesMessage):
                check_samples(message)
            else:
                check_output(message)
        except LabError as error:
            self._set_aside(subject, error.line, data)
            return None
        return message

    async def _skip_confirmed(
        self, kind: DataKind, messages: Sequence[FromAgent], outcomes: Sequence[Stored]
    ) -> bool:
        """Pass over what agents were told to be stored, where we have lost it; tell if so.

        They have no more of it, so that a gap there would stay open for ever.
        """
        found = False
        for message, outcome in zip(messages, outcomes, strict=True):
            upto = self._spools.confirmed(message.agent, kind, message.spool)
            upto = min(upto, message.first_seq - 1)
            if outcome.gap_from and upto >= outcome.gap_from:
                place = (message.agent, kind, message.spool)
                await self._pass_over(place, outcome.gap_from, upto)
                found = True
        return found

    async def _pass_over(
        self, place: tuple[AgentId, DataKind, str], gap_from: int, upto: int
    ) -> None:
        await _patiently(lambda: self._store.skip(*place, gap_from, upto))
        facts = {"agent": place[0], "spool": place[1], "from": gap_from, "upto": upto}
        logger.error("what was confirmed before is not here any more", extra=facts)
        self.lacks += 1

    async def close_gaps(self) -> bool:
        """Look at spools in two parts that nothing fills any more; tell whether some are left.

        What its agent was told to be stored will not come; what it still has is asked for.
        """
        left, parts = False, await self._store.two_parts()
        for agent, kind, spool, base, back in parts:
            name = AgentId(agent)
            place = (name, kind, spool)
            upto = min(self._spools.confirmed(*place), base - 1)
            if self._spools.is_known(name) and not self._spools.is_current(*place):
                upto = base - 1  # its journal is another one now
            if upto > back:
                await self._pass_over(place, back + 1, upto)
            if upto < base - 1:
                left = True
                self._spools.gap(name, kind, max(upto, back) + 1)
        if parts:
            await self.recall()
        return left

    def _look_at(self, kind: DataKind, message: FromAgent, outcome: Stored) -> None:
        agent = message.agent
        if outcome.gap_from:
            self.gaps += 1
            missing = f"gap {outcome.gap_from}..{message.first_seq - 1} requested"
            facts = {"agent": agent, "spool": kind, "what": missing}
            logger.warning("data are missing", extra=facts)
            self._spools.gap(agent, kind, outcome.gap_from)
        for line in outcome.refused:
            name = f"{kind}_refused.{line.split(':', 1)[0]}"
            self.refused[name] = self.refused.get(name, 0) + 1
            logger.warning("data was refused", extra={"agent": agent, "why": line})

    def _note(self, agent: AgentId, kind: str, spool: str, upto: int, whole: int) -> None:
        mark = self.marks.setdefault(agent, Mark())
        if kind == "samples":
            mark.samples_spool, mark.samples, mark.samples_whole = spool, upto, whole
        else:
            mark.output_spool, mark.output, mark.output_whole = spool, upto, whole

    def tell_all(self) -> None:
        """Tell the engine of all agents: it leads from now on, and was told nothing before."""
        for agent in self.marks:
            self._tell(agent)

    def _tell(self, agent: AgentId) -> None:
        """Tell the engine how far the spools are that the agent has now.

        Until it has said which those are, nothing: an old spool has higher numbers.
        """
        mark = self.marks.get(agent)
        if mark is None or not self._spools.is_known(agent):
            return
        samples = self._current(agent, "samples", mark.samples_spool, mark.samples)
        output = self._current(agent, "output", mark.output_spool, mark.output)

        def stored(decision: Decision) -> None:
            if agent in decision.lab.agents:
                on_stored(decision, agent, samples, output)

        self._engine.tell(stored)

    def _current(self, agent: AgentId, kind: DataKind, spool: str, upto: int) -> int:
        return upto if self._spools.is_current(agent, kind, spool) else 0


async def _patiently(write: Callable[[], Awaitable[T]]) -> T:
    """Write; while the disk does not take it, wait: the stream keeps it."""
    while True:
        try:
            return await write()
        except Unavailable as error:
            logger.error("the store does not take data", extra={"why": error.line})
            await asyncio.sleep(RETRY_S)
