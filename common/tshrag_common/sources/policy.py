"""PURE: what the lab allows of sources: schemes, hosts, sizes; and the operator's rewrites.

An address of this machine, its network or a cloud's metadata service is refused unless the host
is listed: a profile must not make the controller ask its own neighbours (request forgery).
"""

import ipaddress
import re

import msgspec

from tshrag_common.sources.faults import DigestInvalid

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA = frozenset({"168.63.129.16"})  # public by number, yet the inside of a cloud
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LIKE_A_NUMBER = re.compile(r"(0[xX][0-9a-fA-F]*|[0-9]+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class SourceLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How large and how slow a source may be."""

    unpacked_bytes: int = 2 << 30
    packed_bytes: int = 1 << 30  # of a download, a repository's pack, an archive file
    ratio: int = 100  # unpacked : packed
    files: int = 10_000  # and directories
    depth: int = 20
    unpack_s: float = 60.0
    fetch_s: float = 120.0
    manifest_bytes: int = 256 << 10


class SourcePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a source may be.

    ``schemes`` of ``https ssh http file``. ``hosts`` are listed although they are private: a name
    (``git.lab``), a domain (``*.lab``), an address or a network (``10.1.0.0/16``).
    """

    schemes: tuple[str, ...] = ("https", "ssh")
    hosts: tuple[str, ...] = ()


LOCAL = SourcePolicy(schemes=("file",))
"""For whoever packs what lies on the own machine."""


def sha256_text(text: str) -> str:
    """Return `text` when it is a sha256: it may then be a file name.

    Raises:
        DigestInvalid: it is not.

    """
    if not _SHA256.fullmatch(text):
        raise DigestInvalid("", f"{text[:80]!a} is no sha256", "64 hex digits in lower case")
    return text


def literal_address(host: str) -> IpAddress | None:
    """Return the address that `host` spells; None for a name.

    Raises:
        ValueError: a number in a form that only C reads (0x7f000001, 127.1, 2130706433).

    """
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        if _LIKE_A_NUMBER.fullmatch(host.rstrip(".").rsplit(".", 1)[-1]) or ":" in host:
            raise
        return None


def is_public(address: IpAddress) -> bool:
    """Tell whether `address` is of the open internet, also inside of IPv6 wrappings."""
    inner = _unwrapped(address)
    if str(inner) in _METADATA or inner.is_multicast:
        return False
    return inner.is_global and not inner.is_link_local and not inner.is_reserved


def is_listed(host: str, policy: SourcePolicy) -> bool:
    """Tell whether the operator has listed `host`, a name or an address."""
    name = host.strip("[]").rstrip(".").lower()
    return any(_covers(listed.lower(), name) for listed in policy.hosts)


def _covers(listed: str, name: str) -> bool:
    if listed.startswith("*."):
        return name.endswith(listed[1:])
    if listed == name:
        return True
    try:
        return ipaddress.ip_address(name) in ipaddress.ip_network(listed, strict=False)
    except ValueError:
        return False


def _unwrapped(address: IpAddress) -> IpAddress:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
