"""URLs of NATS servers as people write them, and why a server was not reached, in a few words."""

import asyncio
import re
import socket
import ssl
from urllib.parse import urlsplit

from tshrag_common.errors import Refused, shown

_SCHEMES = ("nats", "tls")
_USER = re.compile(r"//[^/,]*@")


def server_urls(text: str) -> list[str]:
    """Return the servers in `text`, a list with commas; the first scheme serves those without.

    Raises:
        Refused: not a URL of a NATS server (``config``).

    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise _bad(text, "is empty")
    scheme = parts[0].partition("://")[0] if "://" in parts[0] else ""
    if scheme not in _SCHEMES:
        raise _bad(text, "has no scheme 'nats://' or 'tls://'")
    return [_checked(part if "://" in part else f"{scheme}://{part}") for part in parts]


def without_password(text: str) -> str:
    """Return URLs as they may be shown, also where they are no good ones."""
    return _USER.sub("//", text)


def cause_of(error: BaseException | None) -> str:
    """Return why a server was not reached: ``refused``, ``timeout``, ``credentials refused`` …"""
    said = str(error or "").removeprefix("nats: ").strip("' ")
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in said:
        return "refused"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or said}"
    if isinstance(error, socket.gaierror):
        return "unknown host"
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return "timeout"
    if "authorization violation" in said.lower() or "authentication" in said.lower():
        return f"credentials refused: {said}"
    return said[:120] or (type(error).__name__ if error else "connection lost")


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _bad(url, "has a port outside 1..65535") from None
    if parts.scheme not in _SCHEMES:
        raise _bad(url, "has no scheme 'nats://' or 'tls://'")
    if not parts.hostname or any(char.isspace() for char in url):
        raise _bad(url, "names no host")
    if port == 0:
        raise _bad(url, "has a port outside 1..65535")
    return url


def _bad(text: str, what: str) -> Refused:
    fix = "write nats://host:4222"
    return Refused("nats.url", f"{shown(without_password(text))} {what}", fix, code="config")
