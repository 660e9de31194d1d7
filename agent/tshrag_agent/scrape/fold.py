"""PURE. Points of an exposition -> numbers by metric key.

Labels that are allowed become segments of the key; ``le`` and ``quantile`` always do, or a
histogram would be nonsense. Series that only differ in other labels are one key: counters are
added up, gauges cannot be and are refused.
"""

from collections.abc import Iterable
from typing import NamedTuple

from tshrag_agent.results.forms import word
from tshrag_agent.scrape.exposition import Point
from tshrag_common.metrics import MetricType
from tshrag_common.scrapes import Scrape

_ALWAYS = ("le", "quantile")


class Folded(NamedTuple):
    """The numbers of one scrape; `refused` says why by key."""

    numbers: dict[str, tuple[MetricType, float]]
    refused: dict[str, str]


def fold(points: Iterable[Point], scrape: Scrape, prefix: str) -> Folded:
    """Return the numbers below `prefix`."""
    numbers: dict[str, tuple[MetricType, float]] = {}
    refused: dict[str, str] = {}
    for point in points:
        key = key_of(point, scrape, prefix)
        known = numbers.get(key)
        if known is None:
            numbers[key] = (point.type, point.value)
        elif known[0] == point.type == "counter":
            numbers[key] = ("counter", known[1] + point.value)
        else:
            others = ", ".join(sorted(point.labels.keys() - {*scrape.labels, *_ALWAYS}))
            refused[key] = f"metric_series: several series; allow the labels {others or 'apart'}"
    for key in refused:
        del numbers[key]
    return Folded(numbers, refused)


def key_of(point: Point, scrape: Scrape, prefix: str) -> str:
    """Return ``prefix.name.label_value``, with the labels in the order of the manifest."""
    kept = dict.fromkeys((*scrape.labels, *_ALWAYS))
    said = (f"{word(name)}_{word(point.labels[name])}" for name in kept if name in point.labels)
    return ".".join((prefix, word(point.name), *said))
