"""A TCP proxy that can swallow: a network that is silent, in both directions."""

import asyncio
import contextlib


class Proxy:
    """Carries bytes to a port of loopback until it is told not to."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.swallowing = False
        self.bytes_a_second = 0  # in each direction; 0: as fast as it goes
        self._target_port = target_port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def reset(self) -> None:
        """Cut every connection, as when a cable is pulled at a switch that says so."""
        for writer in self._writers:
            writer.transport.abort()

    def hold(self) -> None:
        """Keep what comes until `release`: a short outage, as TCP makes good for it."""
        self._flowing.clear()

    def release(self) -> None:
        self._flowing.set()

    @property
    def is_carrying(self) -> bool:
        return any(not writer.is_closing() for writer in self._writers)

    async def stop(self) -> None:
        self.reset()
        if self._server is not None:
            self._server.close()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers += [writer, far_writer]
        with contextlib.suppress(OSError):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(reader, far_writer))
                group.create_task(self._carry(far_reader, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(4096 if self.bytes_a_second else 65536):
                await self._flowing.wait()
                if self.bytes_a_second:
                    await asyncio.sleep(len(data) / self.bytes_a_second)
                if not self.swallowing:
                    writer.write(data)
                    await writer.drain()
        writer.close()
