"""The way to a port of 127.0.0.1, where the job runs: this host, or its DUT."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, runtime_checkable

from tshrag_agent.scrape.scraper import Dial
from tshrag_agent.transport.base import DutTransport, TransportFailed
from tshrag_agent.transport.streams import LISTENS_HERE, ByteReader, ByteWriter, tcp
from tshrag_common.ids import DutId

LOOPBACK = "127.0.0.1"


@runtime_checkable
class Dials(Protocol):
    """A transport that reaches ports of its DUT."""

    def dial(self, port: int) -> AbstractAsyncContextManager[tuple[ByteReader, ByteWriter]]: ...


def host_dial(port: int) -> AbstractAsyncContextManager[tuple[ByteReader, ByteWriter]]:
    """Connect on this host."""
    return tcp("this host", LOOPBACK, port, LISTENS_HERE)


def dut_dial(dut: DutId, transport: DutTransport) -> Dial:
    """Return what connects on the DUT, through the link that its transport has."""
    if isinstance(transport, Dials):
        return transport.dial

    @asynccontextmanager
    async def none(port: int) -> AsyncIterator[tuple[ByteReader, ByteWriter]]:
        what = "its transport reaches no ports"
        fix = "scrape DUTs that are reached by SSH"
        raise TransportFailed("port_closed", f"{dut} port {port}", what, fix)
        yield

    return none
