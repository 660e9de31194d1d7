"""PURE. The gate that every sample of a load passes: key, unit, value and time are checked.

Numbers leave it in the base unit of their metric. What is not taken is counted by key, with the
first reason; nothing a load says is fatal. A key that no load.toml declares gets the unit that its
first sample is written with.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tshrag_agent.attempts.dut_clock import DutClock
from tshrag_agent.attempts.metric_text import bad_time, instant_of, number_of, span_of, time_of
from tshrag_agent.attempts.overflow import WHOLE, Overflow
from tshrag_agent.results.forms import word
from tshrag_common.errors import LabError, nearest, shown
from tshrag_common.metrics import (
    MAX_KEY,
    MAX_TIME_US,
    MAX_VALUE,
    MIN_TIME_US,
    RESERVED,
    BadMetric,
    MetricInfo,
    MetricType,
    is_below,
    metric_key,
)
from tshrag_common.reports import MetricNotice
from tshrag_common.units import UNITS, Unit, unit

Take = Callable[[MetricInfo, int, float, int], None]
"""Gets info, time (us), value (base unit) and duration (us) of each sample that is taken."""

MAX_KEYS = 1000
MAX_LABELLED = 200  # series that the labels of one metric may make
MAX_HELD = 10_000
AHEAD_S = 5.0
MAX_NOTICES = 100
DROPPED = "metric_dropped: the spool of samples was full; see why the bus takes none"
OVERFLOW = "…"  # the notice of all keys beyond the first hundred that were refused


@dataclass(slots=True)
class _Known:
    """A key with what its bare numbers mean; `declared` by load.toml, or learnt."""

    info: MetricInfo
    unit: Unit | None  # None: a unit of the load's own, taken as it is
    declared: bool


class _Sample(NamedTuple):
    """A sample whose time is still to be looked at."""

    info: MetricInfo
    at_us: int
    value: float
    duration_us: int


class MetricGate:
    """All that one attempt has said of its metrics."""

    def __init__(
        self,
        take: Take,
        *,
        declared: Iterable[MetricInfo] = (),
        namespace: str = "",
        most_keys: int = MAX_KEYS,
        ahead_s: float = AHEAD_S,
        clock: DutClock | None = None,
    ) -> None:
        """Open it; times that come with a sample are of `clock`, or of the agent's own.

        A time more than `ahead_s` ahead of the agent's is refused.
        """
        self.taken = self.ahead = 0
        self._ahead_us, self._clock = round(ahead_s * 1e6), clock
        self._held: list[_Sample] = []
        self._take, self._most = take, most_keys
        self._overflow = Overflow(take)
        self._labelled: dict[str, int] = {}  # metric -> series that its labels have made
        self._namespace = namespace
        self._known: dict[str, _Known] = {}
        self._spelled: dict[str, _Known] = {}  # as written -> what it is
        self._refused: dict[str, tuple[int, str]] = {}
        for info in declared:
            self._known[info.key] = _Known(info, UNITS.get(info.unit), True)

    def infos(self) -> tuple[MetricInfo, ...]:
        """List the metrics that had samples or are declared."""
        return tuple(known.info for known in self._known.values())

    @property
    def refused(self) -> int:
        return sum(count for count, _ in self._refused.values())

    def notices(self) -> tuple[MetricNotice, ...]:
        """List what was not taken, for the report of the attempt's end."""
        rows = self._refused.items()
        return tuple(MetricNotice(key, count, reason) for key, (count, reason) in rows)

    def refuse(self, key: str, reason: str) -> None:
        """Count one sample that is not taken."""
        key = key if key.isascii() and key.isprintable() and len(key) <= 80 else shown(key)
        if key not in self._refused and len(self._refused) >= MAX_NOTICES:
            key = OVERFLOW
        count, first = self._refused.get(key, (0, reason))
        self._refused[key] = (count + 1, first)

    def dropped(self, count: int) -> None:
        """Count samples that were taken and had no room then; nobody knows any more of what."""
        before, first = self._refused.get(OVERFLOW, (0, DROPPED))
        self._refused[OVERFLOW] = (before + count, first)

    def offer_text(
        self,
        key: str,
        value: str,
        time: str = "",
        duration: str = "",
        *,
        now_us: int,
        kind: MetricType | None = None,
    ) -> bool:
        """Take a sample as text, or count why not; without a time it is of now."""
        try:
            number, name = number_of(value, key)
            read = time_of if self._clock is None else instant_of
            at = read(time, key) if time else None
            span = span_of(duration, key) if duration else 0
        except BadMetric as refused:
            self.refuse(key, refused.line)
            return False
        return self.offer(key, number, name, at, span, kind, now_us=now_us)

    def offer(
        self,
        key: str,
        number: float,
        unit_name: str,
        at_us: int | None,
        duration_us: int = 0,
        kind: MetricType | None = None,
        *,
        now_us: int,
    ) -> bool:
        """Take one sample, or count why not; `unit_name` is empty for a bare number.

        Without a time of its own (None) it is of now.
        """
        try:
            known = self._spelled.get(key)
            if known is None:
                known = self._meet(key, unit_name, kind, now_us)
            found = known.unit
            if unit_name and unit_name != known.info.unit:
                found = _convertible(known, unit_name)
            if kind is not None and kind != known.info.type:
                said = f"{known.info.key} is a {known.info.type}, not a {kind}"
                raise BadMetric("", said, code="metric_type")
            value = number if found is None else found.to_base(number)
            if not -MAX_VALUE <= value <= MAX_VALUE:
                raise BadMetric("", f"{number:g} is beyond 2^64", code="metric_value")
        except BadMetric as refused:
            self.refuse(key, refused.line)
            return False
        sample = _Sample(known.info, now_us if at_us is None else at_us, value, duration_us)
        if at_us is None or self._clock is None:
            return self._enter(sample, now_us)
        return self._place(self._clock, sample, now_us)

    def _place(self, clock: DutClock, sample: _Sample, now_us: int) -> bool:
        """Move a sample to where the clock of the DUT says, or hold it until that is known."""
        placed = clock.place(sample.at_us, now_us)
        if placed is None and len(self._held) < MAX_HELD:
            self._held.append(sample)
            return True
        at_us = clock.nearest(sample.at_us, now_us) if placed is None else placed
        return self._enter(sample._replace(at_us=at_us), now_us)

    @property
    def held(self) -> int:
        """Return how many samples wait for the next reading of the DUT's clock."""
        return len(self._held)

    def settle(self, now_us: int) -> None:
        """Take what was held, by the best that is known of the DUT's clock now."""
        self._overflow.flush(now_us)
        held, self._held = self._held, []
        for sample in held:
            if self._clock is not None:
                at_us = self._clock.nearest(sample.at_us, now_us)
                self._enter(sample._replace(at_us=at_us), now_us)

    def _enter(self, sample: _Sample, now_us: int) -> bool:
        """Let a sample in whose time can be; what is late may be as late as it likes."""
        info, at_us, value, duration_us = sample
        if not MIN_TIME_US <= at_us < MAX_TIME_US:
            self.refuse(info.key, bad_time(str(at_us), info.key).line)
            return False
        if at_us > now_us + self._ahead_us:
            self.ahead += 1
            self.refuse(info.key, _ahead(at_us - now_us, self._ahead_us, info.key).line)
            return False
        self.taken += 1
        self._take(info, at_us, value, duration_us)
        return True

    def labelled(self, written: str, tags: Mapping[str, str], now_us: int) -> tuple[str, bool]:
        """Return the key that the tags make, and whether some of them are not kept.

        Only those that the metric's declaration allows are. An empty key: that would be one more
        series than it may have, and the sample was counted.
        """
        known = self._spelled.get(written) or self._known.get(_folded(written))
        allowed = known.info.labels if known is not None else ()
        said = [f"{word(name)}_{word(tags[name])}" for name in allowed if name in tags]
        if known is None or not said:
            return written, bool(tags)
        base, key = known.info.key, ".".join((known.info.key, *said))
        if key not in self._known:
            count = self._labelled.get(base, 0)
            if count >= MAX_LABELLED or len(key) > MAX_KEY:
                self._overflow.add(base, now_us)
                self.refuse(key, f"metric_series: beyond {MAX_LABELLED} series of {base}")
                return "", False
            self._labelled[base] = count + 1
            info = MetricInfo(key=key, unit=known.info.unit, type=known.info.type)
            self._known[key] = _Known(info, known.unit, True)
        return key, len(said) < len(tags)

    def _meet(self, written: str, unit_name: str, kind: MetricType | None, now_us: int) -> _Known:
        """Return what is known of a key that was never spelled so before."""
        key = metric_key(written)
        if not is_below(key, self._namespace):
            raise BadMetric("", f"{key} is outside {_own(key, self._namespace)}", code="metric_key")
        known = self._known.get(key)
        if known is None:
            if len(self._known) - sum(self._labelled.values()) >= self._most:
                self._overflow.add(WHOLE, now_us)
                raise BadMetric("", f"more than {self._most} keys", code="metric_key")
            found = _unit(unit_name)
            info = MetricInfo(key=key, unit=found.name, type=kind or "gauge")
            known = self._known[key] = _Known(info, found, False)
        if len(self._spelled) < 4 * self._most:
            self._spelled[written] = known
        return known


