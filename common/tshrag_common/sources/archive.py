"""Download an archive: only from where it may come, never more than agreed, and check its sha256.

The name of the host is looked up once and the connection goes to one of its addresses; each
redirect is checked as the first address was. Nothing of ours (no credential, no cookie) is sent.
"""

import asyncio
import hashlib
import http.client
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin

import msgspec

from tshrag_common.errors import DeadlineExceeded, shown
from tshrag_common.sources.address import Address, permit, web
from tshrag_common.sources.faults import (
    ArchiveLimit,
    DigestMismatch,
    SourceNotFound,
    SourceRefused,
    SourceUnreachable,
    UrlDenied,
)
from tshrag_common.sources.network import addresses_of
from tshrag_common.sources.policy import SourceLimits, SourcePolicy
from tshrag_common.sources.threads import Check, in_thread
from tshrag_common.sources.tree import size_text

MAX_REDIRECTS = 3
_SOCKET_S = 15.0
_CONNECT_S = 5.0
_CHUNK = 1 << 16
_MOVED = (301, 302, 303, 307, 308)


class _Hop(msgspec.Struct, frozen=True, kw_only=True):
    """One request, its host already looked up."""

    scheme: str
    host: str
    port: int
    target: str
    addresses: tuple[str, ...]


class _Link:
    """The socket of a request, so that a cancellation can wake whoever waits on it."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None

    def cut(self) -> None:
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)


async def download(
    address: Address,
    into: Path,
    limits: SourceLimits,
    policy: SourcePolicy,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Write the archive of `address` to the new file `into`; its sha256 is the one asked for.

    `tls` replaces the trust of this machine.

    Raises:
        UrlDenied, DigestMismatch, ArchiveLimit: it may not, or is not what was asked for.
        SourceNotFound, SourceRefused, SourceUnreachable, DeadlineExceeded: of the server.

    """
    permit(address, policy)
    try:
        async with asyncio.timeout(limits.fetch_s):
            await _follow(address, into, limits, policy, tls)
    except TimeoutError:
        late = f"the download took more than {limits.fetch_s:g} s"
        raise DeadlineExceeded(address.text, late) from None


def file_sha256(path: Path, check: Check) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        sha256 = hashlib.sha256()
        while chunk := file.read(1 << 20):
            check()
            sha256.update(chunk)
    return sha256.hexdigest()


async def _follow(
    address: Address,
    into: Path,
    limits: SourceLimits,
    policy: SourcePolicy,
    tls: ssl.SSLContext | None,
) -> None:
    url = address.location
    # A scheme that the operator's rewrites lead to holds for the first request only.
    first = msgspec.structs.replace(policy, schemes=(*policy.schemes, address.scheme))
    for turn in range(MAX_REDIRECTS + 1):
        hop = await _hop(url, policy if turn else first)
        moved = await _ask(hop, address, into, limits, tls)
        if moved is None:
            return
        url = urljoin(url, moved)
    raise UrlDenied("host", f"more than {MAX_REDIRECTS} redirects from {shown(address.text)}")


async def _hop(url: str, policy: SourcePolicy) -> _Hop:
    scheme, host, port, target = web(url, policy)
    found = await addresses_of(host, port, policy)
    return _Hop(scheme=scheme, host=host, port=port, target=target, addresses=found)


async def _ask(
    hop: _Hop, address: Address, into: Path, limits: SourceLimits, tls: ssl.SSLContext | None
) -> str | None:
    """Make one request in a thread; return where it was redirected to, None when it is done."""
    link = _Link()
    try:
        return await in_thread(
            lambda check: _request(hop, link, address, into, limits, tls, check), on_stop=link.cut
        )
    except (http.client.HTTPException, OSError) as error:
        said = f"{type(error).__name__}: {str(error)[:150]}"
        raise SourceUnreachable("", f"{address.text}: {shown(said, 200)}") from None


def _request(
    hop: _Hop,
    link: _Link,
    address: Address,
    into: Path,
    limits: SourceLimits,
    tls: ssl.SSLContext | None,
    check: Check,
) -> str | None:
    with _secured(_connected(hop, check), hop, link, tls) as connected:
        link.socket = connected
        check()
        connection = http.client.HTTPConnection(hop.host, hop.port, timeout=_SOCKET_S)
        connection.sock = connected
        connection.request("GET", hop.target, headers=_headers(hop))
        with connection.getresponse() as response:
            if response.status in _MOVED:
                return response.headers.get("Location", "")
            _check_status(response.status, address)
            _store(response, address, into, limits, check)
    return None


def _connected(hop: _Hop, check: Check) -> socket.socket:
    """Return a connection to the first address that takes one."""
    for address in hop.addresses[:-1]:
        with suppress(OSError):
            return socket.create_connection((address, hop.port), timeout=_CONNECT_S)
        check()
    return socket.create_connection((hop.addresses[-1], hop.port), timeout=_CONNECT_S)


def _secured(
    plain: socket.socket, hop: _Hop, link: _Link, tls: ssl.SSLContext | None
) -> socket.socket:
    if hop.scheme == "http":
        return plain
    link.socket = plain  # a handshake can hang too
    context = tls or ssl.create_default_context()
    try:
        return context.wrap_socket(plain, server_hostname=hop.host.strip("[]"))
    except BaseException:
        plain.close()
        raise


def _headers(hop: _Hop) -> dict[str, str]:
    default = {"https": 443, "http": 80}[hop.scheme]
    host = hop.host if hop.port == default else f"{hop.host}:{hop.port}"
    return {"Host": host, "User-Agent": "tshrag", "Accept-Encoding": "identity",
            "Connection": "close"}  # fmt: skip


def _check_status(status: int, address: Address) -> None:
    said = f"{address.text}: HTTP {status}"
    if status in (404, 410):
        raise SourceNotFound("", said)
    if status >= 500 or status == 429:
        raise SourceUnreachable("", said)
    if status != 200:
        raise SourceRefused("", said)


def _store(
    response: http.client.HTTPResponse | BinaryIO,
    address: Address,
    into: Path,
    limits: SourceLimits,
    check: Check,
) -> None:
    sha256, count = hashlib.sha256(), 0
    with into.open("xb") as file:
        while chunk := response.read(_CHUNK):
            check()
            count += len(chunk)
            if count > limits.packed_bytes:
                raise ArchiveLimit("", f"> {size_text(limits.packed_bytes)} packed")
            sha256.update(chunk)
            file.write(chunk)
    if sha256.hexdigest() != address.sha256:
        raise DigestMismatch(address.sha256, sha256.hexdigest())
