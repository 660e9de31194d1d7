"""Which host key answers for a DUT now: for a person who decides whether to pin it."""

import asyncio

import asyncssh

from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.ssh_connect import connected, reason
from tshrag_agent.transport.ways import SshWay
from tshrag_common.ids import DutId


async def answering_key(dut: DutId, way: SshWay) -> tuple[str, str]:
    """Return the key as ``TYPE BASE64``, and its fingerprint. Nothing is trusted for that.

    Raises:
        TransportFailed: nothing answers, or a jump host keeps us out.

    """
    links = await connected(dut, way.jump) if way.jump else []
    try:
        async with asyncio.timeout(way.connect_timeout_s):
            key = await asyncssh.get_server_host_key(
                way.host, way.port, tunnel=links[-1] if links else (), config=None
            )
    except (asyncssh.Error, OSError, TimeoutError) as error:
        fix = "see its power, its network and its sshd"
        raise TransportFailed(
            "dut_unreachable", f"{dut} ({way.where})", reason(error), fix
        ) from error
    finally:
        for link in reversed(links):
            link.abort()
    if key is None:
        raise TransportFailed("ssh_banner", f"{dut} ({way.where})", "it shows no host key")
    text = key.export_public_key().decode()
    return " ".join(text.split()[:2]), key.get_fingerprint()
