"""The connection to NATS: reconnects for ever, probes itself, checks sizes before it sends.

nats-py is used as the connection only. What it does behind our back is caught here: a connection
can be closed for good (revoked credentials, a subject too long) or look alive with a dead reader.
`closed` is set then, and the daemon builds a new Bus or ends for its supervisor.
"""

import asyncio
import itertools
import logging
import secrets
from collections import deque
from collections.abc import Callable
from typing import Any

from nats import errors
from nats.aio.client import Server
from nats.aio.msg import Msg

from tshrag_common.bus.addresses import cause_of, server_urls, without_password
from tshrag_common.bus.client import (
    LabClient,
    ServerInfo,
    StartFailed,
    Subscription,
    backoff,
    check_server,
    client_options,
    server_url,
)
from tshrag_common.bus.messages import Headers, Message, check_sizes
from tshrag_common.errors import DeadlineExceeded, LabError, Refused, Unreachable, shown
from tshrag_common.ids import token
from tshrag_common.keys import parse_creds
from tshrag_common.subjects import inbox_prefix

logger = logging.getLogger(__name__)

_PROBE_EVERY_S = 2.0
_PROBE_WITHIN_S = 5
_NO_TRY_S = 30.0  # reconnecting, and not one attempt in this time: nats-py has lost its task

OnState = Callable[[str], None]


