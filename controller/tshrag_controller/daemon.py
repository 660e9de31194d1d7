"""The controller's process: opens everything, stands by, leads, and closes everything again.

``serve`` is all of it inside one event loop, so that ``tshrag up`` and tests run the same.
"""

import asyncio
import fcntl
import gc
import logging
import os
import secrets
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO

import click
import uvloop

from tshrag_common import history
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.clock import Clock, SystemClock
from tshrag_common.errors import Fenced, LabError, Refused, Unavailable, Unreachable
from tshrag_common.jsonlog import set_up_logging
from tshrag_common.streams import LOG, all_streams
from tshrag_controller.broker import Broker, open_broker
from tshrag_controller.leading import Leading
from tshrag_controller.log.checkpoint import Checkpoints
from tshrag_controller.log.follow import LogGap
from tshrag_controller.recover import make_stream, recover, restore_projection
from tshrag_controller.reseed import reseed
from tshrag_controller.settings import ControllerSettings, read
from tshrag_controller.store.consoles import Kept
from tshrag_controller.store.hot import HotLimits
from tshrag_controller.store.store import Store, StoreOptions

logger = logging.getLogger(__name__)

Say = Callable[[str], None]
GC_EVERY = 20_000
"""Objects between two collections: frames and reports are many and hold no cycles (at 700, the
default, the collector took an eighth of the time of a busy controller)."""
AGAIN_S = 1.0
START_S = 60.0
"""How long a bus of others may take to be one: it may be starting up, like us."""


class _Stop(Exception):
    """Ends the task group from inside."""


class AlreadyRunning(Refused):
    """Another controller has this state folder."""

    code = "already_running"


def lock(state: Path) -> IO[str]:
    """Hold the state folder for as long as the file is open; a second controller is refused."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = (state / "controller.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        fix = "stop it, or give this one another state folder"
        raise AlreadyRunning(str(state), f"controller with pid {holder} is at work", fix) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


async def serve(
    settings: ControllerSettings,
    stop: asyncio.Event,
    *,
    say: Say,
    on_ready: Callable[[Broker], None],
    stop_server: bool = True,
) -> None:
    """Stand by and lead until `stop` is set.

    With `stop_server` an embedded nats-server ends with the controller, unless other controllers
    are there; without, it goes on, and the next controller adopts it: agents hand in their
    reports meanwhile.

    Raises:
        LabError: it cannot start or go on; the line says why.

    """
    held = await asyncio.to_thread(lock, settings.state)
    try:
        broker = await _opened(settings, say, stop)
        if broker is None:
            return
        is_last = False
        try:
            is_last = await _serve_again(settings, broker, stop, on_ready)
        finally:
            await broker.close(stop_server=stop_server and is_last)
    finally:
        held.close()


async def _opened(settings: ControllerSettings, say: Say, stop: asyncio.Event) -> Broker | None:
    """Open the bus; one that is not ours may be starting up like us. None: we are told to stop.

    Raises:
        LabError: it cannot be used, or has become no bus within a minute.

    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + (START_S if settings.nats.url else 0.0)
    while not stop.is_set():
        try:
            return await open_broker(settings, say)
        except Unavailable as error:
            if loop.time() > ends:
                raise
            say(error.line)
            await asyncio.sleep(AGAIN_S)
    return None


async def _serve_again(
    settings: ControllerSettings,
    broker: Broker,
    stop: asyncio.Event,
    on_ready: Callable[[Broker], None],
) -> bool:
    """Serve over one connection after the other: one that is closed for good is made anew."""
    while True:
        try:
            return await serve_on(settings, broker, stop, on_ready)
        except LabError as error:
            if not broker.bus.closed.is_set():
                raise
            logger.warning("the connection is made anew", extra={"why": error.line})
        if not await _is_reached(broker, stop):
            return False


async def _is_reached(broker: Broker, stop: asyncio.Event) -> bool:
    """Connect again and look after our nats-server meanwhile; false: we are told to stop."""
    loop = asyncio.get_running_loop()
    dialing = loop.create_task(broker.redial(), name="redial")
    others: list[asyncio.Task[object]] = [loop.create_task(stop.wait(), name="stop")]
    if broker.server is not None:
        others.append(loop.create_task(broker.server.watch(), name="server-watch"))
    try:
        await asyncio.wait([dialing, *others], return_when=asyncio.FIRST_COMPLETED)
        if dialing.done():
            dialing.result()
        return dialing.done()
    finally:
        for task in (dialing, *others):
            task.cancel()
        await asyncio.wait([dialing, *others])


async def serve_on(
    settings: ControllerSettings,
    broker: Broker,
    stop: asyncio.Event,
    on_ready: Callable[[Broker], None],
    clock: Clock | None = None,
    open_store: Callable[[Path], Awaitable[Store]] | None = None,
) -> bool:
    """Serve over an open bus until `stop` is set; what `serve` does between opening and closing.

    Return whether no other controller was there at the end.
    """
    clock = clock or SystemClock()
    if open_store is None:
        limits = HotLimits(run_series=settings.store.run_series)
        consoles = settings.consoles
        kept = Kept(days=consoles.keep_days, bytes_per_dut=consoles.keep_bytes)
        open_store = partial(Store.open, options=StoreOptions(clock.now, limits, kept))
    terms = Terms(settings, broker, stop, on_ready, clock, open_store)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(broker.bus.watch(), name="bus-watch")
            group.create_task(_exit_when_closed(broker), name="bus-closed")
            if broker.server is not None:
                group.create_task(broker.server.watch(), name="server-watch")
            await terms.serve()
            raise _Stop
    except* _Stop:
        logger.info("stopped")
    except* LabError as errors:
        raise _first(errors) from None
    return terms.is_last


