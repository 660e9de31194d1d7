"""Metrics: their names, units and types; samples in batches.

A key is segments of ``[a-z0-9_]`` joined by ``.``; people may write ``::`` or ``/`` and capitals.
Files use ``::``. Stored numbers are in the base unit of the metric's dimension; its ``unit`` says
how bare numbers are read and how numbers are printed.
"""

import math
import re
import sys
from array import array
from collections.abc import Collection, Iterable, Iterator
from typing import Annotated, Literal, NamedTuple, TypeVar

import msgspec

from tshrag_common.errors import Refused, shown
from tshrag_common.ids import Whole
from tshrag_common.scrapes import LabelName
from tshrag_common.statistics import NAMES
from tshrag_common.units import UNITS

MetricType = Literal["gauge", "counter", "histogram"]

T = TypeVar("T", int, float)

MAX_KEY = 200
MAX_SERIES = 1000  # of one batch
MAX_SAMPLES = 20_000  # of one batch
MAX_VALUE = 2.0**64
MIN_TIME_US = 946_684_800_000_000  # year 2000: before it a clock was never set
MAX_TIME_US = 4_102_444_800_000_000  # year 2100
RESERVED = ("host", "dut", "attempt")
"""Namespaces of the agent's own samplers: no load writes there."""

_KEY = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*", re.ASCII)
_TRAILING = re.compile(
    rf"(.+)\.({'|'.join(NAMES)}|p(?:100|[0-9]{{1,2}}(?:\.[0-9]{{1,2}})?))", re.ASCII
)


class BadMetric(Refused):
    """A key, value or time of a sample that is not taken; ``code`` says which."""

    code = "metric_key"


class MetricInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a key: two definitions with another unit or type are a conflict."""

    key: str
    unit: str = ""
    type: MetricType = "gauge"
    description: str = ""
    labels: Annotated[tuple[LabelName, ...], msgspec.Meta(max_length=8)] = ()  # tags that are kept


def metric_key(text: str, where: str = "") -> str:
    """Return the canonical key: ``Network::Latency`` is ``network.latency``.

    Raises:
        BadMetric: any other character, or more than 200 of them.

    """
    key = text.replace("::", ".").replace("/", ".").lower()
    if len(text) > 2 * MAX_KEY or len(key) > MAX_KEY:
        raise BadMetric(where, f"{shown(text, 40)} is longer than {MAX_KEY}")
    if not text.isascii() or not _KEY.fullmatch(key):
        fix = "use segments of a-z, 0-9 and '_' joined by '.' or '::'"
        raise BadMetric(where, f"{shown(text)} is no metric key", fix)
    return key


def file_name(key: str) -> str:
    """Return the name of the CSV file of `key`: ``network::latency.csv``."""
    return key.replace(".", "::") + ".csv"


def key_of_file(name: str) -> str:
    """Return the key that the CSV file `name` holds; raise BadMetric where it names none."""
    return metric_key(name.removesuffix(".csv"), name)


def split_statistic(key: str, known: Collection[str] = ()) -> tuple[str, str]:
    """Split ``network.latency.p99.9`` into key and statistic; the statistic may be empty.

    A key that is itself in `known` is left whole: ``disk.max`` may be a metric.
    """
    if key in known:
        return key, ""
    found = _TRAILING.fullmatch(key)
    return (found[1], found[2]) if found else (key, "")


def is_below(key: str, namespace: str) -> bool:
    """Tell whether a job with `namespace` (empty: any) may write `key`."""
    if key.partition(".")[0] in RESERVED:
        return False
    return not namespace or key.startswith(namespace + ".")


def conflict(known: MetricInfo, new: MetricInfo) -> str:
    """Return why the two definitions of one key cannot both hold; empty where they can."""
    if known.type != new.type:
        return f"{known.key} is a {known.type}, not a {new.type}"
    if known.unit != new.unit and UNITS.get(known.unit) != UNITS.get(new.unit):
        return f"{known.key} is in {known.unit or 'no unit'}, not in {new.unit or 'no unit'}"
    return ""


class Sample(NamedTuple):
    """One number at one time; a duration makes it hold for a span that begins there."""

    at_us: int
    value: float
    duration_us: int = 0


class Series(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Samples of one key as columns: little-endian int64 times and float64 values.

    ``durations`` are int64 too, or empty where all are 0.
    """

    key: str
    unit: str = ""
    type: MetricType = "gauge"
    times: bytes = b""
    values: bytes = b""
    durations: bytes = b""

    def __len__(self) -> int:
        return len(self.times) // 8

    def columns(self) -> tuple["array[int]", "array[float]"]:
        return unpack_ints(self.times), unpack_floats(self.values)

    def samples(self) -> Iterator[Sample]:
        times, values = self.columns()
        durations = unpack_ints(self.durations) if self.durations else array("q", [0]) * len(times)
        return map(Sample, times, values, durations)


