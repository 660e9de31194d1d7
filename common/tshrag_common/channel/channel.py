"""One end of a channel as its user has it: read, write, a word beside the bytes, an end.

    while (piece := await channel.read()) is not None:
        await channel.write(piece.data)
    await channel.finish()

`read` and `write` wait for the other end and hold at most a window each. A lost message, a
reconnect of either side or of the server is no gap; what cannot be mended ends the channel with
``channel_lost``. `finish` ends one direction, `close` both.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from tshrag_common.channel.flow import PIECE_BYTES, WINDOW_BYTES, Flow
from tshrag_common.channel.frames import Frame, Over, Piece
from tshrag_common.errors import ErrorReport, LabError, Refused, Unavailable

_AGAIN = "see 'tshrag agent list', then open it again"


class ChannelLost(Unavailable):
    """The other end does not answer any more, or has forgotten the channel."""

    code = "channel_lost"


class ChannelClosed(Refused):
    """It was closed, here or there; nothing more can be said on it."""

    code = "channel_closed"


class Channel:
    """One end. Made by a `Hub`, which alone moves its frames."""

    def __init__(
        self,
        name: str,
        sends_to: str,
        touch: Callable[["Channel"], None],
        window_bytes: int = WINDOW_BYTES,
        *,
        hears_on: str = "",
        peer: str = "",
    ) -> None:
        self.name, self.sends_to, self.hears_on, self.peer = name, sends_to, hears_on, peer
        self.nobody_since: float | None = None  # the server says that nobody hears the other end
        self.heard_at = self.told_at = 0.0  # monotonic seconds, kept by the hub
        self.was_heard = False
        self.said_bytes = self.heard_bytes = 0
        self.greets = bool(sends_to)  # knows that the other end listens; it asks until it is heard
        self._touch = touch
        self._flow = Flow(window_bytes)
        self._readable, self._writable = asyncio.Event(), asyncio.Event()
        self._closing: Over | None = None

    async def read(self) -> Piece | None:
        """Return the next bytes or word; None at the end of what the other side says.

        Raises:
            LabError: the other side closed with it, or the channel was lost.

        """
        while True:
            piece = self._flow.take()
            if piece is not None:
                self._touch(self)
                self.heard_bytes += len(piece.data)
                return None if piece.kind == "end" else piece
            over = self._closing or self._flow.over
            if over is not None:
                if over.error is not None:
                    raise raised(over.error)
                return None
            self._readable.clear()
            await self._readable.wait()

    async def write(self, data: bytes) -> None:
        """Hand over `data`, and wait where the other end is a window behind.

        Raises:
            LabError: the channel is over.

        """
        for start in range(0, len(data), PIECE_BYTES):
            await self._room()
            piece = data[start : start + PIECE_BYTES]
            self._flow.push("data", piece)
            self.said_bytes += len(piece)
            self._touch(self)

    async def say(self, word: bytes) -> None:
        """Send a message of its own, in its place among the bytes."""
        await self._room()
        self._flow.push("word", word[:PIECE_BYTES])
        self._touch(self)

    async def finish(self) -> None:
        """Say that no more comes from here; the other direction goes on."""
        if not self._flow.finished and self._ended is None:
            self._flow.push("end")
            self._touch(self)

    async def flushed(self) -> None:
        """Return when the other end has all that was written; raise where it never will."""
        while not self._flow.all_acked:
            self._check()
            self._writable.clear()
            await self._writable.wait()

    async def gone(self) -> None:
        """Return when the channel is over, whoever has ended it."""
        while self._ended is None:
            self._readable.clear()
            await self._readable.wait()

    def close(self, error: ErrorReport | None = None) -> None:
        """End both directions at once; what was not sent is not sent. Again: does nothing."""
        if self._closing is None and self._flow.over is None:
            self._closing = Over(self._flow.pushed, error)
            self._wake()
            self._touch(self)

    def lose(self, why: str) -> None:
        """End it here without a word to the other end."""
        if self._flow.over is None:
            lost = ChannelLost(self.peer or "the other end", why, _AGAIN)
            self._flow.over = Over(0, lost.report())
        self._wake()

    @property
    def end(self) -> ErrorReport | None:
        """Return the error that ended it; None: none did, so far."""
        return self._ended.error if self._ended is not None else None

    @property
    def last_word(self) -> Over | None:
        """Return what this end has closed it with; None: it has not."""
        return self._closing

    @property
    def is_over(self) -> bool:
        return self._ended is not None

    @property
    def unacked_bytes(self) -> int:
        """Return how much the other end has not acknowledged yet."""
        return self._flow.kept_bytes

    @property
    def resent(self) -> int:
        """Return how many pieces had to be sent again."""
        return self._flow.resent

    # for the hub

    def next_frame(self) -> Frame | None:
        if self._closing is not None:
            return (self._flow.parting() if self.sends_to else None) or self._closing
        if self._flow.over is not None or not self.sends_to:
            return None
        return self._flow.next_frame()

    def answer_to(self, subject: str, hears_on: str = "", peer: str = "") -> None:
        """Say what waits, and all that comes, on `subject`, which is `peer`'s."""
        self.sends_to, self.hears_on, self.peer = subject, hears_on, peer
        self._touch(self)

    def greet(self) -> None:
        """Say that this end is there, before there is anything else to say."""
        self._flow.ask()
        self._touch(self)

    def ask(self) -> None:
        self._flow.ask()

    async def heard(self, within_s: float) -> bool:
        """Wait until the other end has said something; false: it has not."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self.was_heard:
                    self._readable.clear()
                    await self._readable.wait()
        return self.was_heard

    @property
    def is_settled(self) -> bool:
        return self._flow.is_settled

    def rewind(self) -> None:
        self._flow.rewind()

    def hear(self, frame: Frame) -> None:
        self.was_heard = True
        self._flow.hear(frame)
        self._wake()

    @property
    def _ended(self) -> Over | None:
        return self._closing or self._flow.over

    async def _room(self) -> None:
        self._check()
        while not self._flow.has_room:
            self._writable.clear()
            await self._writable.wait()
            self._check()

    def _check(self) -> None:
        over = self._ended
        if over is not None:
            if over.error is not None:
                raise raised(over.error)
            raise ChannelClosed(self.name, "the channel is closed")

    def _wake(self) -> None:
        self._readable.set()
        self._writable.set()


def raised(report: ErrorReport) -> LabError:
    """Return the error that the other end told of."""
    if report.code == ChannelLost.code:
        return ChannelLost("", report.message)
    kind = Unavailable if report.retryable else Refused
    return kind("", report.message, code=report.code)