def lines_of(values: Iterable[MetricNotice]) -> Iterator[str]:
    """Print notices for people."""
    return (f"{notice.key}: {notice.count} not taken: {notice.reason}" for notice in values)


def _convertible(known: _Known, name: str) -> Unit | None:
    """Return the unit that a number was written in, when it measures the same."""
    found = _unit(name)
    same = known.unit is not None and known.unit.dimension == found.dimension
    if not same:
        said = f"{known.info.key} is in {known.info.unit or 'no unit'}, not in {name}"
        fix = "" if known.declared else "its first sample decided; declare it in load.toml"
        raise BadMetric("", said, fix, code="metric_unit")
    return found


def _unit(name: str) -> Unit:
    try:
        return unit(name)
    except LabError as refused:
        near = nearest(name, UNITS)
        fix = f"nearest: {', '.join(near)}" if near else ""
        raise BadMetric("", refused.what, fix, code="metric_unit") from None


def _ahead(by_us: int, most_us: int, key: str) -> BadMetric:
    said = f"{by_us / 1e6:.6g} s ahead of the clock of the agent, at most {most_us / 1e6:g}"
    return BadMetric(shown(key), said, "set the clock that wrote it", code="metric_ahead")


def _folded(written: str) -> str:
    """Return how a key is kept; what is none stays as it is."""
    return written.replace("::", ".").replace("/", ".").lower()


def _own(key: str, namespace: str) -> str:
    if key.partition(".")[0] in RESERVED:
        return "what a load may write: host, dut and attempt are the agent's"
    return f"the namespace of this load, {namespace}"
