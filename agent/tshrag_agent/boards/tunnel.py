"""A TCP connection to a DUT on one side, a channel of a person on the other.

Each direction ends by itself, as in TCP; the connection is over when both have. Nothing is kept
here but one piece a direction: who does not read holds the other back.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from tshrag_agent.settings import DutTable
from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.open import open_dial
from tshrag_agent.transport.streams import READ_BYTES, ByteReader, ByteWriter, tcp
from tshrag_common.channel.channel import Channel
from tshrag_common.channel.wants import ForwardWant
from tshrag_common.errors import Refused
from tshrag_common.ids import DutId

SSH_PORT = 22
Connection = AbstractAsyncContextManager[tuple[ByteReader, ByteWriter]]


async def tunnel(
    channel: Channel, table: DutTable, want: ForwardWant, used: Callable[[], None]
) -> None:
    """Carry bytes until both sides have ended; `used` is told of each piece from the person.

    Raises:
        TransportFailed: the port was not reached, or the connection broke.

    """
    if not 1 <= want.port <= 65535:
        raise Refused(f"port {want.port}", "it is not in 1..65535", code="port")
    async with _connection(table, want) as (reader, writer):
        channel.greet()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_out(channel, reader), name="from the DUT")
                group.create_task(_in(channel, writer, used), name="to the DUT")
        except* OSError as errors:
            first = errors.exceptions[0]
            where = f"{table.id} port {want.port}"
            raise TransportFailed("port_closed", where, str(first)) from None


def _connection(table: DutTable, want: ForwardWant) -> Connection:
    """Choose how: to the SSH server of a DUT directly; to another port as the DUT is reached."""
    dut, way = DutId(table.id), table.ssh
    if way is None:
        raise AssertionError("asked only of a DUT that is on a network")
    is_ssh = want.port in (SSH_PORT, way.port) and want.via != "ssh"
    port = way.port if is_ssh else want.port
    inside = want.via == "ssh" or (want.via == "auto" and table.qemu is not None and not is_ssh)
    if not inside and way.jump is None:
        return tcp(dut, way.host, port)
    if inside or way.jump is None:
        return open_dial(dut, way, "127.0.0.1", port)
    return open_dial(dut, way.jump, way.host, port)


async def _out(channel: Channel, reader: ByteReader) -> None:
    while data := await reader.read(READ_BYTES):
        await channel.write(data)
    await channel.finish()


async def _in(channel: Channel, writer: ByteWriter, used: Callable[[], None]) -> None:
    while (piece := await channel.read()) is not None:
        used()
        writer.write(piece.data)
        await writer.drain()
    writer.write_eof()
