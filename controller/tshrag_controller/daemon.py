"""The controller's process: opens everything, leads, and closes everything again.

``serve`` is all of it inside one event loop, so that ``tshrag up`` and tests run the same.
"""

import asyncio
import fcntl
import gc
import logging
import os
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
from tshrag_common.errors import Fenced, LabError, Refused, Unreachable
from tshrag_common.jsonlog import set_up_logging
from tshrag_common.streams import LOG, all_streams
from tshrag_controller.broker import Broker, open_broker
from tshrag_controller.leading import Leading
from tshrag_controller.log.checkpoint import Checkpoints
from tshrag_controller.recover import ensure_log, recover, restore_projection
from tshrag_controller.settings import ControllerSettings, read
from tshrag_controller.store.consoles import Kept
from tshrag_controller.store.hot import HotLimits
from tshrag_controller.store.store import Store, StoreOptions

logger = logging.getLogger(__name__)

Say = Callable[[str], None]
GC_EVERY = 20_000
"""Objects between two collections: frames and reports are many and hold no cycles (at 700, the
default, the collector took an eighth of the time of a busy controller)."""


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
    """Lead until `stop` is set.

    With `stop_server` an embedded nats-server ends with the controller; without, it goes on, and
    the next controller adopts it: agents hand in their reports meanwhile.

    Raises:
        LabError: it cannot start or go on; the line says why.

    """
    held = await asyncio.to_thread(lock, settings.state)
    try:
        broker = await open_broker(settings, say)
        try:
            await serve_on(settings, broker, stop, on_ready)
        finally:
            await broker.close(stop_server=stop_server)
    finally:
        held.close()


async def serve_on(
    settings: ControllerSettings,
    broker: Broker,
    stop: asyncio.Event,
    on_ready: Callable[[Broker], None],
    clock: Clock | None = None,
    open_store: Callable[[Path], Awaitable[Store]] | None = None,
) -> None:
    """Lead over an open bus until `stop` is set; what `serve` does between opening and closing."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(broker.bus.watch(), name="bus-watch")
            group.create_task(_exit_when_closed(broker), name="bus-closed")
            if broker.server is not None:
                group.create_task(broker.server.watch(), name="server-watch")
            clock = clock or SystemClock()
            if open_store is None:
                limits = HotLimits(run_series=settings.store.run_series)
                consoles = settings.consoles
                kept = Kept(days=consoles.keep_days, bytes_per_dut=consoles.keep_bytes)
                options = StoreOptions(clock.now, limits, kept)
                open_store = partial(Store.open, options=options)
            await _lead(settings, broker, stop, on_ready, clock, open_store)
            raise _Stop
    except* _Stop:
        logger.info("stopped")
    except* Fenced as fenced:
        logger.error("another controller leads", extra={"why": str(fenced.exceptions[0])})
        raise fenced.exceptions[0] from None
    except* LabError as errors:
        raise errors.exceptions[0] from None


async def _lead(
    settings: ControllerSettings,
    broker: Broker,
    stop: asyncio.Event,
    on_ready: Callable[[Broker], None],
    clock: Clock,
    open_store: Callable[[Path], Awaitable[Store]],
) -> None:
    log = JetStream(broker.bus)
    for stream in all_streams(settings.sizes, settings.nats.replicas):
        if stream.name == LOG:
            await ensure_log(log, stream, clock.now() // 1000)
        else:
            await log.ensure_stream(stream)
    folder = settings.state / "store"
    checkpoints = Checkpoints(log, settings.state)
    await restore_projection(log, checkpoints, folder)
    store = await open_store(folder)
    try:
        name = f"{settings.controller.node}-recover"
        lab = await recover(log, checkpoints, store, name, clock)
        leading = Leading(
            settings, broker, store, checkpoints, lab, clock, version("tshrag-controller")
        )
        async with asyncio.TaskGroup() as group:
            epoch = group.create_task(leading.lead(lambda: on_ready(broker)), name="lead")
            await stop.wait()
            await leading.checkpoint()
            epoch.cancel()
    finally:
        await store.close()


async def _exit_when_closed(broker: Broker) -> None:
    """End the process when the connection is closed for good: its supervisor starts it anew."""
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


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="controller.toml")
@click.option("--stop-broker", is_flag=True, help="End our nats-server with the controller.")
@click.version_option(package_name="tshrag-controller")
def main(config: Path | None, stop_broker: bool) -> None:
    """Run a controller of a tshrag lab in the foreground.

    Without [nats] url it runs a nats-server of its own, which outlives it.
    """
    try:
        settings = read(config)
        set_up_logging(settings.log.level, settings.log.format)
        gc.set_threshold(GC_EVERY)
        uvloop.run(_main(settings, stop_broker))
    except LabError as error:
        click.echo(error.line, err=True)
        raise SystemExit(3 if error.retryable else 2) from None


if __name__ == "__main__":
    main()
