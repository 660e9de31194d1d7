"""Loads that are executed inside the agent: ``builtin:NAME``.

Others add their own by the entry point group ``tshrag.loads``: a name and an async function that
takes a `BuiltinCall`. It must not block the loop. It fails by raising `BuiltinFailed`.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, TypeVar

import msgspec

from tshrag_agent.attempts.attempt import Attempt
from tshrag_agent.attempts.metric_gate import DROPPED, OVERFLOW
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import Append
from tshrag_common import wire
from tshrag_common.clock import Clock
from tshrag_common.errors import ErrorReport, NotFound, Refused
from tshrag_common.metrics import MetricInfo, SampleBatch, metric_key, pack
from tshrag_common.reports import MetricNotice

GROUP = "tshrag.loads"

T = TypeVar("T", bound=msgspec.Struct)
_BATCH_MOST = 1000
_BATCH_S = 0.2


class BuiltinFailed(Exception):
    """The load ran and did not hold; the message says why."""


@dataclass
class BuiltinCall:
    """What a builtin is given."""

    attempt: Attempt
    journal: Journal
    clock: Clock
    sent_bytes: int = 0  # of samples

    def params(self, shape: type[T]) -> T:
        """Return the params of the job as `shape`.

        Raises:
            Refused: they do not fit it (``params``).

        """
        try:
            return msgspec.convert(self.attempt.spec.params, shape, strict=False)
        except msgspec.ValidationError as error:
            raise Refused("params", str(error), code="params") from None

    async def emit(self, info: MetricInfo, times: list[int], values: list[float]) -> None:
        """Put samples into the journal."""
        start = self.attempt.start
        batch = SampleBatch(
            run=start.run,
            job=start.job,
            attempt=start.attempt,
            dut=start.dut or "",
            series=(pack(info, times, values),),
        )
        body = wire.body(batch)
        self.sent_bytes += len(body)
        await self.journal.pressure.eased(self.sent_bytes)
        dropped: list[Append] = []
        upto = await self.journal.write(Append("samples", (body,)), dropped=dropped)
        if dropped:
            self._note_dropped(batch.count)
        else:
            self.attempt.record.samples_upto = upto

    def _note_dropped(self, count: int) -> None:
        record = self.attempt.record
        known = sum(notice.count for notice in record.notices)
        record.notices = (MetricNotice(OVERFLOW, known + count, DROPPED),)


Builtin = Callable[[BuiltinCall], Awaitable[None]]


async def noop(_call: BuiltinCall) -> None:
    """Do nothing: what is left is the cost of the lab itself."""


class SleepParams(msgspec.Struct, frozen=True, kw_only=True):
    """How long ``builtin:sleep`` sleeps."""

    seconds: Annotated[float, msgspec.Meta(ge=0)] = 1.0


async def sleep(call: BuiltinCall) -> None:
    await asyncio.sleep(call.params(SleepParams).seconds)


class SamplesParams(msgspec.Struct, frozen=True, kw_only=True):
    """What ``builtin:samples`` emits; `rate` is a second, 0: as fast as they are taken."""

    count: Annotated[int, msgspec.Meta(ge=0, le=100_000_000)] = 1000
    rate: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    key: str = "samples.value"
    unit: str = ""
    mean: float = 100.0
    stdev: Annotated[float, msgspec.Meta(ge=0)] = 10.0


async def samples(call: BuiltinCall) -> None:
    """Emit normally distributed samples; the seed of the job decides them."""
    wanted = call.params(SamplesParams)
    info = MetricInfo(key=metric_key(wanted.key, "params.key"), unit=wanted.unit)
    chance = random.Random(call.attempt.start.seed)
    begin, loop = call.clock.now(), asyncio.get_running_loop()
    started = loop.time()
    size = _BATCH_MOST
    if wanted.rate:
        size = max(1, min(_BATCH_MOST, int(wanted.rate * _BATCH_S)))
    for first in range(0, wanted.count, size):
        count = min(size, wanted.count - first)
        if wanted.rate:
            await asyncio.sleep(max(0.0, started + (first + count) / wanted.rate - loop.time()))
            times = [begin + int((first + i) * 1e6 / wanted.rate) for i in range(count)]
        else:
            times = list(range(begin + first, begin + first + count))
        values = [chance.gauss(wanted.mean, wanted.stdev) for _ in range(count)]
        await call.emit(info, times, values)


OWN: Mapping[str, Builtin] = {"noop": noop, "sleep": sleep, "samples": samples}


@cache
def find(name: str) -> Builtin:
    """Return the builtin called `name`.

    Raises:
        NotFound: there is none here (``unknown_builtin``).

    """
    if name in OWN:
        return OWN[name]
    others = entry_points(group=GROUP)
    if name not in others.names:
        raise NotFound("builtin", name, [*OWN, *others.names])
    found: Builtin = others[name].load()
    return found


class BuiltinSteps:
    """An attempt of a builtin: no process, no directory."""

    def __init__(self, attempt: Attempt, journal: Journal, clock: Clock) -> None:
        self._attempt, self._journal, self._clock = attempt, journal, clock

    async def work(self) -> None:
        load = self._attempt.spec.load
        builtin = find(load.builtin.removeprefix("builtin:") if load else "")
        self._attempt.launched()
        try:
            await builtin(BuiltinCall(self._attempt, self._journal, self._clock))
        except BuiltinFailed as error:
            report = ErrorReport(code="failed", message=str(error)[:500])
            self._attempt.record.fail("failed", report)

    async def clean_up(self) -> None:
        """Leave nothing: there is nothing to leave."""
