"""What a TCP connection is for whoever carries its bytes, however it was opened."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.line import reason_of

READ_BYTES = 64 << 10
CONNECT_S = 10.0
LISTENS = "see that something listens there, and not on 127.0.0.1 of the DUT only (--via ssh)"
LISTENS_HERE = "see that something listens there, on 127.0.0.1"


class ByteReader(Protocol):
    """Where bytes come from."""

    async def read(self, n: int = -1, /) -> bytes: ...


class ByteWriter(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> None: ...

    async def drain(self) -> None: ...

    def write_eof(self) -> None: ...

    def close(self) -> None: ...


@asynccontextmanager
async def tcp(
    where: str, host: str, port: int, fix: str = LISTENS
) -> AsyncIterator[tuple[ByteReader, ByteWriter]]:
    """Connect from this host.

    Raises:
        TransportFailed: ``port_closed``.

    """
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(host, port, limit=4 * READ_BYTES)
    except (OSError, TimeoutError) as error:
        what = reason_of(error) if isinstance(error, OSError) and error.strerror else "no answer"
        raise TransportFailed("port_closed", f"{where} {host}:{port}", what, fix) from None
    try:
        yield reader, writer
    finally:
        writer.close()
