"""A listener for two pages: ``/metrics`` and ``/-/healthy``. Nothing else is served.

Small on purpose (docs/decisions/0107): the HTTP API will serve the same text, and then this
listener goes. Every connection is one request, bounded in size and time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tshrag_common.errors import LabError, Unavailable
from tshrag_controller.prometheus.text import TYPE

logger = logging.getLogger(__name__)

PLAIN = "text/plain; charset=utf-8"
MOST_HEAD, MOST_CONNECTIONS, TIMEOUT_S = 8192, 32, 10.0


class CannotListen(Unavailable):
    """The address of ``[prometheus] listen`` cannot be taken."""

    code = "listen"


class Listener:
    """Serves `text` on HOST:PORT while `serve` runs; ``port`` is known then."""

    def __init__(self, address: str, text: Callable[[], Awaitable[str]]) -> None:
        self._address, self._text = address, text
        self._open = 0
        self.port = 0

    async def serve(self) -> None:
        """Serve for ever.

        Raises:
            CannotListen: somebody else has the port, or the host is none of ours.

        """
        host, _, port = self._address.rpartition(":")
        try:
            server = await asyncio.start_server(
                self._serve, host.strip("[]"), int(port), limit=MOST_HEAD
            )
        except (OSError, ValueError) as error:
            fix = "HOST:PORT of a free port in [prometheus] listen"
            raise CannotListen(self._address, str(error), fix) from None
        async with server:
            self.port = int(server.sockets[0].getsockname()[1])
            logger.info("metrics are served", extra={"port": self.port})
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            async with asyncio.timeout(TIMEOUT_S):
                writer.write(await self._answer(reader))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            logger.debug("a scrape was cut off")
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        if self._open > MOST_CONNECTIONS:
            return _page("503 Service Unavailable", "too many connections\n")
        head = await reader.readuntil(b"\r\n\r\n")
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or words[0] not in (b"GET", b"HEAD"):
            return _page("405 Method Not Allowed", "GET /metrics\n")
        path, bare = words[1].split(b"?")[0], words[0] == b"HEAD"
        if path == b"/-/healthy":
            return _page("200 OK", "ok\n", bare=bare)
        if path != b"/metrics":
            return _page("404 Not Found", "there is /metrics\n", bare=bare)
        try:
            return _page("200 OK", await self._text(), TYPE, bare=bare)
        except LabError as error:
            return _page("503 Service Unavailable", error.line + "\n", bare=bare)


def _page(
    status: str, text: str, kind: str = "text/plain; charset=utf-8", *, bare: bool = False
) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\nX-Content-Type-Options: nosniff\r\n\r\n"
    )
    return head.encode() + (b"" if bare else body)
