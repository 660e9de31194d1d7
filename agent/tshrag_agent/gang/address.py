"""By which address others reach this host, or a DUT of it: jobs open ports to each other."""

import contextlib
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from tshrag_agent.duts import Duts
from tshrag_common.errors import LabError
from tshrag_common.ids import DutId


def address_of(url: str, duts: Duts) -> Callable[[DutId | None], str]:
    """Return a function that tells the address of a DUT, or of this host."""

    def find(dut: DutId | None) -> str:
        ssh = None
        if dut is not None:
            with contextlib.suppress(KeyError, LabError):
                ssh = duts.table(dut).ssh
        return ssh.host if ssh is not None else own_address(url)

    return find


def own_address(url: str) -> str:
    """Return the address from which this host reaches the bus; its name where that is unknown."""
    parts = urlsplit(url.split(",")[0].strip())
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 4222, type=socket.SOCK_DGRAM)
        family, kind, _, _, where = found[0]
        with socket.socket(family, kind) as probe:
            probe.connect(where)  # of datagrams: nothing is sent
            return str(probe.getsockname()[0])
    except (OSError, ValueError):
        return socket.gethostname()
