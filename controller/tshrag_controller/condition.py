"""How a controller is: what troubles it, in sentences, and what it has counted."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tshrag_common.errors import shown
from tshrag_common.sources.tree import size_text
from tshrag_controller.broker import Broker
from tshrag_controller.broker_watch import BrokerWatch
from tshrag_controller.engine import Engine
from tshrag_controller.ingest import Ingest
from tshrag_controller.intake.beats import Beats
from tshrag_controller.intake.reports import ReportIntake
from tshrag_controller.intake.served import Served
from tshrag_controller.log.append import Pen
from tshrag_controller.outbox import Outbox
from tshrag_controller.projecting import Projecting
from tshrag_controller.store.keep import Keeper
from tshrag_controller.store.store import Store

LEAST_FREE_BYTES = 4 << 20


class Told(Protocol):
    """A part of the controller that has troubles and counters of its own."""

    def troubles(self) -> list[str]: ...

    def counters(self) -> dict[str, int]: ...


class Condition:
    """Asked for health, and for every pulse of this controller."""

    def __init__(
        self,
        broker: Broker,
        watch: BrokerWatch,
        pen: Pen,
        store: Store,
        engine: Engine,
        projecting: Projecting,
        keeper: Keeper,
        ingest: Ingest,
        beats: Beats,
        reports: ReportIntake,
        outbox: Outbox,
        served: Sequence[Served],
    ) -> None:
        self._broker, self._watch, self._pen = broker, watch, pen
        self._store, self._engine = store, engine
        self._projecting, self._keeper, self._ingest = projecting, keeper, ingest
        self._beats, self._reports, self._outbox = beats, reports, outbox
        self._served = served
        self.beside: Told | None = None

    def own(self) -> tuple[str, ...]:
        """Return what is amiss with this controller alone."""
        own = [self._store.degraded, self._projecting.trouble, self._keeper.trouble]
        own.append(self._pen.trouble)
        own += self.beside.troubles() if self.beside else []
        own.append(_room(self._store.folder))
        if self._ingest.filling:
            what = "samples and output of before it began are still read; long runs wait for them"
            own.append(f"filling: {what}")
        if self._ingest.lacks:
            fix = "it leads only where no other can; see docs/how-to/run-a-standby.md"
            own.append(f"data_missing: samples or output went by while it was away; {fix}")
        return tuple(reason for reason in own if reason)

    def reasons(self) -> tuple[str, ...]:
        """Return what is amiss with this controller and the lab around it."""
        found = [*self.own()]
        if self._broker.bus.plain:
            found.append(
                "the bus has no accounts: anybody who reaches it may submit and cancel; "
                "see docs/how-to/secure-the-bus.md"
            )
        found += self._watch.troubles
        if not self._broker.is_checked:
            fix = "give its monitoring port to [nats] monitor"
            found.append(f"broker_unchecked: nobody tells whether that server syncs; {fix}")
        if not self._broker.durable:
            found.append("nats_unsafe_sync: a power cut may take what was accepted")
        for agent, trouble in sorted(self._beats.troubles.items()):
            found.append(f"{agent}: {shown(trouble, 300)}")
        for agent, skew_s in sorted(self._beats.skews.items()):
            found.append(f"clock_skew: {agent}: {skew_s:+.0f}s; set the clock of the host")
        found += self._beats.told()
        return tuple(found)

    def counters(self) -> dict[str, int]:
        dropped = {f"dropped.{each.name}": each.dropped for each in self._served}
        return {
            **(self.beside.counters() if self.beside else {}),
            **dropped,
            **self._ingest.refused,
            "spool_gaps": self._ingest.gaps + self._reports.gaps,
            "set_aside": self._outbox.set_aside_count,
            "turns": self._engine.turns,
        }


def _room(folder: Path) -> str:
    """Say that a disk is full before a store finds it out, whose WAL has room for a while."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"storage_full: {folder}: {error.strerror}"
    if free >= LEAST_FREE_BYTES:
        return ""
    return f"storage_full: {folder}: {size_text(free)} are free; make room on this disk"
