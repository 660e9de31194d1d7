"""PURE: the statistic of some samples, whichever attempts they come from."""

import math
from itertools import chain

from tshrag_common.statistics import one_number, quantile_of, quantile_percent
from tshrag_controller.core.bounds import samples_text
from tshrag_controller.core.source import NoVerdict, Source


def statistic_of(name: str, sources: list[Source]) -> float:
    """Return a statistic over sources of one key that are taken together.

    Of a counter ``last`` and ``rate`` add up over its sources; all else is over all samples.

    Raises:
        NoVerdict: there are too few samples for it.

    """
    counter = sources[0].type == "counter"
    if counter and name == "last":
        return math.fsum(_of(name, source) for source in sources)
    if counter and name == "rate" and len(sources) > 1:
        return _total_rate(sources)
    if len(sources) == 1:
        return _of(name, sources[0])
    times = list(chain.from_iterable(source.times for source in sources))
    values = list(chain.from_iterable(source.values for source in sources))
    merged = Source(key=sources[0].key, times=times, values=values, type=sources[0].type)
    return _of(name, merged)


def _total_rate(sources: list[Source]) -> float:
    """Return what all sources grew by, over the time from the first to the last sample."""
    spans = [(min(source.times), max(source.times)) for source in sources]
    grown = math.fsum(
        _of("rate", source) * (end - start)
        for source, (start, end) in zip(sources, spans, strict=True)
    )
    return grown / (max(end for _, end in spans) - min(start for start, _ in spans))


def _of(name: str, source: Source) -> float:
    counter = source.type == "counter"
    percent = quantile_percent(name)
    if percent is not None and len(source.values):
        return quantile_of(source.ordered, percent)
    value = one_number(name, source.times, source.values, counter=counter)
    if value is None or not math.isfinite(value):
        raise NoVerdict(
            f"{name} of {source.key} needs more than {samples_text(len(source.values))}"
        )
    return value
