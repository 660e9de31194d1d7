"""Channels that people open to this agent: each is served by the handler of what it is for.

A controller's signed command opens one; who speaks on it is vouched for by the bus, which puts org
and person into the subject. A handler that ends has all it said delivered; one that fails tells
its error to the other end. What a handler may do is bounded by the fence of the command.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from tshrag_agent.audit import Audit
from tshrag_common import subjects
from tshrag_common.bus.connection import Bus
from tshrag_common.bus.messages import Message
from tshrag_common.channel.channel import Channel
from tshrag_common.channel.hub import Hub
from tshrag_common.channel.wants import AnyWant, EchoWant, ExecActWant, SshFactsWant
from tshrag_common.commands import ServeChannel
from tshrag_common.errors import ErrorReport, LabError, Refused
from tshrag_common.ids import AgentId

logger = logging.getLogger(__name__)

CHANNELS_MOST = 512
_REMEMBERED = 1024
_FLUSH_S = 120.0
"""What a reader may rest behind the end of what is said to him; one who is gone is lost sooner."""

_UNRECORDED = (EchoWant, SshFactsWant)

W = TypeVar("W", bound=AnyWant)
Handler = Callable[[Channel, ServeChannel, W], Awaitable[None]]
"""Serves one channel until it returns; told who opened it, for which DUT, under which fence."""

Spawn = Callable[[Coroutine[Any, Any, None], str], object]


class Channels:
    """What people have open here."""

    def __init__(
        self,
        agent: AgentId,
        bus: Callable[[], Bus | None],
        spawn: Spawn,
        hub: Hub | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._agent, self._spawn = agent, spawn
        self._hub = Hub(bus) if hub is None else hub  # an empty one is false
        self._audit = audit
        self._handlers: dict[type, Handler[Any]] = {}
        self._ended: deque[str] = deque(maxlen=_REMEMBERED)
        self.counters = Counter[str]()
        self.serve(EchoWant, _echo)

    def serve(self, want: type[W], handler: Handler[W]) -> None:
        """Let `handler` serve the channels that are opened for `want`."""
        self._handlers[want] = handler

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hub.run(), name="hub of channels")
            if self._audit is not None:
                group.create_task(self._audit.run(), name="audit")

    async def attend(self, bus: Bus) -> None:
        """Hear channels on a new connection."""
        bus.on_reconnect(self._hub.resync)
        await bus.subscribe(subjects.channels_to(self._agent), self._hear)
        self._hub.resync()

    def open(self, command: ServeChannel) -> None:
        """Begin to serve what a command tells of.

        One that is served already greets again, one that was says its last word again: who asks
        anew has not heard it.
        """
        name = _name(command.org, command.person, command.session)
        known = self._hub.find(name)
        if known is not None:
            known.greet()
            return
        if name in self._ended:
            self._hub.repeat(name)
            return
        whose = (command.org, command.person, self._agent, command.session)
        back, hears_on = subjects.channel_out(*whose), subjects.channel_in(*whose)
        channel = self._hub.open(name, back, hears_on, f"{command.org}/{command.person}")
        self._ended.append(name)
        self._spawn(self._conduct(channel, command), f"channel {name}")

    def _hear(self, message: Message) -> None:
        try:
            org, person, agent, session = subjects.channel_of(message.subject)
        except LabError:
            self.counters["channel_frames_bad"] += 1
            return
        back = subjects.channel_out(org, person, agent, session)
        self._hub.hear(_name(org, person, session), message, back)

    async def _conduct(self, channel: Channel, command: ServeChannel) -> None:
        error: ErrorReport | None = None
        self.counters["channels_opened"] += 1
        try:
            if len(self._hub) > CHANNELS_MOST:
                what = f"{CHANNELS_MOST} channels are open"
                raise Refused(f"agent {self._agent}", what, code="channels_full")
            handler = self._handlers.get(type(command.want))
            if handler is None:
                what = "this agent does not serve that"
                raise Refused(f"agent {self._agent}", what, "upgrade it", code="channel_unserved")
            channel.greet()
            self._note(command)
            await handler(channel, command, command.want)
            await channel.finish()
            await _flushed(channel)
        except LabError as failed:
            error = failed.report()
        except TimeoutError:
            error = ErrorReport(code="channel_lost", message="not all was taken", retryable=True)
        except Exception:  # a bug of ours ends this channel and nothing else
            logger.exception("a channel failed", extra={"channel": channel.name})
            error = ErrorReport(code="internal", message="a bug of ours; the agent's log has it")
        finally:
            self._note(command, channel, error)
            channel.close(error)

    def _note(
        self,
        command: ServeChannel,
        channel: Channel | None = None,
        error: ErrorReport | None = None,
    ) -> None:
        """Put it on record, where it touches a board or a host."""
        if self._audit is None or _only_looks(command.want):
            return
        if channel is None:
            self._audit.opened(command)
        else:
            self._audit.closed(command, channel, error)


def _name(org: str, person: str, session: str) -> str:
    return f"{org}.{person}.{session}"


def _only_looks(want: AnyWant) -> bool:
    if isinstance(want, ExecActWant):
        return want.what in ("list", "status", "wait")
    return isinstance(want, _UNRECORDED)


async def _flushed(channel: Channel) -> None:
    """Return when all was taken, however slowly; raise TimeoutError where nothing is any more."""
    while True:
        before = channel.unacked_bytes
        try:
            async with asyncio.timeout(_FLUSH_S):
                return await channel.flushed()
        except TimeoutError:
            if channel.unacked_bytes == before:
                raise


async def _echo(channel: Channel, command: ServeChannel, want: EchoWant) -> None:
    while (piece := await channel.read()) is not None:
        await channel.write(piece.data)