class SampleBatch(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Samples of one attempt, several series at once; its number is in the envelope.

    What an agent measures outside any attempt (its host, an idle DUT) has no run and no job.
    """

    run: str = ""
    job: str = ""
    attempt: Whole = 0  # counts from 1
    dut: str = ""
    series: tuple[Series, ...] = ()

    @property
    def count(self) -> int:
        return sum(len(each) for each in self.series)


def pack(
    info: MetricInfo, times: Iterable[int], values: Iterable[float], durations: Iterable[int] = ()
) -> Series:
    """Make a series of columns; durations that are all 0 are left out."""
    spans = array("q", durations)
    return Series(
        key=info.key,
        unit=info.unit,
        type=info.type,
        times=_bytes(array("q", times)),
        values=_bytes(array("d", values)),
        durations=_bytes(spans) if any(spans) else b"",
    )


def unpack_ints(data: bytes) -> "array[int]":
    return _swapped(array("q", data))


def unpack_floats(data: bytes) -> "array[float]":
    return _swapped(array("d", data))


def check_batch(batch: SampleBatch) -> None:
    """Refuse a batch that an honest agent would not send; it came over a wire.

    Raises:
        BadMetric: with the first thing that is wrong.

    """
    check_size(batch)
    for series in batch.series:
        check_series(series)


def check_size(batch: SampleBatch) -> None:
    """Refuse a batch with too many series or samples."""
    if len(batch.series) > MAX_SERIES or batch.count > MAX_SAMPLES:
        said = f"{len(batch.series)} series with {batch.count} samples"
        raise BadMetric("batch", f"{said}, at most {MAX_SERIES} with {MAX_SAMPLES}", code="limit")


def check_series(series: Series) -> tuple[int, int]:
    """Refuse a series with a bad key, columns, times or values; return its first and last time."""
    if len(series.key) > MAX_KEY or not _KEY.fullmatch(series.key):
        raise BadMetric("batch", f"{shown(series.key)} is no metric key")
    sizes = {len(series.times), len(series.values), len(series.durations or series.times)}
    if len(sizes) != 1 or len(series.times) % 8 or not series.times:
        raise BadMetric(series.key, f"columns of {sorted(sizes)} bytes", code="metric_value")
    times, values = series.columns()
    first, last = min(times), max(times)
    if not MIN_TIME_US <= first <= last < MAX_TIME_US:
        raise BadMetric(series.key, "a time outside 2000..2100", code="metric_time")
    # a NaN or an infinity is in the sum too, and numbers below 2^64 do not add up to one
    if not math.isfinite(sum(values)) or max(max(values), -min(values)) > MAX_VALUE:
        raise BadMetric(series.key, "NaN, infinite or beyond 2^64", code="metric_value")
    if series.durations and min(unpack_ints(series.durations)) < 0:
        raise BadMetric(series.key, "a negative duration", code="metric_time")
    return first, last


def _bytes(column: "array[T]") -> bytes:
    return _swapped(column).tobytes()


def _swapped(column: "array[T]") -> "array[T]":
    if sys.byteorder == "big":
        column.byteswap()
    return column
