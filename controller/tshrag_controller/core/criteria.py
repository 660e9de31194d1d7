"""PURE. Samples against criteria -> verdict with evidence; no data is error, never pass.

A *source* is the series of one key from one attempt; earlier attempts of a job are left out by
the caller. Sources of a group are taken together: for a counter ``last`` and ``rate`` add up over
its sources, everything else is computed over all samples. Of several groups the worst decides:
fail before error before marginal before pass, since a proven violation stays one when other data
is missing.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import msgspec

from tshrag_common.criteria import (
    EVERY,
    MAX_GROUPS,
    BoundName,
    CompiledBound,
    CompiledCriterion,
    Evidence,
    Verdict,
)
from tshrag_common.metrics import MetricType
from tshrag_common.statistics import one_number, unit_of
from tshrag_common.units import UNITS, printed

SLACK = 1e-12  # limits are inclusive, also for a mean whose last digit was rounded away


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of one key from one attempt, in base units, in any order.

    ``missing`` counts samples that are known to exist and did not arrive; ``stale`` says why the
    source was given up while it should have spoken. Start and end are those of the attempt; 0:
    those of the samples.
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


class _NoVerdict(Exception):
    """These samples cannot be judged; the message says why."""


def judge(
    criterion: CompiledCriterion, sources: Iterable[Source], expected: Iterable[str] = ()
) -> Evidence:
    """Return the verdict; `sources` of other keys are passed over, their order does not matter.

    `expected` are the groups (ids of jobs, DUTs or hosts) that must have samples when the scope
    is not the run: one without any is an error.
    """
    own, criterion = _own(criterion, sources)
    groups = _grouped(criterion, own, expected)
    found = [_judge_group(criterion, name, groups[name]) for name in sorted(groups)]
    if criterion.scope == "run":
        return found[0]
    return _worst_of(found)


def _own(
    criterion: CompiledCriterion, sources: Iterable[Source]
) -> tuple[list[Source], CompiledCriterion]:
    """Take the sources of the criterion's key, or of its whole key where that has samples."""
    kept = [source for source in sources if source.key in criterion.keys]
    kept.sort(key=lambda source: (source.job, source.dut, source.host, source.started_at))
    if criterion.whole and any(source.values for source in kept if source.key == criterion.whole):
        criterion = msgspec.structs.replace(
            criterion, key=criterion.whole, whole="", statistic=EVERY
        )
    return [source for source in kept if source.key == criterion.key], criterion


def _grouped(
    criterion: CompiledCriterion, sources: list[Source], expected: Iterable[str]
) -> dict[str, list[Source]]:
    if criterion.scope == "run":
        return {"": sources}
    groups: dict[str, list[Source]] = {name: [] for name in expected}
    for source in sources:
        groups.setdefault(getattr(source, criterion.scope), []).append(source)
    return groups or {"": []}


def _judge_group(criterion: CompiledCriterion, group: str, sources: list[Source]) -> Evidence:
    evidence = Evidence(
        criterion=criterion.name,
        metric=criterion.key,
        statistic=criterion.statistic,
        verdict="error",
        reason="",
        scope=criterion.scope,
        group=group,
        samples=sum(len(source.values) for source in sources),
    )
    try:
        _refuse_gaps(criterion.key, sources)
        counted = [_in_window(criterion, source) for source in sources]
        evidence = _with_times(evidence, counted)
        return _compare(criterion, evidence, counted)
    except _NoVerdict as why:
        return msgspec.structs.replace(evidence, reason=str(why))


