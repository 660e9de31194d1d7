"""The client that our Bus speaks through, over a simulated connection instead of nats-py's socket.

It does what nats-py promises: buffers while it is away, subscribes anew, tells of what it lost.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any
from urllib.parse import urlparse

from nats import errors
from nats.aio.client import Server
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from tests.simulation.broker import API
from tests.simulation.network import LATENCY_S, Connection, Network
from tests.simulation.vloop import LIFE
from tshrag_common.bus.client import LabClient, ServerInfo

URL = "nats://bus:4222"
_CONNECT_S = 2.0


class SimClient(LabClient):
    """What nats-py's client does for our Bus, over a simulated connection."""

    def __init__(
        self,
        network: Network,
        host: str,
        context: Context,
        tamper: Callable[[bytes], bytes] = bytes,
    ) -> None:
        super().__init__()
        self._tamper = tamper
        self._network, self._host, self._life = network, host, context
        self._connection: Connection | None = None
        self._subscribed: dict[int, tuple[str, str, Callable[[Msg], Awaitable[None]]]] = {}
        self._buffer: list[tuple[str, bytes, dict[str, str], str]] = []
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._next = 0
        self._told: dict[str, Any] = {}
        self._is_over = False
        self._mender: asyncio.Task[None] | None = None

    async def connect(self, servers: Any = None, **options: Any) -> None:  # type: ignore[override]  # nats-py's has 60 options
        self._told = options
        self._connection = await self._dial()

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    @property
    def max_payload(self) -> int:
        return 1 << 20

    @property
    def last_error(self) -> Exception | None:
        return None

    def said_of_itself(self) -> ServerInfo:
        return ServerInfo(
            version="2.15.1", jetstream=True, max_payload=1 << 20, name="sim", cluster="", url=URL
        )

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        if self._is_over:
            raise errors.ConnectionClosedError
        if self._connection is None:
            self._buffer.append((subject, payload, headers or {}, reply))
            return
        self._send(subject, payload, headers or {}, reply)

    def _send(self, subject: str, payload: bytes, headers: dict[str, str], reply: str) -> None:
        if self._connection is not None:
            may = not subject.startswith(API)
            publish = self._network.broker.publish
            self._connection.send(may, publish, subject, payload, headers, reply)

    async def subscribe(  # type: ignore[override]  # of nats-py's options we use these
        self, subject: str, queue: str = "", cb: Any = None, **_options: Any
    ) -> NatsSubscription:
        self._next += 1
        sid = self._next
        self._subscribed[sid] = (subject, queue, cb)
        self._subscribe(sid)
        return _SimSubscription(self, sid, subject)

    def _subscribe(self, sid: int) -> None:
        if self._connection is not None:
            subject, queue, _ = self._subscribed[sid]
            subscribe = self._network.broker.subscribe
            self._connection.send(False, subscribe, self._connection, sid, subject, queue)

    def forget(self, sid: int) -> None:
        self._subscribed.pop(sid, None)
        if self._connection is not None:
            unsubscribe = self._network.broker.unsubscribe
            self._connection.send(False, unsubscribe, self._connection, sid)

    def hear(
        self, sid: int, subject: str, data: bytes, headers: dict[str, str], reply: str
    ) -> None:
        """Take a message of the server."""
        if sid == 0:
            pong = self._pings.pop(int(subject), None)
            if pong is not None and not pong.done():
                pong.set_result(None)
            return
        known = self._subscribed.get(sid)
        if known is None:
            return
        message = Msg(
            self, subject=subject, reply=reply, data=self._tamper(data), headers=headers or None
        )
        step = known[2](message)
        try:
            step.send(None)  # type: ignore[attr-defined]  # a coroutine that only enqueues
        except StopIteration:
            return
        raise AssertionError("a callback of the bus has waited")

    async def rtt(self, timeout: int = 10) -> float:  # noqa: ASYNC109  # nats-py's signature
        begin = self._network.loop.time()
        if self._connection is None:
            raise errors.ConnectionClosedError
        self._next += 1
        number = self._next
        pong = self._pings[number] = self._network.loop.create_future()
        connection = self._connection

        def ping() -> None:
            connection.push(0, str(number), b"", {}, API)

        connection.send(False, ping)
        try:
            async with asyncio.timeout(timeout):
                await pong
        finally:
            self._pings.pop(number, None)
        return self._network.loop.time() - begin

    async def flush(self, timeout: int = 10) -> None:  # noqa: ASYNC109  # nats-py's signature
        await self.rtt(timeout)

    async def force_reconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.end()
            await self._mend()

    async def close(self) -> None:
        self._is_over = True
        if self._mender is not None and self._mender is not asyncio.current_task():
            self._mender.cancel()
        if self._connection is not None:
            self._connection.end()
            self._connection = None
        if self._told:
            await self._told["closed_cb"]()

    def lost(self, connection: Connection) -> None:
        """Learn that the connection is gone; make another one."""
        if self._connection is connection:
            self._connection = None
            self._mender = self._network.loop.create_task(self._mend(), name="reconnect")

    async def _mend(self) -> None:
        await self._told["disconnected_cb"]()
        pool = [Server(urlparse(URL))]
        while not self._is_over:
            _, wait_s = self._told["reconnect_to_server_handler"](pool, {})
            await asyncio.sleep(wait_s)
            try:
                self._connection = await self._dial()
            except OSError:
                continue
            for sid in list(self._subscribed):
                self._subscribe(sid)
            waiting, self._buffer = self._buffer, []
            for item in waiting:
                self._send(*item)
            await self._told["reconnected_cb"]()
            return

    async def _dial(self) -> Connection:
        network = self._network
        link = network.link(self._host)
        await asyncio.sleep(network.chance.uniform(*LATENCY_S) * 2)
        if not (link.up and link.down) or network.broker.context[LIFE] in network.loop.frozen:
            await asyncio.sleep(_CONNECT_S)
            raise TimeoutError("connection timed out")
        if not network.broker.is_up:
            raise ConnectionRefusedError("connection refused")
        return Connection(network, self._host, self, self._life)


class _SimSubscription(NatsSubscription):
    """What our Bus may ask of a subscription."""

    def __init__(self, client: SimClient, sid: int, subject: str) -> None:
        self._sim, self._sid, self._about = client, sid, subject

    @property
    def subject(self) -> str:
        return self._about

    async def unsubscribe(self, limit: int = 0) -> None:
        self._sim.forget(self._sid)
