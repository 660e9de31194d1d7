"""Looks at the bus every few seconds: streams that are full, a server that is sick, a full disk.

What is amiss is a sentence with the next step. Nothing is lost by any of it: agents keep what the
streams do not take, the leader waits with what the LOG does not take.
"""

import asyncio
import logging
from collections.abc import Callable

from tshrag_common.bus.jetstream import JetStream
from tshrag_common.errors import LabError
from tshrag_common.streams import LOG, StreamConfig, all_streams
from tshrag_controller.broker import Broker
from tshrag_controller.nats_server.facts import Facts
from tshrag_controller.settings import ControllerSettings

logger = logging.getLogger(__name__)

LOOK_S = 4.0
FULL_RATIO = 0.95
LONG_RATIO = 0.5
"""A LOG that holds more is purged behind a checkpoint that is stored at once."""
_HELP = {
    "LOG": "a checkpoint purges it: see the other reasons why none is stored",
    "EV": "the leader removes what it has read: see the other reasons why it does not",
    "MET": "its reader is behind: see the other reasons, and the disk of the controllers",
    "LOGS": "its reader is behind: see the other reasons, and the disk of the controllers",
}
_MORE = "raise [nats] max_file_store, or remove what is not needed"


class BrokerWatch:
    """What `watch` has seen last stands in ``troubles``."""

    def __init__(
        self, settings: ControllerSettings, broker: Broker, on_long_log: Callable[[], None]
    ) -> None:
        self._settings, self._broker, self._on_long_log = settings, broker, on_long_log
        self._log = JetStream(broker.bus, timeout_s=2.0)
        self.troubles: tuple[str, ...] = ()

    async def watch(self) -> None:
        """Look for ever."""
        while True:
            found = [*await self._server(), *await self._streams()]
            for trouble in found:
                if trouble not in self.troubles:
                    logger.error("the bus is in trouble", extra={"why": trouble})
            self.troubles = tuple(found)
            await asyncio.sleep(LOOK_S)

    async def _server(self) -> list[str]:
        """Return what is amiss with the servers themselves."""
        server, settings = self._broker.server, self._settings
        if server is not None:
            return [server.trouble] if server.trouble else []
        try:
            found = await self._broker.look(settings.nats)
        except LabError as error:
            return [error.line]
        return [_sick(each) for each in found if each.sickness]

    async def _streams(self) -> list[str]:
        try:
            configs = all_streams(self._settings.sizes, self._settings.nats.replicas)
            return [said for config in configs if (said := await self._fullness(config))]
        except LabError as error:
            return [f"nats_silent: JetStream does not answer ({error}); see the log of nats-server"]

    async def _fullness(self, config: StreamConfig) -> str:
        info = await self._log.stream_info(config.name)
        if config.name == LOG and info.bytes > config.max_bytes * LONG_RATIO:
            self._on_long_log()
        if info.bytes < config.max_bytes * FULL_RATIO:
            return ""
        mib = 1 << 20
        what = f"stream {config.name} holds {info.bytes // mib} of {config.max_bytes // mib} MiB"
        return f"storage_full: {what}; {_HELP.get(config.name, _MORE)}"


def _sick(facts: Facts) -> str:
    if "no space" in facts.sickness or "insufficient" in facts.sickness:
        fix = "make room on its disk, then restart that nats-server: a frozen stream stays frozen"
        return f"storage_full: nats-server {facts.name}: {facts.sickness}; {fix}"
    fix = "see its log; a stream that is frozen goes on after a restart of that server"
    return f"nats_sick: nats-server {facts.name}: {facts.sickness}; {fix}"