def _refuse_gaps(key: str, sources: list[Source]) -> None:
    if not any(len(source.values) for source in sources):
        raise _NoVerdict(f"no samples of {key} were stored; does the load emit that key?")
    for source in sources:
        if source.stale:
            raise _NoVerdict(f"samples of {key} are stale: {source.stale}")
        if source.missing:
            raise _NoVerdict(f"{source.missing} samples of {key} are missing")
        if len(source.times) != len(source.values):
            raise _NoVerdict(f"{key} has {len(source.times)} times, {len(source.values)} values")
        if not all(map(math.isfinite, source.values)):
            raise _NoVerdict(f"samples of {key} are not all numbers")
    kinds = {(source.unit, source.type) for source in sources}
    if len(kinds) > 1:
        said = " and ".join(sorted(f"{kind} in {unit or 'no unit'}" for unit, kind in kinds))
        raise _NoVerdict(f"{key} was stored as {said}")


def _in_window(criterion: CompiledCriterion, source: Source) -> Source:
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


def _with_times(evidence: Evidence, sources: list[Source]) -> Evidence:
    times = [source.times for source in sources if len(source.times)]
    if not times:
        said = f"no samples of {evidence.metric} lie in the window ({evidence.samples} outside)"
        raise _NoVerdict(said)
    return msgspec.structs.replace(
        evidence,
        samples=sum(map(len, times)),
        first_at_us=min(map(min, times)),
        last_at_us=max(map(max, times)),
    )


def _compare(criterion: CompiledCriterion, evidence: Evidence, sources: list[Source]) -> Evidence:
    sources = [source for source in sources if len(source.times)]
    unit = unit_of(criterion.statistic if criterion.statistic != EVERY else "avg", sources[0].unit)
    bounds = [(bound.name, _in_base(criterion, bound, unit)) for bound in criterion.bounds]
    if criterion.statistic == EVERY:
        low = min(min(source.values) for source in sources)
        high = max(max(source.values) for source in sources)
    else:
        low = high = _statistic(criterion, sources)
    held = [_held(name, bound, low, high) for name, bound in bounds]
    hard = [each for each in held if not each.name.startswith("warn")]
    soft = [each for each in held if each.name.startswith("warn") and each.margin < 0]
    worst = min(hard, key=lambda each: each.margin)
    marginal = worst.margin >= 0 and bool(soft)
    decisive = min(soft, key=lambda each: each.margin) if marginal else worst
    return _told(criterion, evidence, sources, decisive, unit)


class _Held(msgspec.Struct, frozen=True):
    """One bound against the value that is worst for it; the margin is negative beyond it."""

    name: BoundName
    bound: float
    value: float
    margin: float


def _held(name: BoundName, bound: float, low: float, high: float) -> _Held:
    if name == "equals":
        value = low if abs(low - bound) > abs(high - bound) else high
        margin = -abs(value - bound)
    elif name in ("min", "warn_min"):
        value, margin = low, low - bound
    else:
        value, margin = high, bound - high
    if abs(margin) <= SLACK * max(abs(bound), abs(value)):
        margin = 0.0
    return _Held(name, bound, value, margin)


def _in_base(criterion: CompiledCriterion, bound: CompiledBound, unit: str) -> float:
    """Return the bound in the base unit of the statistic, which is printed in `unit`."""
    found = UNITS.get(unit)
    if bound.dimension is None:
        return found.to_base(bound.number) if found else bound.number
    if found is None or found.dimension != bound.dimension:
        said = f"{criterion.key} was stored in {unit or 'no unit'}, {bound.name} is a "
        fix = "" if unit else "; declare its unit in load.toml or write it behind the value"
        raise _NoVerdict(f"{said}{bound.dimension}{fix}")
    return bound.number


def _statistic(criterion: CompiledCriterion, sources: list[Source]) -> float:
    name, counter = criterion.statistic, sources[0].type == "counter"
    if counter and name == "last":
        return math.fsum(_of(name, source, criterion) for source in sources)
    if counter and name == "rate" and len(sources) > 1:
        return _total_rate(criterion, sources)
    if len(sources) == 1:
        return _of(name, sources[0], criterion, counter)
    times = list(chain.from_iterable(source.times for source in sources))
    values = list(chain.from_iterable(source.values for source in sources))
    merged = Source(key=criterion.key, times=times, values=values)
    return _of(name, merged, criterion, counter)


