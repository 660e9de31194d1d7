"""PURE. Samples against criteria -> verdict with evidence; no data is error, never pass.

A *source* is the series of one key from one attempt; earlier attempts of a job are left out by
the caller. Sources of a group are taken together. Of several groups the worst decides: fail before
error before marginal before pass, since a proven violation stays one when other data is missing.
"""

from collections.abc import Callable, Iterable

import msgspec

from tshrag_common.criteria import EVERY, MAX_GROUPS, CompiledCriterion, Evidence, Verdict
from tshrag_common.statistics import one_number, unit_of
from tshrag_common.units import UNITS, printed
from tshrag_controller.core.asked import Finding, find, find_absent, find_silence
from tshrag_controller.core.bounds import decisive, in_base, place
from tshrag_controller.core.logic import combined
from tshrag_controller.core.measured import statistic_of
from tshrag_controller.core.source import NoVerdict, Source, in_window, refuse_gaps

__all__ = ["Expected", "Source", "judge"]


class Expected(msgspec.Struct, frozen=True):
    """The groups (ids of jobs, DUTs or hosts) that must have samples, part by part."""

    names: tuple[str, ...] = ()
    parts: tuple["Expected", ...] = ()


def judge(
    criterion: CompiledCriterion,
    sources: Iterable[Source],
    expected: Expected | Iterable[str] = (),
    baseline: Iterable[Source] | None = None,
) -> Evidence:
    """Return the verdict; `sources` of other keys are passed over, their order does not matter.

    `expected` are the groups that must have samples when the scope is not the run: one without
    any is an error. `baseline` has the sources of the run to compare with; None: there is none.
    """
    if not isinstance(expected, Expected):
        expected = Expected(tuple(expected))
    sources = list(sources)
    baseline = None if baseline is None else list(baseline)
    if criterion.logic:
        inside = expected.parts or (Expected(),) * len(criterion.parts)
        parts = tuple(
            judge(part, sources, names, baseline)
            for part, names in zip(criterion.parts, inside, strict=True)
        )
        return combined(criterion, parts)
    return _judge(criterion, sources, expected.names, baseline)


def _judge(
    criterion: CompiledCriterion,
    sources: list[Source],
    expected: tuple[str, ...],
    baseline: list[Source] | None,
) -> Evidence:
    own, criterion = _own(criterion, sources)
    groups = _grouped(criterion, own, expected)
    if criterion.across:
        return _across(criterion, groups)
    others = _others(criterion, sources, baseline)
    found: list[Evidence] = []
    for name in sorted(groups):
        other = None if others is None else others(name)
        found.append(_judge_group(criterion, name, groups[name], other))
    if criterion.scope == "run":
        return found[0]
    return _worst_of(found)


def _own(
    criterion: CompiledCriterion, sources: list[Source]
) -> tuple[list[Source], CompiledCriterion]:
    """Take the sources of the criterion's key, or of its whole key where that has samples."""
    names = (criterion.key, criterion.whole)
    kept = [source for source in sources if source.key in names]
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


def _others(
    criterion: CompiledCriterion, sources: list[Source], baseline: list[Source] | None
) -> Callable[[str], list[Source]] | None:
    """Return what gives a group its counterpart; None: there is no baseline."""
    if not criterion.vs:
        return lambda name: []
    if criterion.vs == "baseline":
        if baseline is None:
            return None
        found = [source for source in baseline if source.key == criterion.key]
    else:
        found = [source for source in sources if source.key == criterion.vs_key]

    def counterpart(name: str) -> list[Source]:
        if criterion.scope == "run":
            return found
        wanted = _place_of(criterion, name)
        return [
            source
            for source in found
            if _place_of(criterion, getattr(source, criterion.scope)) == wanted
        ]

    return counterpart


def _place_of(criterion: CompiledCriterion, name: str) -> str:
    """Return what a group is called in every run: a job by its serial."""
    return name.rpartition("-")[2] if criterion.scope == "job" else name


def _judge_group(
    criterion: CompiledCriterion, group: str, sources: list[Source], others: list[Source] | None
) -> Evidence:
    evidence = _blank(criterion, group, sources)
    try:
        if others is None:
            return _without_baseline(criterion, evidence)
        return _found(criterion, evidence, sources, others)
    except NoVerdict as why:
        return msgspec.structs.replace(evidence, reason=str(why))


def _blank(criterion: CompiledCriterion, group: str, sources: list[Source]) -> Evidence:
    return Evidence(
        criterion=criterion.name,
        metric=criterion.key,
        statistic=criterion.statistic,
        verdict="error",
        reason="",
        scope=criterion.scope,
        group=group,
        samples=sum(len(source.values) for source in sources),
        severity=criterion.severity,
    )


def _without_baseline(criterion: CompiledCriterion, evidence: Evidence) -> Evidence:
    if criterion.without_baseline == "pass":
        said = "there is no baseline to compare with, which passes as asked"
        return msgspec.structs.replace(evidence, verdict="pass", marginal=True, reason=said)
    raise NoVerdict("there is no baseline; name one with --baseline, or let an earlier run pass")


def _found(
    criterion: CompiledCriterion, evidence: Evidence, sources: list[Source], others: list[Source]
) -> Evidence:
    """Ask what the criterion asks; whatever is known to be missing stands in the way."""
    if criterion.absent or criterion.silence_us:
        _refuse_missing(criterion, sources)
        counted = [in_window(criterion, source) for source in sources]
        ask = find_absent if criterion.absent else find_silence
        return _told(criterion, evidence, ask(criterion, counted))
    refuse_gaps(criterion.key, sources)
    counted = [in_window(criterion, source) for source in sources]
    evidence = _with_times(evidence, counted)
    if criterion.vs == "metric" and others:
        refuse_gaps(criterion.vs_key, others)
    against = [in_window(criterion, source) for source in others]
    return _told(criterion, evidence, find(criterion, counted, against))


