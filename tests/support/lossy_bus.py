"""A bus in virtual time that loses, repeats and delays what chance says, for both ends of channels.

The ends are the real ones: the hub of an agent and that of a client. What stands between them is
this: a controller that tells the agent, and messages whose way is drawn from a seed. A subject
without a listener swallows what is said on it, as core NATS does.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, cast

from tshrag_agent.channels import Channels as AgentChannels
from tshrag_common.asking import Asking
from tshrag_common.bus.connection import Bus
from tshrag_common.bus.messages import Message
from tshrag_common.channel.hub import Hub
from tshrag_common.channel_requests import OpenChannel, OpenChannelAnswer
from tshrag_common.commands import ServeChannel
from tshrag_common.ids import AgentId, OrgId

AGENT, ORG, PERSON = AgentId("a1"), OrgId("default"), "jo"


class LoopClock:
    """The time of the loop, virtual or not."""

    def now(self) -> int:
        return int(self.monotonic() * 1e6)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Way:
    """What happens to a message: lost, twice, late; nothing of that once it is `sound`."""

    def __init__(self, seed: int, loss: float, late_s: float = 0.3) -> None:
        self._chance, self._loss, self._late_s = random.Random(seed), loss, late_s
        self.sound = False
        self.drops: Callable[[str, bytes], bool] = lambda subject, data: False
        self.lost, self._last_at = 0, 0.0

    def carry(self, deliver: Callable[[], None], subject: str = "", data: bytes = b"") -> None:
        loop = asyncio.get_running_loop()
        if self.drops(subject, data):
            self.lost += 1
            return
        if self.sound or not self._loss:
            self._in_turn(deliver)
            return
        if self._chance.random() < self._loss:
            self.lost += 1
            return
        for _ in range(1 + (self._chance.random() < self._loss)):
            if self._chance.random() < self._loss:
                loop.call_later(self._chance.random() * self._late_s, deliver)
            else:
                self._in_turn(deliver)

    def _in_turn(self, deliver: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._last_at = max(self._last_at + 1e-6, loop.time() + 0.001)
        loop.call_at(self._last_at, deliver)


class LossyBus:
    """What channels need of a `Bus`; two of them share their `listeners`."""

    plain, name, is_connected = True, PERSON, True

    def __init__(self, way: Way, listeners: dict[str, Callable[[Message], None]]) -> None:
        self._way, self._listeners = way, listeners

    async def publish(self, subject: str, data: bytes) -> None:
        def deliver() -> None:
            for pattern, listener in list(self._listeners.items()):
                if _matches(pattern, subject):
                    listener(Message(subject, "", data, {}))

        await asyncio.sleep(0.0005)  # so that a flood takes time
        self._way.carry(deliver, subject, data)

    async def publish_for(self, subject: str, data: bytes, _reply: str) -> None:
        await self.publish(subject, data)

    async def subscribe(self, subject: str, callback: Callable[[Message], None]) -> "_Interest":
        self._listeners[subject] = callback
        return _Interest(self._listeners, subject)

    async def settled(self) -> None:
        await asyncio.sleep(0.001)

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """There is none."""

    def forget_reconnect(self, callback: Callable[[], None]) -> None:
        """There was none."""


class _Interest:
    def __init__(self, listeners: dict[str, Callable[[Message], None]], subject: str) -> None:
        self._listeners, self._subject = listeners, subject

    async def end(self) -> None:
        self._listeners.pop(self._subject, None)


class LossyLab:
    """An agent and a client; `way` is between them, `told` between the controller and the agent."""

    def __init__(self, seed: int, loss: float) -> None:
        self.way, self.told = Way(seed, loss), Way(seed + 1, loss)
        self._tasks: set[asyncio.Task[None]] = set()
        self._chance = random.Random(seed + 2)
        listeners: dict[str, Callable[[Message], None]] = {}
        self.org, self.bus = ORG, LossyBus(self.way, listeners)
        self._agent_bus = LossyBus(self.way, listeners)
        self.agent = AgentChannels(
            AGENT, lambda: cast(Bus, self._agent_bus), self._spawn, self.a_hub(self._agent_bus)
        )
        self.answer_late_s = 0.0

    def a_hub(self, bus: LossyBus) -> Hub:
        return Hub(lambda: cast(Bus, bus), clock=LoopClock())

    async def start(self) -> None:
        await self.agent.attend(cast(Bus, self._agent_bus))
        self._spawn(self.agent.run(), "hub of the agent")

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def as_client(self) -> Asking:
        return cast(Asking, self)

    async def ask(
        self, verb: str, asked: OpenChannel, _answer: object, timeout_s: float = 10.0
    ) -> OpenChannelAnswer:
        """Be the controller: tell the agent, which may never hear of it, and answer."""
        command = ServeChannel(org=ORG, person=PERSON, session=asked.session, want=asked.want)
        self.told.carry(lambda: self.agent.open(command))
        await asyncio.sleep(self.answer_late_s or self._chance.random() * 0.05)
        return OpenChannelAnswer(agent=AGENT, person=PERSON)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> object:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _matches(pattern: str, subject: str) -> bool:
    wanted, said = pattern.split("."), subject.split(".")
    return len(wanted) == len(said) and all(
        each in ("*", word) for each, word in zip(wanted, said, strict=True)
    )
