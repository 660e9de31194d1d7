"""MET and LOGS -> stores, in batches; and what they have is told to the engine.

A message counts only from the agent under whose subject it came. Acknowledged and purged when it
is committed; what cannot be read is set aside, and the reader goes on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from tshrag_common import subjects
from tshrag_common.errors import LabError, Refused, Unavailable
from tshrag_common.ids import AgentId
from tshrag_common.reports import OutputBatch, SamplesMessage
from tshrag_common.wire import OUTPUT, SAMPLES, Codec
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.on_attempt import on_stored
from tshrag_controller.engine import Engine
from tshrag_controller.store.hot import Stored
from tshrag_controller.store.store import Store

logger = logging.getLogger(__name__)

RETRY_S = 1.0


class FromAgent(Protocol):
    """What every message of an agent's spool has."""

    @property
    def agent(self) -> AgentId: ...

    @property
    def spool(self) -> str: ...


M = TypeVar("M", SamplesMessage, OutputBatch)
SetAside = Callable[[str, str, bytes], None]
Incoming = tuple[str, int, bytes]
"""(subject, sequence in its stream, bytes)"""


class Mark(msgspec.Struct):
    """How far the spools of an agent are stored."""

    samples_spool: str = ""
    samples: int = 0
    output_spool: str = ""
    output: int = 0


class Ingest:
    """Takes what pullers bring; knows how far each agent's spools are stored."""

    def __init__(self, store: Store, engine: Engine, set_aside: SetAside) -> None:
        self._store, self._engine, self._set_aside = store, engine, set_aside
        self.marks: dict[AgentId, Mark] = {}
        self.refused: dict[str, int] = {}
        self.gaps = 0

    async def recall(self) -> None:
        """Read the marks back after a start, and tell the engine of them."""
        for agent, kind, spool, upto in await self._store.marks():
            if kind in ("samples", "output"):
                self._note(AgentId(agent), kind, spool, upto)
        for name in list(self.marks):
            self._tell(name)

    async def take_samples(self, messages: Sequence[Incoming]) -> None:
        await self._take("samples", SAMPLES, messages, self._store.take_samples)

    async def take_output(self, messages: Sequence[Incoming]) -> None:
        await self._take("output", OUTPUT, messages, self._store.take_output)

    async def _take(
        self,
        kind: str,
        codec: Codec[M],
        messages: Sequence[Incoming],
        store: Callable[[Sequence[M]], Awaitable[list[Stored]]],
    ) -> None:
        """Store messages; while the disk does not take them, wait: the stream keeps them."""
        known = [message for each in messages if (message := self._open(codec, each)) is not None]
        while known:
            try:
                outcomes = await store(known)
                break
            except Unavailable as error:
                logger.error("the store does not take data", extra={"why": error.line})
                await asyncio.sleep(RETRY_S)
        else:
            return
        agents: set[AgentId] = set()
        for message, outcome in zip(known, outcomes, strict=True):
            self._look_at(kind, message.agent, outcome)
            self._note(message.agent, kind, message.spool, outcome.upto)
            agents.add(message.agent)
        for agent in agents:
            self._tell(agent)

    def _open(self, codec: Codec[M], incoming: Incoming) -> M | None:
        subject, _, data = incoming
        try:
            agent, _ = subjects.agent_of(subject)
            message = codec.decode(data)
            if message.agent != agent:
                raise Refused(subject, f"a message of {message.agent}", code="not_holder")
        except LabError as error:
            self._set_aside(subject, error.line, data)
            return None
        return message

    def _look_at(self, kind: str, agent: AgentId, outcome: Stored) -> None:
        if outcome.gap_from:
            self.gaps += 1
            facts = {"agent": agent, "spool": kind, "from": outcome.gap_from}
            logger.warning("a gap in a spool, asked for again", extra=facts)
        for line in outcome.refused:
            name = f"{kind}_refused.{line.split(':', 1)[0]}"
            self.refused[name] = self.refused.get(name, 0) + 1
            logger.warning("data was refused", extra={"agent": agent, "why": line})

    def _note(self, agent: AgentId, kind: str, spool: str, upto: int) -> None:
        mark = self.marks.setdefault(agent, Mark())
        if kind == "samples":
            mark.samples_spool, mark.samples = spool, upto
        else:
            mark.output_spool, mark.output = spool, upto

    def _tell(self, agent: AgentId) -> None:
        mark = self.marks[agent]

        def stored(decision: Decision) -> None:
            if agent in decision.lab.agents:
                on_stored(decision, agent, mark.samples, mark.output)

        self._engine.tell(stored)
