"""The bus of a lab: a nats-server of our own, started or adopted, or one that is there by URL."""

import asyncio
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from tshrag_common.bus.connection import Bus, connect
from tshrag_common.errors import LabError, Refused, Unreachable
from tshrag_common.ids import DEFAULT_ORG
from tshrag_common.keys import Bundle, read_bundle, write_secret
from tshrag_common.labkeys import OPERATOR, LabKeys, keys_in, load_lab, new_lab
from tshrag_controller.nats_server.accounts import push_accounts
from tshrag_controller.nats_server.config import ServerConfig
from tshrag_controller.nats_server.facts import Facts, by_monitor, by_system, check
from tshrag_controller.nats_server.process import NatsServer, start_or_adopt
from tshrag_controller.settings import ControllerSettings, NatsTable

logger = logging.getLogger(__name__)

Dial = Callable[[float | None], Awaitable[Bus]]
"""Connects within so many seconds, or for as long as it takes."""
REDIAL_S, REDIAL_PAUSE_S = 10.0, 1.0
KEYS = "keys.json"
JOINED = "joined"
"""Is there where the keys came from another controller's box: none are issued here."""
OWN_BUNDLE = "me.json"
"""What the CLI on the same machine connects with."""


class Broker:
    """A connection of account CTL, the keys of the lab, and the server where it is ours.

    ``durable``: every accepted answer is on disk before it is given, as far as we know.
    """

    def __init__(
        self,
        bus: Bus,
        keys: LabKeys,
        url: str,
        server: NatsServer | None,
        durable: bool = True,
        dial: Dial | None = None,
    ) -> None:
        self.bus, self.keys, self.url, self.server = bus, keys, url, server
        self.durable, self.is_checked = durable, server is not None
        self._dial = dial

    async def redial(self) -> None:
        """Connect anew, for as long as it takes, where the connection was closed for good.

        The credentials are read again before each try: they may have run out, been revoked, and
        been exchanged.

        Raises:
            Unreachable: this bus was handed in open, and nobody knows the way back.

        """
        if self._dial is None:
            raise Unreachable("nats", "the connection was closed for good", "restart the server")
        await self.bus.close()
        while True:
            try:
                self.bus = await self._dial(REDIAL_S)
                return
            except LabError as error:
                logger.error("the bus is not reached again", extra={"why": error.line})
                await asyncio.sleep(REDIAL_PAUSE_S)

    async def look(self, nats: NatsTable) -> tuple[Facts, ...]:
        """Return what can be learnt of an external server: nothing, where no way leads there."""
        if nats.monitor:
            return await by_monitor(nats.monitor)
        return (
            await by_system(self.url, self.keys, self.bus.name) if self.bus.plain is False else ()
        )

    async def check(self, nats: NatsTable) -> None:
        """Refuse an external server that may lose what it acknowledges, as far as it tells."""
        found = await self.look(nats)
        self.is_checked = bool(found)
        self.durable = check(found, unsafe_sync=nats.unsafe_sync, replicas=nats.replicas)

    async def close(self, *, stop_server: bool) -> None:
        await self.bus.close()
        if self.server is not None and stop_server:
            await self.server.stop()


def keys_of(state: Path, bundle: Bundle | None = None) -> LabKeys:
    """Return the keys of the lab: those in the folder, or in the bundle of a controller that joins.

    Made, and written, the first time.

    Raises:
        Refused: the folder has the keys of another lab than the bundle (``keys_differ``).

    """
    path = state / KEYS
    joins = keys_in(bundle.lab.encode(), bundle.name) if bundle and bundle.lab else None
    taken = _came_in(bundle.lab) if bundle else ""
    if not path.exists():
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        if joins is not None:
            (state / JOINED).write_text(taken)
        keys = joins or new_lab(DEFAULT_ORG)
        keys.save(path)
        return keys
    keys = load_lab(path)
    if joins is None:
        return keys
    if joins.operator != keys.operator:
        fix = "give this controller another state folder, or the bundle of this lab"
        raise Refused(str(path), "these are the keys of another lab", fix, code="keys_differ")
    joined = state / JOINED
    if joined.exists() and joined.read_text() != taken:  # another file; what comes by the bus stays
        joins.save(path)
        joined.write_text(taken)
        return joins
    return keys


def _came_in(lab: str) -> str:
    digest = hashlib.sha256(lab.encode()).hexdigest()
    return f"the keys came in a file of the first controller: sha256 {digest}\n"


async def open_broker(settings: ControllerSettings, say: Callable[[str], None]) -> Broker:
    """Start, adopt or reach the bus; write the bundle of the person on this machine.

    Raises:
        Refused, Unavailable: one clear line of what is wrong.

    """
    bundle = _bundle_of(settings.nats)
    keys = keys_of(settings.state, bundle)
    node = settings.controller.node
    if settings.nats.url:

        async def dial(within_s: float | None) -> Bus:
            bundle = await asyncio.to_thread(_bundle_of, settings.nats)
            return await connect(
                settings.nats.url,
                name=node,
                credentials=bundle.creds if bundle else "",
                on_state=say,
                need_jetstream=True,
                within_s=within_s,
            )

        bus = await dial(None)
        broker = Broker(bus, keys, settings.nats.url, None, dial=dial)
        try:
            await broker.check(settings.nats)
        except LabError:
            await bus.close()
            raise
    else:
        server = await start_or_adopt(_server_config(settings), keys, say)
        server.fresh_keys = lambda: load_lab(settings.state / KEYS)
        if server.adopted:
            await _push(server, keys, node)

        async def dial(within_s: float | None) -> Bus:
            return await connect(
                server.url,
                name=node,
                credentials=keys.controller_creds(node).text,
                on_state=say,
                need_jetstream=True,
                within_s=within_s,
            )

        bus = await dial(None)
        durable = settings.nats.sync_interval == "always"
        broker = Broker(bus, keys, server.url, server, durable, dial)
    write_own_bundle(settings.state, broker)
    return broker


async def _push(server: NatsServer, keys: LabKeys, node: str) -> None:
    """Bring an adopted server's accounts up to date: it was started before the last changes."""
    credentials = keys.system_creds(node).text
    system = await connect(server.url, name=node, credentials=credentials, within_s=30.0)
    try:
        await push_accounts(system, keys)
    finally:
        await system.close()


def _bundle_of(nats: NatsTable) -> Bundle | None:
    return read_bundle(Path(nats.creds).expanduser()) if nats.creds else None


def _server_config(settings: ControllerSettings) -> ServerConfig:
    nats = settings.nats
    return ServerConfig(
        state=str(settings.state / "nats"),
        host=nats.host,
        port=nats.port,
        sync_interval=nats.sync_interval,
        unsafe_sync=nats.unsafe_sync,
        max_file_store=nats.max_file_store,
    )


def write_own_bundle(state: Path, broker: Broker) -> None:
    """Write what the CLI of whoever owns this state folder connects with."""
    name = f"owner-{os.getuid()}"
    path = state / OWN_BUNDLE
    if broker.bus.plain:
        bundle = Bundle(kind="person", name=name, org=DEFAULT_ORG, url=broker.url)
    else:
        if path.exists() and read_bundle(path).url == broker.url:
            return
        broker.keys, bundle = broker.keys.with_person(name, DEFAULT_ORG, broker.url, role=OPERATOR)
        broker.keys.save(state / KEYS)
    write_secret(path, bundle.encoded())
