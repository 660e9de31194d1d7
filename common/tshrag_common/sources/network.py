"""Look a host up once, and say to which addresses one may connect."""

import asyncio
import socket

from tshrag_common.errors import shown
from tshrag_common.sources.address import permit_host
from tshrag_common.sources.faults import SourceUnreachable, UrlDenied
from tshrag_common.sources.policy import SourcePolicy, is_listed, is_public, literal_address

_LOOKUP_S = 10.0


async def addresses_of(host: str, port: int, policy: SourcePolicy) -> tuple[str, ...]:
    """Return the addresses to connect to, in order; the name is not looked up again.

    Raises:
        UrlDenied: one of its addresses is not public, and the host is not listed.
        SourceUnreachable: nobody knows the host.

    """
    permit_host(host, policy)
    name = host.strip("[]")
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_LOOKUP_S):
            found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        raise SourceUnreachable(host, f"no address: {str(error)[:100]}") from None
    addresses = tuple(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
    if not addresses:
        raise SourceUnreachable(host, "no address")
    for address in addresses:
        _check(host, address, policy)
    return addresses


def _check(host: str, address: str, policy: SourcePolicy) -> None:
    if is_listed(host, policy) or is_listed(address, policy):
        return
    spelt = literal_address(address)
    if spelt is None or not is_public(spelt):
        said = f"{shown(host)} is {address}, which is not public"
        raise UrlDenied("host", said, "list it in [loads] hosts of controller.toml")