class Terms:
    """One term after the other: whoever is deposed begins anew, as a standby."""

    def __init__(
        self,
        settings: ControllerSettings,
        broker: Broker,
        stop: asyncio.Event,
        on_ready: Callable[[Broker], None],
        clock: Clock,
        open_store: Callable[[Path], Awaitable[Store]],
    ) -> None:
        self._settings, self._broker, self._stop = settings, broker, stop
        self._on_ready, self._clock, self._open_store = on_ready, clock, open_store
        self._log = JetStream(broker.bus)
        self._boot = secrets.token_hex(6)
        self._stood = False
        self._patient_until = clock.monotonic() + (START_S if broker.server is None else 0.0)
        self.is_last = True

    async def serve(self) -> None:
        """Return when `stop` is set; go on after whatever another start can mend."""
        while not self._stop.is_set():
            try:
                await self._term()
            except* (Fenced, Unavailable) as errors:
                error = _first(errors)
                is_early = self._clock.monotonic() < self._patient_until
                may_try = self._stood or is_early or isinstance(error, LogGap)
                if not may_try or self._broker.bus.closed.is_set():
                    raise error from None
                logger.warning("standing by anew", extra={"why": error.line})
                if not isinstance(error, Fenced):
                    await asyncio.sleep(AGAIN_S)

    async def _term(self) -> None:
        settings, clock = self._settings, self._clock
        for stream in all_streams(settings.sizes, settings.nats.replicas):
            first_seq = clock.now() // 1000 if stream.name == LOG else None
            await make_stream(self._log, stream, first_seq)
        folder = settings.state / "store"
        checkpoints = Checkpoints(self._log, settings.state)
        await restore_projection(self._log, checkpoints, folder)
        store = await self._open_store(folder)
        try:
            name = f"{settings.controller.node}-recover"
            lab = await recover(self._log, checkpoints, store, name, clock)
            version_ = version("tshrag-controller")
            leading = Leading(
                settings, self._broker, store, checkpoints, lab, clock, version_, self._boot
            )
            async with asyncio.TaskGroup() as group:
                term = group.create_task(leading.serve(self._ready), name="term")
                self._stood = True
                await self._stop.wait()
                self.is_last = not leading.leaving.has_others
                await leading.leaving.leave()
                term.cancel()
        finally:
            await store.close()

    def _ready(self) -> None:
        self._on_ready(self._broker)


def _first(error: BaseException) -> LabError:
    """Return the error of the lab in a group of groups; anything else in it goes before."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
        else:
            found.append(each)
    for each in found:
        if not isinstance(each, LabError):
            raise each
    first = found[0]
    assert isinstance(first, LabError)
    return first


async def _exit_when_closed(broker: Broker) -> None:
    """End what is served over a connection that is closed for good: another one is made."""
    await broker.bus.closed.wait()
    raise Unreachable("nats", "the connection was closed for good", "see the log of nats-server")


async def _main(settings: ControllerSettings, stop_broker: bool) -> None:
    stop = asyncio.Event()
    history.be(f"controller {settings.controller.node}")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def ready(broker: Broker) -> None:
        logger.info("leading", extra={"url": broker.url, "state": str(settings.state)})

    await serve(
        settings,
        stop,
        say=lambda line: logger.warning("bus", extra={"said": line}),
        on_ready=ready,
        stop_server=stop_broker,
    )


async def _reseed(settings: ControllerSettings) -> None:
    """Begin the LOG anew from what the state folder knows, and say what came of it."""
    held = await asyncio.to_thread(lock, settings.state)
    try:
        broker = await open_broker(settings, click.echo)
        try:
            done = await reseed(JetStream(broker.bus), settings, SystemClock())
            click.echo(done.line)
        finally:
            await broker.close(stop_server=True)
    finally:
        held.close()


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="controller.toml")
@click.option("--stop-broker", is_flag=True, help="End our nats-server with the controller.")
@click.option("--reseed", "anew", is_flag=True, help="Begin a lost LOG anew, and end.")
@click.version_option(package_name="tshrag-controller")
def main(config: Path | None, stop_broker: bool, anew: bool) -> None:
    """Run a controller of a tshrag lab in the foreground.

    Without [nats] url it runs a nats-server of its own, which outlives it. With --reseed it only
    begins a LOG anew that is gone for good: runs that were alive end in error.
    """
    try:
        settings = read(config)
        set_up_logging(settings.log.level, settings.log.format)
        gc.set_threshold(GC_EVERY)
        uvloop.run(_reseed(settings) if anew else _main(settings, stop_broker))
    except LabError as error:
        click.echo(error.line, err=True)
        raise SystemExit(3 if error.retryable else 2) from None


if __name__ == "__main__":
    main()