def _refuse_missing(criterion: CompiledCriterion, sources: list[Source]) -> None:
    missing = sum(source.missing for source in sources)
    if missing:
        raise NoVerdict(f"{missing} samples of {criterion.key} are missing")


def _with_times(evidence: Evidence, sources: list[Source]) -> Evidence:
    told = [source for source in sources if len(source.times)]
    if not told:
        said = f"no samples of {evidence.metric} lie in the window ({evidence.samples} outside)"
        raise NoVerdict(said)
    return msgspec.structs.replace(
        evidence,
        samples=sum(len(source.times) for source in told),
        first_at_us=min(source.span[0] for source in told),
        last_at_us=max(source.span[1] for source in told),
    )


def _told(criterion: CompiledCriterion, evidence: Evidence, finding: Finding) -> Evidence:
    """Put the decisive bound into the evidence, as numbers and as a sentence."""
    held = finding.held
    unit = finding.unit if finding.is_of_time else criterion.unit or finding.unit
    shown: Callable[[float], float] = UNITS[unit].from_base if unit in UNITS else float
    forgiven = held.name.startswith("warn") or finding.excused
    verdict: Verdict = "pass" if held.margin >= 0 or forgiven else "fail"
    return msgspec.structs.replace(
        evidence,
        verdict=verdict,
        marginal=verdict == "pass" and held.margin < 0,
        value=shown(held.value),
        bound=shown(held.bound),
        bound_name=held.name,
        margin=shown(held.margin),
        unit=unit,
        reason=finding.said,
        p_value=finding.p_value,
    )


def _across(criterion: CompiledCriterion, groups: dict[str, list[Source]]) -> Evidence:
    """Judge one number over the statistics of all groups, such as how far DUTs are apart."""
    found = [_measured(criterion, name, groups[name]) for name in sorted(groups)]
    broken = next((each for each in found if each.value is None), None)
    if broken is not None:
        return msgspec.structs.replace(broken, groups=tuple(found[:MAX_GROUPS]))
    sources = [source for name in sorted(groups) for source in groups[name]]
    whole = msgspec.structs.replace(
        found[0], verdict="error", group="", value=None, samples=sum(e.samples for e in found)
    )
    try:
        finding = _found_across(criterion, sources, [each.value or 0.0 for each in found])
    except NoVerdict as why:
        return msgspec.structs.replace(whole, reason=str(why))
    told = _told(criterion, whole, finding)
    shown = UNITS[told.unit].from_base if told.unit in UNITS else float
    kept = (
        msgspec.structs.replace(each, value=shown(each.value or 0.0), unit=told.unit)
        for each in found[:MAX_GROUPS]
    )
    return msgspec.structs.replace(told, groups=tuple(kept))


def _measured(criterion: CompiledCriterion, group: str, sources: list[Source]) -> Evidence:
    """Return the statistic of one group, in its base unit; without a value: why there is none."""
    evidence = _blank(criterion, group, sources)
    try:
        refuse_gaps(criterion.key, sources)
        counted = [in_window(criterion, source) for source in sources]
        evidence = _with_times(evidence, counted)
        value = statistic_of(criterion.statistic, [each for each in counted if len(each.times)])
    except NoVerdict as why:
        where = f"{criterion.scope} {group}: " if group else ""
        return msgspec.structs.replace(evidence, reason=f"{where}{why}")
    return msgspec.structs.replace(evidence, verdict="pass", value=value)


def _found_across(
    criterion: CompiledCriterion, sources: list[Source], values: list[float]
) -> Finding:
    value = one_number(criterion.across, range(len(values)), values)
    if value is None:
        word = f"{criterion.across} across {criterion.scope}s"
        raise NoVerdict(f"{word} needs more than {len(values)} of them")
    unit = unit_of(criterion.statistic, sources[0].unit)
    bounds = [(bound.name, in_base(criterion, bound, unit)) for bound in criterion.bounds]
    worst = decisive(bounds, value, value)
    said = (
        f"{criterion.across} of {criterion.statistic} of {criterion.key} across {len(values)} "
        f"{criterion.scope}s is {printed(worst.value, unit)}, {place(worst, unit)}"
    )
    return Finding(held=worst, unit=unit, said=said)


def _worst_of(found: list[Evidence]) -> Evidence:
    """Return the evidence of the worst group, with that of the others behind it."""
    found = sorted(found, key=lambda each: (_rank(each), _margin(each), each.group))
    counts: dict[str, int] = {}
    for each in found:
        word = "marginal" if each.marginal else each.verdict
        counts[word] = counts.get(word, 0) + 1
    worst = found[0]
    said = ", ".join(f"{n} {word}" for word, n in counts.items())
    where = f"{worst.scope} {worst.group}: " if worst.group else ""
    return msgspec.structs.replace(
        worst,
        reason=f"{where}{worst.reason}; of {len(found)} {worst.scope}s: {said}",
        counts=counts,
        groups=tuple(found[:MAX_GROUPS]),
    )


def _rank(evidence: Evidence) -> int:
    if evidence.verdict == "pass":
        return 2 if evidence.marginal else 3
    return 0 if evidence.verdict == "fail" else 1


def _margin(evidence: Evidence) -> float:
    return 0.0 if evidence.margin is None else evidence.margin