class Bus:
    """One connection. Made by `connect`; a daemon also keeps `watch` in its TaskGroup."""

    def __init__(self, name: str, *, plain: bool, on_state: OnState | None, to: LabClient) -> None:
        self.name, self.plain = name, plain
        self.closed = asyncio.Event()
        self.connected = asyncio.Event()
        self.denied: deque[str] = deque(maxlen=256)
        """What the server refused by its rights; a refused publish raises nowhere."""
        self.reconnects = 0
        self._client, self._say = to, on_state or (lambda line: None)
        self._on_reconnect: list[Callable[[], None]] = []
        self._waiting: dict[str, asyncio.Future[Message | None]] = {}
        self._count = itertools.count(1)
        self._inbox = self.new_inbox()
        self._starting, self._tries = True, 0
        self._last_error: Exception | None = None

    async def publish(self, subject: str, data: bytes, headers: Headers | None = None) -> None:
        """Hand `data` to the connection; that it arrives is promised by nobody.

        Raises:
            Refused: too large to be sent (``payload_too_large``).
            Unreachable: there is no connection and no room to wait for one.

        """
        await self._send(subject, data, "", headers)

    async def request(
        self, subject: str, data: bytes, timeout_s: float, headers: Headers | None = None
    ) -> Message:
        """Ask and return the answer; asked again after a reconnect and while nobody answers there.

        So a request may be heard twice: each has an id of its own, or does not mind.

        Raises:
            Unreachable: nobody answers there, or there was no connection (``no_responders``).
            DeadlineExceeded: no answer within `timeout_s`; the outcome is unknown.

        """
        nobody = False
        try:
            async with asyncio.timeout(timeout_s):
                for attempt in itertools.count():
                    await self.connected.wait()
                    answer = await self._ask(subject, data, headers)
                    if answer is not None and answer.status != "503":
                        return answer
                    nobody = answer is not None
                    await asyncio.sleep(min(0.5, 0.02 * 2 ** min(attempt, 5)))
        except TimeoutError:
            pass
        if nobody:
            raise Unreachable("", f"nobody answers on {subject}", code="no_responders")
        if not self.connected.is_set():
            raise Unreachable("nats", f"no connection within {timeout_s:g} s")
        raise DeadlineExceeded(subject, f"no answer within {timeout_s:g} s")

    async def respond(self, message: Message, data: bytes, headers: Headers | None = None) -> None:
        """Answer `message`; does nothing where no answer is awaited."""
        if message.reply:
            await self._send(message.reply, data, "", headers)

    async def publish_for(
        self, subject: str, data: bytes, reply: str, headers: Headers | None = None
    ) -> None:
        """Publish and have answers sent to `reply`, for those who follow their own inbox."""
        await self._send(subject, data, reply, headers)

    async def subscribe(
        self, subject: str, callback: Callable[[Message], None], queue: str = ""
    ) -> Subscription:
        """Have `callback` called for each message; it only enqueues, so that none is dropped.

        The server knows of it after `settled`. It survives reconnects.
        """

        async def deliver(msg: Msg) -> None:
            try:
                callback(Message(msg.subject, msg.reply, msg.data, msg.headers or {}))
            except Exception:  # one message must not end the subscription
                logger.exception("a callback failed", extra={"subject": msg.subject})

        try:
            inner = await self._client.subscribe(
                subject, queue=queue, cb=deliver, pending_msgs_limit=0, pending_bytes_limit=0
            )
        except errors.Error as error:
            raise Unreachable("nats", f"cannot subscribe: {error}") from error
        return Subscription(inner)

    async def settled(self, timeout_s: float = 10.0) -> None:
        """Return when the server has processed all that was sent.

        Twice, because nats-py writes the PING of a flush ahead of what waits to be sent.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self.connected.wait()
                await self._client.flush()
                await self._client.flush()
        except (TimeoutError, errors.Error, OSError) as error:
            raise Unreachable("nats", f"not settled within {timeout_s:g} s") from error

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Have `callback` called after each reconnect; it only sets events or enqueues."""
        self._on_reconnect.append(callback)

    def forget_reconnect(self, callback: Callable[[], None]) -> None:
        self._on_reconnect.remove(callback)

    def new_inbox(self) -> str:
        """Return a subject that only this client may hear and nobody can guess."""
        return f"{inbox_prefix(self.name)}.{secrets.token_hex(10)}"

    @property
    def server_info(self) -> ServerInfo:
        return self._client.said_of_itself()

    @property
    def is_connected(self) -> bool:
        return self.connected.is_set()

    async def watch(self) -> None:
        """Probe the connection until it is closed for good; break it where it only looks alive."""
        idle_since, tries = asyncio.get_running_loop().time(), self._tries
        while not self.closed.is_set():
            await asyncio.sleep(_PROBE_EVERY_S)
            now = asyncio.get_running_loop().time()
            if self._client.is_connected or self._tries != tries:
                idle_since, tries = now, self._tries
            if self._client.is_connected:
                await self._probe()
            elif now - idle_since > _NO_TRY_S:
                self._say("nats: the client does not reconnect any more")
                await self.close()

    async def close(self) -> None:
        """End the connection; what was published before has been sent if the server is there."""
        try:
            if self._client.is_connected:
                await self.settled(2.0)
        except Unreachable:
            logger.debug("closed without the server")
        self._starting = False
        self.closed.set()
        try:
            async with asyncio.timeout(3.0):
                await self._client.close()
        except (TimeoutError, errors.Error, OSError):
            logger.debug("closing was cut short")
        self._lose()

    async def _ask(self, subject: str, data: bytes, headers: Headers | None) -> Message | None:
        """Return the answer; None where the connection was lost before it came."""
        key = str(next(self._count))
        future: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        self._waiting[key] = future
        try:
            await self._send(subject, data, f"{self._inbox}.{key}", headers)
            return await future
        finally:
            del self._waiting[key]

    async def _send(self, subject: str, data: bytes, reply: str, headers: Headers | None) -> None:
        check_sizes(subject, data, headers, self._client.max_payload)
        try:
            await self._client.publish(
                subject, data, reply=reply, headers=dict(headers) if headers else None
            )
        except errors.BadSubjectError:
            raise Refused("subject", f"{shown(subject)} is no subject") from None
        except (errors.Error, OSError) as error:
            raise Unreachable("nats", f"cannot publish: {error}") from error

    async def _probe(self) -> None:
        try:
            await self._client.rtt(_PROBE_WITHIN_S)
        except (TimeoutError, errors.Error, OSError):
            if self._client.is_connected:
                logger.warning("the connection does not answer", extra={"client": self.name})
                await self._client.force_reconnect()

    def _on_answer(self, message: Message) -> None:
        future = self._waiting.get(message.subject.rpartition(".")[2])
        if future is not None and not future.done():
            future.set_result(message)

    def _lose(self) -> None:
        self.connected.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_result(None)

    async def _start(self, urls: list[str], options: dict[str, Any]) -> None:
        """Make the first connection, in one try of each server."""
        failures = 0

        async def on_error(error: Exception) -> None:
            nonlocal failures
            if not self._starting:
                self._note(error)
                return
            failures += 1
            if failures >= len(urls) or not isinstance(error, OSError):
                raise StartFailed(error)

        await self._client.connect(
            urls,
            name=self.name,
            inbox_prefix=inbox_prefix(self.name),
            reconnect_to_server_handler=self._next_server,
            error_cb=on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
            **options,
        )
        self._starting = False
        await self.subscribe(f"{self._inbox}.*", self._on_answer)
        self.connected.set()

    def _note(self, error: Exception) -> None:
        self._last_error = error
        if "permissions violation" in str(error).lower():
            self.denied.append(str(error))
            logger.warning("the server denies a right", extra={"error": str(error)[:300]})

    def _next_server(self, servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
        """Choose the server and the wait of the next try; nats-py asks before each."""
        server = servers[self._tries % len(servers)]
        wait = backoff(self._tries, first_s=0.1)
        if self._tries:
            where, cause = server_url(server.uri), cause_of(self._last_error)
            self._say(f"nats: cannot reach {where} ({cause}), next try in {wait:.2g}s")
        self._tries += 1
        return server, wait

    async def _on_disconnected(self) -> None:
        if self.connected.is_set() and not self.closed.is_set():
            self._say("nats: connection lost")
        self._lose()

    async def _on_reconnected(self) -> None:
        self.reconnects += 1
        self._tries = 0
        self.connected.set()
        self._say(f"nats: connected again to {self.server_info.url}")
        for callback in self._on_reconnect:
            callback()

    async def _on_closed(self) -> None:
        self._lose()
        if not self.closed.is_set():
            self._say(f"nats: closed for good ({cause_of(self._client.last_error)})")
        self.closed.set()


async def connect(
    url: str,
    *,
    name: str,
    credentials: str | None = None,
    ca: str | None = None,
    on_state: OnState | None = None,
    need_jetstream: bool = False,
    within_s: float | None = None,
    client: Callable[[], LabClient] = LabClient,
) -> Bus:
    """Connect to one of the servers in `url` (a list with commas); try for ever, or `within_s`.

    `credentials` is the text of a creds file, whose name is then that of the client; without it the
    server is a *plain* one. `ca` is the text of a PEM file. Failed tries are lines to `on_state`.

    Raises:
        Refused: what no further try can mend: bad URL or credentials (``config``, ``creds``), a
            server too old (``nats_version``) or without JetStream (``jetstream_off``).
        Unreachable: no server, or credentials refused, within `within_s` (``nats``).

    """
    urls = server_urls(url)
    where = ", ".join(without_password(one) for one in urls)
    creds = parse_creds(credentials) if credentials else None
    options = client_options(creds, ca, urls)
    own_name = token("client", creds.name if creds else name)
    ends = asyncio.get_running_loop().time() + within_s if within_s is not None else None
    attempt = 0
    while True:
        bus = Bus(own_name, plain=creds is None, on_state=on_state, to=client())
        try:
            await bus._start(urls, options)
            check_server(bus.server_info, need_jetstream)
            return bus
        except (LabError, asyncio.CancelledError):
            await bus.close()
            raise
        except (StartFailed, OSError, errors.Error, TimeoutError) as error:
            cause = cause_of(error.cause if isinstance(error, StartFailed) else error)
        await bus.close()
        wait = backoff(attempt, first_s=0.25)
        if ends is not None and asyncio.get_running_loop().time() + wait > ends:
            raise Unreachable("", f"cannot reach {where} ({cause})", code="nats")
        bus._say(f"nats: cannot reach {where} ({cause}), next try in {wait:.2g}s")
        await asyncio.sleep(wait)
        attempt += 1
