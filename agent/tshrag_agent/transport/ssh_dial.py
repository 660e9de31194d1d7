"""A TCP connection that begins at a DUT or behind its jump hosts, by an SSH link of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncssh

from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.ssh_connect import connected, reason
from tshrag_agent.transport.streams import ByteReader, ByteWriter
from tshrag_agent.transport.ways import SshWay
from tshrag_common.ids import DutId


@asynccontextmanager
async def dialled(
    dut: DutId, through: SshWay, host: str, port: int
) -> AsyncIterator[tuple[ByteReader, ByteWriter]]:
    """Connect to `host` as `through` sees it.

    Raises:
        TransportFailed: the link, or the port behind it, was not reached.

    """
    links = await connected(dut, through)
    try:
        try:
            reader, writer = await links[-1].open_connection(host, port, encoding=None)
        except (asyncssh.Error, OSError) as error:
            where = f"{dut} port {port}"
            fix = "see that something listens there, and that its sshd forwards"
            raise TransportFailed("port_closed", where, reason(error), fix) from error
        yield reader, writer
    finally:
        for link in reversed(links):
            link.abort()
