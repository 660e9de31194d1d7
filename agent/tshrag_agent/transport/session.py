"""One command on a DUT from its start to its end, over any link that can start a program there."""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol

from tshrag_agent.transport.base import Cause, OutputSink, Stream
from tshrag_agent.transport.launch import Ended, Splitter, ended
from tshrag_common.ids import Fence

AFTER_KILL_S = 8.0
"""The wrapper looks for 5 s whether SIGKILL has done it; the rest is for the way."""

LINGER_S = 5.0
"""A channel whose program has ended is let go after this time, whoever still holds its streams."""


class Channel(Protocol):
    """One program on the far side: its three streams and its end."""

    status: int | None  # exit status; None while it lives, after a signal, after a lost link

    async def write(self, data: bytes) -> None:
        """Send to stdin; after the end it does nothing."""
        ...

    def finish(self) -> None:
        """Close stdin."""
        ...

    async def closed(self) -> None:
        """Return when the program has ended and all that it said has been heard, or on abort."""
        ...

    def abort(self) -> None:
        """Let go at once; the far side sees the end of its stdin."""
        ...


class Link(Protocol):
    """What starts programs on a DUT; made anew when it has broken."""

    where: str

    async def connect(self) -> int:
        """See that the link stands; return its number, which a new connection increases."""
        ...

    async def start(self, command: str, on_output: OutputSink) -> Channel:
        """Start `command`, plain words for any login shell."""
        ...


class Session:
    """A command as the agent sees it. With `beat_s` a guard on the DUT wants heartbeats.

    Without a guard `kill` is handed the pid and must end what it can.
    """

    def __init__(
        self,
        fence: Fence,
        on_output: OutputSink,
        *,
        beat_s: float | None,
        stop_s: float,
        kill: Callable[[int], Awaitable[None]],
    ) -> None:
        self.fence = fence
        self.nonce = secrets.token_hex(16)
        self.asked: Cause | None = None
        self.end: Ended | None = None
        self._pid = 0
        self._over = asyncio.Event()
        self._channel: Channel | None = None
        self._on_output = on_output
        self._beat_s, self._stop_s, self._kill = beat_s, stop_s, kill
        self._split: dict[Stream, Splitter] = {
            "stdout": Splitter(self.nonce),
            "stderr": Splitter(self.nonce),
        }

    @property
    def status(self) -> int | None:
        return self._channel.status if self._channel else None

    @property
    def began(self) -> bool:
        """Tell whether the command itself has been started."""
        return any(split.began for split in self._split.values())

    @property
    def noise(self) -> str:
        """Return what was said on stderr before it began."""
        return self._split["stderr"].noise.decode("utf-8", "replace").strip()

    async def attend(self, link: Link, line: str, script: bytes, timeout_s: float) -> None:
        """Start it and stay until it is over, whoever ends it."""
        self._channel = channel = await link.start(line, self._hear)
        try:
            async with asyncio.TaskGroup() as group:
                beat = group.create_task(self._beat(channel, script), name="heartbeat of a command")
                group.create_task(self._watch_end(channel), name="end of a command")
                await self._stay(timeout_s)
                beat.cancel()
        finally:
            channel.abort()
            self._flush()
            self._over.set()

    async def stop(self, cause: Cause) -> None:
        """Ask for the end and wait for it, within bounds; then let go, which asks once more."""
        self.asked = self.asked or cause
        if self._channel is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._stop_s):
                await self._ask_for_end(self._channel)
                await self._over.wait()
        self._channel.abort()

    async def _ask_for_end(self, channel: Channel) -> None:
        if self._beat_s is not None:
            await channel.write(b"stop\n")
        elif self._pid:
            await self._kill(self._pid)

    async def _stay(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._over.wait()
        except TimeoutError:
            await self.stop("deadline")
        except asyncio.CancelledError:
            await self.stop("stopped")
            raise

    async def _watch_end(self, channel: Channel) -> None:
        await channel.closed()
        self._over.set()

    async def _beat(self, channel: Channel, script: bytes) -> None:
        await channel.write(script)
        while self._beat_s is not None:
            await asyncio.sleep(self._beat_s)
            await channel.write(b"\n")

    def _hear(self, stream: Stream, data: bytes) -> None:
        output, lines = self._split[stream].feed(data)
        if output:
            self._on_output(stream, output)
        for line in lines:
            if line.startswith("started ") and line[8:].isdecimal():
                self._pid = int(line[8:])
            self.end = ended(line) or self.end

    def _flush(self) -> None:
        for stream, split in self._split.items():
            if rest := split.rest():
                self._on_output(stream, rest)
