"""All channels of one process over one connection: who hears which frame, and what goes out when.

One task sends for all of them, a frame each in turn, so that a flood on one holds no keystroke of
another up for longer than its own frame. It also keeps them alive: an end that is silent is asked,
one that stays silent is lost; sooner where the server says that nobody hears it: its process has
died. The last word of a channel is kept for a while, and said again to who missed it.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from tshrag_common.bus.connection import Bus
from tshrag_common.bus.messages import Message
from tshrag_common.channel.channel import Channel
from tshrag_common.channel.flow import WINDOW_BYTES
from tshrag_common.channel.frames import Frame, Over, State, decoded, encoded
from tshrag_common.clock import Clock, SystemClock
from tshrag_common.errors import ErrorReport, LabError, Refused, Unavailable
from tshrag_common.wire import BadMessage

logger = logging.getLogger(__name__)

TICK_S = 1.0
ASK_S = 3.0
"""An end to which nothing was said for so long is asked whether it is there."""
LOST_S = 45.0
"""Silence after which a channel is given up; a reconnect or a new server fits in."""
GONE_S = 8.0
"""The same where the server says that nobody hears: a reconnect after a new server fits in."""

NO_RESPONDERS = "503"

_STRAYS_MOST = _LAST_WORDS_MOST = 1024
_UNKNOWN = ErrorReport(
    code="channel_lost",
    message="the other end: it knows nothing of this channel, it has begun anew; open it again",
    retryable=True,
)


class Hub:
    """The channels of this end. `run` must be alive for any of them to move."""

    def __init__(
        self,
        bus: Callable[[], Bus | None],
        *,
        clock: Clock | None = None,
        lost_s: float = LOST_S,
        gone_s: float = GONE_S,
        tick_s: float = TICK_S,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self._bus, self._clock = bus, clock or SystemClock()
        self._lost_s, self._gone_s, self._tick_s = lost_s, gone_s, tick_s
        self._window = window_bytes
        self._open: dict[str, Channel] = {}
        self._stirred: dict[str, Channel] = {}  # in turn; those that may have something to send
        self._awake, self._left = asyncio.Event(), asyncio.Event()
        self._strays: dict[str, Frame] = {}
        self._last_words: dict[str, tuple[str, Over]] = {}  # of closed channels, oldest first
        self._next_tick = 0.0

    def open(self, name: str, sends_to: str, hears_on: str = "", peer: str = "") -> Channel:
        """Return a new channel; `name` is its own in this hub, `sends_to` a subject.

        Without a subject it is silent until `Channel.answer_to` tells it one. On `hears_on`, which
        this end listens to, the server says that nobody hears `peer`'s subject.
        """
        if name in self._open:
            raise Refused("channel", f"{name} is open already", code="channel_busy")
        channel = Channel(name, sends_to, self._touch, self._window, hears_on=hears_on, peer=peer)
        channel.heard_at = channel.told_at = self._clock.monotonic()
        self._open[name] = channel
        return channel

    def find(self, name: str) -> Channel | None:
        return self._open.get(name)

    def __len__(self) -> int:
        return len(self._open)

    def hear(self, name: str, message: Message, answer_to: str = "") -> None:
        """Take a message for the channel `name`.

        Where there is none, its sender is told on `answer_to`: it would wait for long otherwise.
        """
        if message.status == NO_RESPONDERS:
            self._nobody_hears(name)
            return
        try:
            frame = decoded(message.data)
        except BadMessage as error:
            logger.warning("a frame was dropped", extra={"channel": name, "why": error.line})
            return
        channel = self._open.get(name)
        if channel is None:
            if answer_to and not isinstance(frame, Over):
                self._say_over(name, answer_to)
            return
        channel.heard_at, channel.nobody_since = self._clock.monotonic(), None
        channel.hear(frame)
        if channel.is_over:
            self._open.pop(name, None)
            self._left.set()
        else:
            self._touch(channel)

    def repeat(self, name: str) -> None:
        """Say the last word of a closed channel again: who opened it may have missed it."""
        if name in self._last_words:
            self._say_over(name, self._last_words[name][0])

    async def let_go(self, name: str, within_s: float = 2.0) -> None:
        """Wait until the last frame of a closed channel is sent; then forget it in any case.

        What was not sent in time is said to who asks: they would hear that we never knew of it.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while name in self._open:
                    self._left.clear()
                    await self._left.wait()
        channel = self._open.pop(name, None)
        self._stirred.pop(name, None)
        if channel is not None and channel.last_word is not None:
            self._keep_last_word(name, channel.sends_to, channel.last_word)

    def resync(self) -> None:
        """Ask every other end how far it is: the connection was away."""
        for name, channel in self._open.items():
            channel.nobody_since = None  # the other end may come back later than this one
            self._ask(name, channel)
        self._awake.set()

    async def run(self) -> None:
        """Send what there is to send, for ever; with it end the channels."""
        self._next_tick = self._clock.monotonic() + self._tick_s
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._next_tick - self._clock.monotonic()):
                        await self._awake.wait()
                self._awake.clear()
                self._tick_in_time()
                try:
                    await self._send_all()
                except Unavailable as error:  # `resync` follows when the bus is back
                    logger.debug("channels wait for the bus", extra={"why": error.line})
        finally:
            for channel in self._open.values():
                channel.lose("this end does not run any more")

    async def _send_all(self) -> None:
        bus = self._bus()
        if bus is None or not bus.is_connected:
            return
        while self._strays:
            subject, frame = self._strays.popitem()
            await bus.publish(subject, encoded(frame))
        while self._stirred:
            for name, channel in list(self._stirred.items()):
                await self._send_one(bus, name, channel)
            self._tick_in_time()  # a flood of one must not keep what another has lost
            await asyncio.sleep(0)  # others must come to their turn between two rounds

    async def _send_one(self, bus: Bus, name: str, channel: Channel) -> None:
        frame = channel.next_frame()
        if frame is None:
            self._stirred.pop(name, None)
            return
        try:
            if channel.sends_to:  # else it was closed before anybody had heard of it
                await self._publish(bus, channel, frame)
        except Unavailable:
            channel.rewind()
            raise
        except LabError as error:  # of this channel alone: the others go on
            logger.warning("a channel is lost", extra={"channel": name, "why": error.line})
            channel.lose(error.line)
        channel.told_at = self._clock.monotonic()
        if isinstance(frame, Over):
            self._stirred.pop(name, None)
            if self._open.get(name) is channel:
                del self._open[name]
                self._keep_last_word(name, channel.sends_to, frame)
            self._left.set()

    async def _publish(self, bus: Bus, channel: Channel, frame: Frame) -> None:
        """Send it; where the other end is silent, with the wish to know whether anybody hears."""
        asks = isinstance(frame, State) and frame.wants_answer
        if asks and self._clock.monotonic() - channel.heard_at > self._tick_s:
            await bus.publish_for(channel.sends_to, encoded(frame), channel.hears_on)
        else:
            await bus.publish(channel.sends_to, encoded(frame))

    def _nobody_hears(self, name: str) -> None:
        """Give the other end some time to come back, then give it up."""
        channel = self._open.get(name)
        if channel is None:
            return
        now = self._clock.monotonic()
        if channel.nobody_since is None:
            channel.nobody_since = now
        elif now - channel.nobody_since > self._gone_s:
            self._give_up(name, channel, "it has left the bus: its process or its host has died")

    def _give_up(self, name: str, channel: Channel, why: str) -> None:
        del self._open[name]
        self._stirred.pop(name, None)
        channel.lose(why)

    def _keep_last_word(self, name: str, sends_to: str, over: Over) -> None:
        self._last_words[name] = sends_to, over
        if len(self._last_words) > _LAST_WORDS_MOST:
            del self._last_words[next(iter(self._last_words))]

    def _say_over(self, name: str, answer_to: str) -> None:
        """Tell who speaks on a channel that is not open here how it ended, where that is known."""
        if len(self._strays) < _STRAYS_MOST:
            known = self._last_words.get(name)
            self._strays[answer_to] = known[1] if known else Over(0, _UNKNOWN)
            self._awake.set()

    def _tick_in_time(self) -> None:
        now = self._clock.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + self._tick_s
            self._tick()

    def _tick(self) -> None:
        now = self._clock.monotonic()
        for name, channel in list(self._open.items()):
            if now - channel.heard_at > self._lost_s:
                self._give_up(name, channel, f"it has been silent for {self._lost_s:g} s")
            elif _is_in_doubt(channel) or now - channel.told_at >= ASK_S:
                self._ask(name, channel)

    def _ask(self, name: str, channel: Channel) -> None:
        if channel.was_heard or channel.greets:  # else the other end may not know of it yet
            channel.ask()
            self._stirred[name] = channel

    def _touch(self, channel: Channel) -> None:
        if self._open.get(channel.name) is channel:
            self._stirred[channel.name] = channel
            self._awake.set()


def _is_in_doubt(channel: Channel) -> bool:
    """Tell whether something is on its way, or the other end may be gone."""
    return not (channel.is_settled and channel.was_heard) or channel.nobody_since is not None
