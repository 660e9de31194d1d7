"""PURE: what is judged: the samples of one key from one attempt, and which of them count."""

import math
from array import array
from collections.abc import Sequence
from functools import cached_property

import msgspec

from tshrag_common.criteria import CompiledCriterion
from tshrag_common.metrics import MetricType


class Source(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Samples of one key from one attempt, in base units, in any order.

    ``missing`` counts samples that are known to exist and did not arrive; ``stale`` says why the
    source was given up while it should have spoken. Start and end are those of the attempt; 0:
    those of the samples. What many criteria ask of the same samples is found once.
    """

    key: str
    times: Sequence[int]
    values: Sequence[float]
    durations: Sequence[int] = ()
    unit: str = ""
    type: MetricType = "gauge"
    job: str = ""
    dut: str = ""
    host: str = ""
    started_at: int = 0
    ended_at: int = 0
    missing: int = 0
    stale: str = ""

    @cached_property
    def ordered(self) -> "array[float]":
        """Return the values, the smallest first; as a list they would weigh four times as much."""
        return array("d", sorted(self.values))

    @cached_property
    def is_finite(self) -> bool:
        """Tell whether all values are numbers; a sum is one only then, or where it is too large."""
        return math.isfinite(sum(self.values)) or all(map(math.isfinite, self.values))

    @cached_property
    def span(self) -> tuple[int, int]:
        """Return the first and the last time; there must be one."""
        return min(self.times), max(self.times)


class NoVerdict(Exception):
    """These samples cannot be judged; the message says why."""


def refuse_gaps(key: str, sources: list[Source]) -> None:
    if not any(len(source.values) for source in sources):
        raise NoVerdict(f"no samples of {key} were stored; does the load emit that key?")
    for source in sources:
        if source.stale:
            raise NoVerdict(f"samples of {key} are stale: {source.stale}")
        if source.missing:
            raise NoVerdict(f"{source.missing} samples of {key} are missing")
        if len(source.times) != len(source.values):
            raise NoVerdict(f"{key} has {len(source.times)} times, {len(source.values)} values")
        if not source.is_finite:
            raise NoVerdict(f"samples of {key} are not all numbers")
    kinds = {(source.unit, source.type) for source in sources}
    if len(kinds) > 1:
        said = " and ".join(sorted(f"{kind} in {unit or 'no unit'}" for unit, kind in kinds))
        raise NoVerdict(f"{key} was stored as {said}")


def in_window(criterion: CompiledCriterion, source: Source) -> Source:
    """Return the source with the samples that count; one that overlaps the window does."""
    windowed = (
        criterion.after_us or criterion.before_us is not None or criterion.last_us is not None
    )
    if not windowed or not len(source.times):
        return source
    start = source.started_at or min(source.times)
    low, high = start + criterion.after_us, math.inf
    if criterion.before_us is not None:
        high = start + criterion.before_us
    if criterion.last_us is not None:
        low = max(low, (source.ended_at or max(source.times)) - criterion.last_us)
    spans = source.durations or (0,) * len(source.times)
    rows = zip(source.times, source.values, spans, strict=True)
    kept = [(at, value) for at, value, span in rows if at <= high and at + span >= low]
    return msgspec.structs.replace(
        source, times=[at for at, _ in kept], values=[value for _, value in kept], durations=()
    )
