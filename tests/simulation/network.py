"""Links between processes and the simulated server.

A connection keeps order and loses nothing while it lasts, as TCP does; a partition holds its bytes
back until it heals or the connection is given up. On top of that a seed may drop, double, delay
and reorder the messages that the lab says may get lost, and publishes whose outcome is unknown.
"""

import random
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.simulation.broker import API, Broker
from tests.simulation.vloop import VirtualLoop

LATENCY_S = (0.0002, 0.002)
_GIVE_UP_S = 15.0
"""Three pings without an answer: then either side gives a connection up."""


@dataclass
class Weather:
    """What befalls messages, as ratios, and for how long one is delayed."""

    drop: float = 0.0
    double: float = 0.0
    delay: float = 0.0
    delay_s: float = 1.0
    reorder: float = 0.0


@dataclass
class Link:
    """The way of one host to the bus; each direction can be cut."""

    up: bool = True
    down: bool = True
    connections: set["Connection"] = field(default_factory=set)


class Network:
    """All links, and the weather over them."""

    def __init__(self, loop: VirtualLoop, broker: Broker, chance: random.Random) -> None:
        self.loop, self.broker, self.chance = loop, broker, chance
        self.weather = Weather()
        self.links: dict[str, Link] = {}

    def link(self, host: str) -> Link:
        return self.links.setdefault(host, Link())

    def cut(self, host: str, *, up: bool = True, down: bool = True) -> None:
        link = self.link(host)
        link.up, link.down = link.up and not up, link.down and not down

    def heal(self, host: str) -> None:
        link = self.link(host)
        link.up = link.down = True
        for connection in sorted(link.connections, key=lambda each: each.number):
            connection.flow()

    def reset(self, host: str) -> None:
        """Break all connections of a host; both sides learn of it at once."""
        for connection in sorted(self.link(host).connections, key=lambda each: each.number):
            connection.cut()


class Client(Protocol):
    """The other end of a connection."""

    def hear(
        self, sid: int, subject: str, data: bytes, headers: dict[str, str], reply: str
    ) -> None: ...

    def lost(self, connection: "Connection") -> None: ...


class Connection:
    """One TCP connection: bytes in order, both ways."""

    count = 0

    def __init__(self, network: Network, host: str, client: Client, context: Context) -> None:
        Connection.count += 1
        self.number = Connection.count
        self.network, self.link, self.client = network, network.link(host), client
        self._context = context
        self._is_open = True
        self._last = [0.0, 0.0]
        self._held: tuple[list[Any], list[Any]] = ([], [])
        self._stuck_since = [0.0, 0.0]
        self.link.connections.add(self)
        network.broker.attach(self)

    def send(self, may_suffer: bool, act: Callable[..., None], *args: object) -> None:
        """Let the server do `act` when the bytes have arrived there."""
        self._move(0, self.network.broker.context, may_suffer, act, args)

    def push(
        self, sid: int, subject: str, data: bytes, headers: dict[str, str], reply: str
    ) -> None:
        """Send a message to the client."""
        may = not reply.startswith(API)
        self._move(1, self._context, may, self.client.hear, (sid, subject, data, headers, reply))

    def _move(
        self,
        way: int,
        context: Context,
        may_suffer: bool,
        act: Callable[..., None],
        args: tuple[object, ...],
    ) -> None:
        if not self._is_open:
            return
        copies, extra_s = self._suffer() if may_suffer else (1, 0.0)
        for _ in range(copies):
            if self._held[way] or not (self.link.up, self.link.down)[way]:
                self._hold(way, (context, act, args))
            else:
                self._arrive(way, context, act, args, extra_s)

    def _suffer(self) -> tuple[int, float]:
        weather, chance = self.network.weather, self.network.chance
        if weather.drop and chance.random() < weather.drop:
            return 0, 0.0
        copies = 2 if weather.double and chance.random() < weather.double else 1
        extra_s = 0.0
        if weather.delay and chance.random() < weather.delay:
            extra_s = chance.uniform(0.0, weather.delay_s)
        elif weather.reorder and chance.random() < weather.reorder:
            extra_s = chance.uniform(0.0, 0.05)
        return copies, extra_s

    def _arrive(
        self,
        way: int,
        context: Context,
        act: Callable[..., None],
        args: tuple[object, ...],
        extra_s: float,
    ) -> None:
        loop = self.network.loop
        at = loop.time() + self.network.chance.uniform(*LATENCY_S)
        if extra_s:
            at += extra_s  # the others overtake it
        else:
            at = self._last[way] = max(at, self._last[way] + 1e-7)
        loop.call_at(at, self._act, act, args, context=context)

    def _act(self, act: Callable[..., None], args: tuple[object, ...]) -> None:
        if self._is_open:
            act(*args)

    def _hold(self, way: int, item: object) -> None:
        """Keep bytes for later; for too long, and the connection is given up."""
        if not self._held[way]:
            at = self.network.loop.time() + _GIVE_UP_S
            self.network.loop.call_at(at, self._give_up, way, context=Context())
            self._stuck_since[way] = at
        self._held[way].append(item)

    def _give_up(self, way: int) -> None:
        if self._held[way] and self.network.loop.time() >= self._stuck_since[way]:
            self.cut()

    def flow(self) -> None:
        """Let go what a partition held back."""
        for way in (0, 1):
            held = self._held[way][:]
            self._held[way].clear()
            for context, act, args in held:
                self._arrive(way, context, act, args, 0.0)

    def cut(self) -> None:
        """The connection is over; the client learns of it, the server has forgotten it."""
        if self._is_open:
            self.end()
            self.network.loop.call_later(0.001, self.client.lost, self, context=self._context)

    def end(self) -> None:
        self._is_open = False
        self.link.connections.discard(self)
        self.network.broker.detach(self)
