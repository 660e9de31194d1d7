"""PURE: what a criterion asks of one group of sources, and which bound decides.

Each kind of question gives a Finding: the value that counts, the bound that decides, and the words
for both. Whatever stands in the way of an answer raises NoVerdict; that is an error, never a pass.
"""

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from tshrag_common.criteria import EVERY, CompiledCriterion
from tshrag_common.statistics import unit_of
from tshrag_common.units import printed
from tshrag_controller.core.bounds import Held, decisive, held, in_base, place, samples_text
from tshrag_controller.core.changes import Change, change_of
from tshrag_controller.core.measured import statistic_of
from tshrag_controller.core.source import NoVerdict, Source


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The value that decides and its bound, in base units of what is printed in ``unit``."""

    held: Held
    unit: str
    said: str
    excused: bool = False  # beyond its bound, and yet no failure
    p_value: float | None = None
    is_of_time: bool = False  # a duration or a count, not a value of the metric


def find(criterion: CompiledCriterion, sources: list[Source], others: list[Source]) -> Finding:
    """Return what samples in the window say; `others` is what they are compared with."""
    sources = [source for source in sources if len(source.times)]
    if criterion.vs:
        return _change(criterion, sources, [source for source in others if len(source.times)])
    unit = unit_of(criterion.statistic if criterion.statistic != EVERY else "avg", sources[0].unit)
    if criterion.for_us:
        return _lasting(criterion, sources, unit)
    bounds = [(bound.name, in_base(criterion, bound, unit)) for bound in criterion.bounds]
    if criterion.over_us:
        return _stretches(criterion, sources, bounds, unit)
    if criterion.statistic != EVERY:
        value = statistic_of(criterion.statistic, sources)
        worst = decisive(bounds, value, value)
        return Finding(held=worst, unit=unit, said=_sentence(criterion, sources, worst, unit))
    low = min(min(source.values) for source in sources)
    high = max(max(source.values) for source in sources)
    worst = decisive(bounds, low, high)
    return Finding(held=worst, unit=unit, said=_sentence(criterion, sources, worst, unit))


def find_absent(criterion: CompiledCriterion, sources: list[Source]) -> Finding:
    """Return whether there are no samples, as it is asked."""
    count = sum(len(source.times) for source in sources)
    said = f"there are {samples_text(count)} of {criterion.key}, none must be there"
    if not count:
        said = f"there are no samples of {criterion.key}, as asked"
    worst = Held("absent", 0.0, float(count), -float(count))
    return Finding(held=worst, unit="", said=said, is_of_time=True)


def find_silence(criterion: CompiledCriterion, sources: list[Source]) -> Finding:
    """Return the longest stretch without a sample: also before the first and after the last."""
    gaps = [gap for source in sources if (gap := _longest_gap(criterion, source)) is not None]
    if not gaps:
        raise NoVerdict(f"no samples of {criterion.key} were stored, and when it began is unknown")
    most, bound = max(gaps) / 1e6, criterion.silence_us / 1e6
    worst = held("max", bound, most, most)
    worst = msgspec.structs.replace(worst, name="silence")
    said = (
        f"{criterion.key} was silent for at most {printed(most, 's')}, {place(worst, 's')} "
        f"({samples_text(sum(len(source.times) for source in sources))})"
    )
    return Finding(held=worst, unit="s", said=said, is_of_time=True)


def _longest_gap(criterion: CompiledCriterion, source: Source) -> int | None:
    times = sorted(source.times)
    began = source.started_at + criterion.after_us if source.started_at else 0
    ended = source.ended_at
    if began and criterion.before_us is not None:
        before = source.started_at + criterion.before_us
        ended = min(ended, before) if ended else before
    marks = ([began] if began else []) + times + ([ended] if ended else [])
    if len(marks) < 2:
        return None
    return max(later - earlier for earlier, later in pairwise(marks))


def _lasting(criterion: CompiledCriterion, sources: list[Source], unit: str) -> Finding:
    """Return for how long a bound was broken without a break."""
    found: list[tuple[float, str, float]] = []  # (seconds, name of the bound, the bound)
    for bound in criterion.bounds:
        number = in_base(criterion, bound, unit)
        longest = max(_longest_breach(source, bound.name, number) for source in sources)
        found.append((longest / 1e6, bound.name, number))
    hard = [each for each in found if not each[1].startswith("warn")]
    most, name, number = max(hard)
    asked = criterion.for_us / 1e6
    excused = False
    if most < asked:
        soft = [each for each in found if each[1].startswith("warn") and each[0] >= asked]
        if soft:
            most, name, number = max(soft)
            excused = True
    too_long = most >= asked  # as long as is asked is too long
    worst = Held("for", asked, most, min(asked - most, -1e-12) if too_long else asked - most)
    beyond = "off" if name == "equals" else "below" if name.endswith("min") else "above"
    span, least = printed(most, "s"), printed(asked, "s")
    verdict = f"{least} or more is too long" if too_long else f"less than {least}"
    said = (
        f"{criterion.key} was {beyond} {name} {printed(number, unit)} for at most {span} "
        f"without a break, {verdict} "
        f"({samples_text(sum(len(source.times) for source in sources))})"
    )
    return Finding(held=worst, unit="s", said=said, excused=excused, is_of_time=True)


def _longest_breach(source: Source, name: str, bound: float) -> int:
    """Return the longest time from a sample beyond the bound to the next one inside it.

    At the end, where none follows, up to the last sample.
    """
    longest, since = 0, -1
    for at, value in sorted(zip(source.times, source.values, strict=True)):
        broken = held(name, bound, value, value).margin < 0
        if since >= 0:
            longest = max(longest, at - since)
        since = (at if since < 0 else since) if broken else -1
    return longest


def _stretches(
    criterion: CompiledCriterion,
    sources: list[Source],
    bounds: Sequence[tuple[str, float]],
    unit: str,
) -> Finding:
    """Return the worst of the statistics of stretches that follow each other."""
    values = [value for source in sources for value in _of_stretches(criterion, source)]
    worst = decisive(bounds, min(values), max(values))
    span = printed(criterion.over_us / 1e6, "s")
    counted = samples_text(sum(len(source.times) for source in sources))
    said = (
        f"{criterion.statistic} of {criterion.key} over {span} is at worst "
        f"{printed(worst.value, unit)}, {place(worst, unit)} ({len(values)} stretches, {counted})"
    )
    return Finding(held=worst, unit=unit, said=said)


def _of_stretches(criterion: CompiledCriterion, source: Source) -> list[float]:
    """Return the statistic of each stretch; a last one that is not whole is left out."""
    span = criterion.over_us
    begin = (source.started_at or min(source.times)) + criterion.after_us
    rows: dict[int, tuple[list[int], list[float]]] = {}
    for at, value in zip(source.times, source.values, strict=True):
        times, values = rows.setdefault(max(0, at - begin) // span, ([], []))
        times.append(at)
        values.append(value)
    end = max(source.ended_at, max(source.times) + 1)
    if criterion.before_us is not None:
        end = min(end, begin - criterion.after_us + criterion.before_us)
    whole = max(1, (end - begin) // span)
    found: list[float] = []
    for number in range(whole):
        times, values = rows.get(number, ([], []))
        if not times and criterion.statistic != "count":
            since, to = (printed(n * span / 1e6, "s") for n in (number, number + 1))
            raise NoVerdict(f"no samples of {criterion.key} from {since} to {to}")
        part = msgspec.structs.replace(source, times=times, values=values)
        found.append(statistic_of(criterion.statistic, [part]) if times else 0.0)
    return found


def _change(criterion: CompiledCriterion, sources: list[Source], others: list[Source]) -> Finding:
    """Return by how much the value differs from the other one."""
    change = change_of(criterion, sources, others)
    unit = "%" if criterion.relative else unit_of(criterion.statistic, sources[0].unit)
    bounds = [
        (bound.name, bound.number if criterion.relative else in_base(criterion, bound, unit))
        for bound in criterion.bounds
    ]
    worst = decisive(bounds, change.value, change.value)
    excused = False
    if worst.margin < 0 and criterion.significance:
        if change.p_value is None:
            counts = f"{change.samples} and {change.other_samples} samples"
            raise NoVerdict(f"{counts} of {criterion.key} do not suffice to test a change")
        excused = change.p_value >= criterion.significance
    said = _change_sentence(criterion, sources, change, worst, excused)
    return Finding(held=worst, unit=unit, said=said, excused=excused, p_value=change.p_value)


def _change_sentence(
    criterion: CompiledCriterion,
    sources: list[Source],
    change: Change,
    worst: Held,
    excused: bool,
) -> str:
    own = unit_of(criterion.statistic, sources[0].unit)
    unit = "%" if criterion.relative else own
    other = "the baseline" if criterion.vs == "baseline" else criterion.vs_key
    sign = "+" if change.value > 0 else ""
    chance = "too few samples for a test"
    if change.p_value is not None:
        chance = f"p = {change.p_value:.2g}"
    said = (
        f"{criterion.statistic} of {criterion.key} is {printed(change.now, own)}, "
        f"{other} has {printed(change.other, own)}: {sign}{printed(change.value, unit)}, "
        f"{place(worst, unit)} ({change.samples} and {change.other_samples} samples, {chance})"
    )
    if excused:
        said += f"; not significant at {criterion.significance:g}"
    return said


def _sentence(criterion: CompiledCriterion, sources: list[Source], held_: Held, unit: str) -> str:
    every = criterion.statistic == EVERY
    subject = criterion.key if every else f"{criterion.statistic} of {criterion.key}"
    verb = "is at worst" if every else "is"
    said = f"{subject} {verb} {printed(held_.value, unit)}, {place(held_, unit)}"
    if held_.name.startswith("warn"):
        said += ", which still passes"
    counted = samples_text(sum(len(source.values) for source in sources))
    if every and held_.margin < 0:
        beyond = sum(
            held(held_.name, held_.bound, value, value).margin < 0
            for source in sources
            for value in source.values
        )
        counted = f"{beyond} of {counted}"
    return f"{said} ({counted})"