def _total_rate(criterion: CompiledCriterion, sources: list[Source]) -> float:
    """Return what all sources grew by, over the time from the first to the last sample."""
    spans = [(min(source.times), max(source.times)) for source in sources]
    grown = math.fsum(
        _of("rate", source, criterion, True) * (end - start)
        for source, (start, end) in zip(sources, spans, strict=True)
    )
    return grown / (max(end for _, end in spans) - min(start for start, _ in spans))


def _of(name: str, source: Source, criterion: CompiledCriterion, counter: bool = False) -> float:
    value = one_number(name, source.times, source.values, counter=counter)
    if value is None or not math.isfinite(value):
        raise _NoVerdict(
            f"{name} of {criterion.key} needs more than {_samples(len(source.values))}"
        )
    return value


def _told(
    criterion: CompiledCriterion, evidence: Evidence, sources: list[Source], held: _Held, unit: str
) -> Evidence:
    """Put the decisive bound into the evidence, as numbers and as a sentence."""
    unit = criterion.unit or unit
    shown: Callable[[float], float] = UNITS[unit].from_base if unit in UNITS else float
    verdict: Verdict = "pass" if held.margin >= 0 or held.name.startswith("warn") else "fail"
    return msgspec.structs.replace(
        evidence,
        verdict=verdict,
        marginal=verdict == "pass" and held.margin < 0,
        value=shown(held.value),
        bound=shown(held.bound),
        bound_name=held.name,
        margin=shown(held.margin),
        unit=unit,
        reason=_sentence(criterion, sources, held, unit),
    )


def _sentence(criterion: CompiledCriterion, sources: list[Source], held: _Held, unit: str) -> str:
    every = criterion.statistic == EVERY
    subject = criterion.key if every else f"{criterion.statistic} of {criterion.key}"
    verb = "is at worst" if every else "is"
    said = f"{subject} {verb} {printed(held.value, unit)}, {_place(held, unit)}"
    if held.name.startswith("warn"):
        said += ", which still passes"
    counted = _samples(sum(len(source.values) for source in sources))
    if every and held.margin < 0:
        beyond = sum(
            _held(held.name, held.bound, value, value).margin < 0
            for source in sources
            for value in source.values
        )
        counted = f"{beyond} of {counted}"
    return f"{said} ({counted})"


def _place(held: _Held, unit: str) -> str:
    bound, far = printed(held.bound, unit), printed(abs(held.margin), unit)
    if held.name == "equals":
        return f"as asked: {bound}" if held.margin == 0 else f"not {bound}: off by {far}"
    if held.margin == 0:
        return f"right at {held.name} {bound}"
    side = "above" if held.value > held.bound else "below"
    return f"{side} {held.name} {bound} by {far}"


def _worst_of(found: list[Evidence]) -> Evidence:
    """Return the evidence of the worst group, with that of the others behind it."""
    found = sorted(found, key=lambda each: (_rank(each), _margin(each), each.group))
    counts: dict[str, int] = {}
    for each in found:
        word = "marginal" if each.marginal else each.verdict
        counts[word] = counts.get(word, 0) + 1
    worst = found[0]
    said = ", ".join(f"{n} {word}" for word, n in counts.items())
    place = f"{worst.scope} {worst.group}: " if worst.group else ""
    return msgspec.structs.replace(
        worst,
        reason=f"{place}{worst.reason}; of {len(found)} {worst.scope}s: {said}",
        counts=counts,
        groups=tuple(found[:MAX_GROUPS]),
    )


def _rank(evidence: Evidence) -> int:
    if evidence.verdict == "pass":
        return 2 if evidence.marginal else 3
    return 0 if evidence.verdict == "fail" else 1


def _margin(evidence: Evidence) -> float:
    return 0.0 if evidence.margin is None else evidence.margin


def _samples(count: int) -> str:
    return "1 sample" if count == 1 else f"{count} samples"
