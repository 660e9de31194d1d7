"""A store whose samples are moved on a clock of its own, and that can be crashed between steps."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.support.builders import T0
from tests.support.stored import StoredLab, a_batch, samples
from tshrag_common.ids import RunId
from tshrag_common.metrics import MetricInfo, Series, pack
from tshrag_controller.store.columns import columns
from tshrag_controller.store.hot import HotLimits, Stored
from tshrag_controller.store.keep import DAY_US, Keeper, Rules
from tshrag_controller.store.store import Store, StoreOptions

KEYS = ("net.latency", "cpu.load")

Sample = tuple[str, int, float, int]


class Crash(BaseException):
    """The process is gone."""


class KeptStore:
    """Opens a store below `folder` again and again; ``now`` is its clock."""

    def __init__(self, folder: Path, rules: Rules | None = None) -> None:
        self.folder, self.rules, self.now = folder, rules or Rules(), T0
        self.url = f"file://{folder / 'objects'}"
        self.options: dict[str, str] = {}
        self.limits = HotLimits()
        self.told: Counter[Sample] = Counter()
        self._messages = 0
        self._chance = random.Random(7)

    async def open(self, at: Callable[[str], None] = lambda _: None) -> None:
        options = StoreOptions(now=lambda: self.now, limits=self.limits)
        self.store = await Store.open(self.folder / "store", options=options)
        self.keeper = Keeper(self.store, self.url, self.options, self.rules, at)

    async def begin(self) -> RunId:
        """Open it, with a run of two jobs on a1."""
        await self.open()
        self.lab = StoredLab(self.store)
        self.run = await self.lab.started_run(jobs=2)
        return self.run

    async def arrive(self, count: int = 50) -> Stored:
        """Let a message arrive: samples of each key of both jobs, some with durations."""
        self._messages += 1
        batches = [
            a_batch(
                self.run,
                *(self._series(key, serial, count) for key in KEYS),
                serial=serial,
            )
            for serial in (1, 2)
        ]
        first = 2 * self._messages - 1
        (outcome,) = await self.store.take_samples([samples(*batches, first=first)])
        return outcome

    def _series(self, key: str, serial: int, count: int) -> Series:
        times = [self.now + n * 1000 + self._chance.randrange(900) for n in range(count)]
        values = [self._chance.gauss(5, 2) for _ in range(count)]
        spans = [self._chance.randrange(50) for _ in range(count)] if serial == 2 else []
        for at, value, span in zip(times, values, spans or [0] * count, strict=True):
            self.told[f"{key}/{serial}", at, value, span] += 1
        return pack(MetricInfo(key=key, unit="ms"), times, values, spans)

    async def read(self) -> Counter[Sample]:
        """Return all samples that the store tells of the run."""
        found = await self.store.query(lambda db: columns(db, 1))
        return Counter(
            (f"{each.key}/{each.serial}", *sample)
            for each in found
            for sample in zip(each.times, each.values, each.durations, strict=True)
        )

    def pass_days(self, days: float) -> None:
        self.now += round(days * DAY_US)
