"""nats-py's client: one defect mended, its options, and what a server must be to be used."""

import asyncio
import base64
import logging
import random
import ssl
from typing import Any
from urllib.parse import ParseResult

import msgspec
from nats import errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription as NatsSubscription

from tshrag_common.errors import Refused
from tshrag_common.keys import Credentials

logger = logging.getLogger(__name__)

OLDEST_SERVER = (2, 14)
PENDING_BYTES = 2 << 20

_LONGEST_WAIT_S = 3.0
"""With its jitter, a connection and a report: heard again within 5 s of a server that is up."""


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says of itself when one connects."""

    version: str
    jetstream: bool
    max_payload: int
    name: str
    cluster: str
    url: str


class Subscription:
    """Interest in a subject; ends by `end`, or with the connection."""

    def __init__(self, inner: NatsSubscription) -> None:
        self._inner = inner

    async def end(self) -> None:
        try:
            await self._inner.unsubscribe()
        except errors.Error:  # the connection, and so the interest, is gone already
            logger.debug("unsubscribed after the end", extra={"subject": self._inner.subject})


class LabClient(Client):
    """nats-py's client, but for two defects.

    A flush that was cancelled must not end the reader. And a cancel that comes while a full buffer
    is flushed must not be swallowed: who was cancelled, or had a timeout, would wait for ever.
    """

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        task = asyncio.current_task()
        before = task.cancelling() if task is not None else 0
        flushed = await super()._flush_pending(force_flush)
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError
        return flushed

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():  # set_result would raise in the read loop
            del self._pongs[0]
            self._pongs_received += 1
            self._pings_outstanding = 0
            return
        await super()._process_pong()

    def said_of_itself(self) -> ServerInfo:
        said = self._server_info
        return ServerInfo(
            version=str(said.get("version", "0.0.0")),
            jetstream=said.get("jetstream") is True,
            max_payload=self.max_payload,
            name=str(said.get("server_name", "")),
            cluster=str(said.get("cluster", "")),
            url=server_url(self.connected_url),
        )


class StartFailed(Exception):
    """A try of the first connection has failed; `cause` says why."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def client_options(creds: Credentials | None, ca: str | None, urls: list[str]) -> dict[str, Any]:
    """Return what nats-py's connect is told, callbacks and names apart."""
    options: dict[str, Any] = {
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0,  # the waits are those of `backoff`
        "connect_timeout": 2,
        "ping_interval": 5,
        "max_outstanding_pings": 2,
        "pending_size": PENDING_BYTES,
        "flush_timeout": 5,
    }
    if creds:
        options["user_jwt_cb"] = lambda: creds.jwt.encode()
        options["signature_cb"] = lambda nonce: base64.b64encode(creds.sign(nonce.encode()))
    if ca or any(url.startswith("tls://") for url in urls):
        options["tls"] = ssl.create_default_context(cadata=ca)
    return options


def check_server(info: ServerInfo, need_jetstream: bool) -> None:
    """Refuse a server that is too old, or has no JetStream where that is needed."""
    numbers = info.version.split("-")[0].split(".")
    version = tuple(int(number) for number in numbers if number.isdigit())
    oldest = ".".join(str(number) for number in OLDEST_SERVER)
    if version < OLDEST_SERVER:
        fix = "upgrade nats-server, or let tshrag start its own"
        raise Refused("", f"{info.version} < {oldest}", fix, code="nats_version")
    if need_jetstream and not info.jetstream:
        fix = "start it with -js, or with a jetstream block in its configuration"
        raise Refused("", f"{info.url} has no JetStream", fix, code="jetstream_off")


def backoff(attempt: int, first_s: float) -> float:
    """Return the wait before the next try: doubled up to a bound, with jitter against storms."""
    wait = min(_LONGEST_WAIT_S, first_s * float(1 << min(attempt, 8)))
    return wait * random.uniform(0.75, 1.25)


def server_url(uri: ParseResult | None) -> str:
    """Return the URL without the password that it may carry."""
    return f"{uri.scheme}://{uri.hostname}:{uri.port}" if uri else ""
