"""A TCP proxy for bad links: delay with jitter, a trickle of single bytes, resets. A process.

    python -m tests.chaos.proxy HOST TARGET_PORT [--delay-ms N --jitter-ms N] [--trickle BYTES]
                                [--reset-s N]

It says its port on the first line, and the number of connections so far on every further one.
Bytes are delayed, not held up: what comes meanwhile is on its way, too.
"""

import argparse
import asyncio
import contextlib
import random
import socket
from typing import NamedTuple

_CHUNK = 65536
_TICK_S = 0.01


class Weather(NamedTuple):
    """What the link is like; zeros: as a good one."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    trickle: int = 0  # bytes a second, each in a segment of its own
    reset_s: float = 0.0


class Proxy:
    """Carries connections to a port of loopback."""

    def __init__(self, target: int, weather: Weather) -> None:
        self._target, self._weather = target, weather
        self._writers: set[asyncio.StreamWriter] = set()
        self._chance = random.Random(20)
        self.connections = 0

    async def serve(self, host: str) -> None:
        server = await asyncio.start_server(self._carry, host, 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        async with server:
            while True:
                await asyncio.sleep(self._weather.reset_s or 3600.0)
                for writer in self._writers:
                    _reset(writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        print(self.connections, flush=True)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        both = {writer, far_writer}
        self._writers |= both
        try:
            await asyncio.gather(self._way(reader, far_writer), self._way(far_reader, writer))
        finally:
            self._writers -= both

    async def _way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction: read at once, write when it is due."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)
        telling = loop.create_task(self._tell(waiting, writer))
        due = 0.0
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                jitter_s = self._chance.uniform(-1, 1) * self._weather.jitter_s
                due = max(due, loop.time() + self._weather.delay_s + jitter_s)
                await waiting.put((due, data))
        await waiting.put((due, b""))
        await telling

    async def _tell(
        self, waiting: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not data:
                    break
                await self._write(writer, data)
        writer.close()
        while not waiting.empty():  # who reads must not wait for who writes no more
            waiting.get_nowait()

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        step = max(1, round(self._weather.trickle * _TICK_S))
        if not self._weather.trickle:
            writer.write(data)
            await writer.drain()
            return
        for begin in range(0, len(data), step):
            for byte in data[begin : begin + step]:
                writer.write(bytes((byte,)))  # NODELAY is asyncio's way: one segment each
                await writer.drain()
            await asyncio.sleep(_TICK_S)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST, not by FIN."""
    opened: socket.socket | None = writer.get_extra_info("socket")
    if opened is not None:
        with contextlib.suppress(OSError):
            linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


def main() -> None:
    parser = argparse.ArgumentParser(prog="proxy")
    parser.add_argument("host")
    parser.add_argument("target", type=int)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--jitter-ms", type=float, default=0.0)
    parser.add_argument("--trickle", type=int, default=0)
    parser.add_argument("--reset-s", type=float, default=0.0)
    said = parser.parse_args()
    weather = Weather(said.delay_ms / 1e3, said.jitter_ms / 1e3, said.trickle, said.reset_s)
    asyncio.run(Proxy(said.target, weather).serve(said.host))


if __name__ == "__main__":
    main()
