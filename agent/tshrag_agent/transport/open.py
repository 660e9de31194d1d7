"""A way as settings have it -> the open transport. No other room knows which class it is."""

from contextlib import AbstractAsyncContextManager

from tshrag_agent.transport.base import DutTransport
from tshrag_agent.transport.local import LocalTransport
from tshrag_agent.transport.streams import ByteReader, ByteWriter
from tshrag_agent.transport.ways import LocalWay, SshWay
from tshrag_common.ids import DutId


def open_transport(dut: DutId, way: LocalWay | SshWay) -> DutTransport:
    """Return the transport of `dut`; it connects when it is first used.

    asyncssh costs 28 MB and up to a second: an agent without SSH DUTs never pays it.
    """
    if isinstance(way, LocalWay):
        return LocalTransport(dut, way)
    from tshrag_agent.transport.ssh import SshTransport

    return SshTransport(dut, way)


def open_dial(
    dut: DutId, through: SshWay, host: str, port: int
) -> AbstractAsyncContextManager[tuple[ByteReader, ByteWriter]]:
    """Return a TCP connection that begins at the far end of an SSH link."""
    from tshrag_agent.transport.ssh_dial import dialled

    return dialled(dut, through, host, port)


async def answering_key(dut: DutId, way: SshWay) -> tuple[str, str]:
    """Return the host key that answers now, and its fingerprint."""
    from tshrag_agent.transport.ssh_key import answering_key as asked

    return await asked(dut, way)
