"""PURE: a verdict and what it rests on, as words."""

from collections.abc import Iterable

from tshrag_common.criteria import Evidence
from tshrag_common.units import UNITS
from tshrag_controller.reports.text import clean

_NO_VALUE = ("count", "sum", "stdev", "rate")  # other numbers than those of the samples
_SIGNS = {
    "min": "≥",
    "max": "≤",
    "equals": "=",
    "warn_min": "≥",
    "warn_max": "≤",
    "for": "<",
    "silence": "≤",
    "absent": "=",
}


def value_text(evidence: Evidence) -> str:
    """Return the value; a dash where there was no data."""
    return _number(evidence.value, evidence.unit)


def bound_text(evidence: Evidence) -> str:
    """Return ``≤ 150 ms``: the bound that decided."""
    if evidence.bound is None:
        return "-"
    sign = _SIGNS.get(evidence.bound_name, evidence.bound_name)
    return f"{clean(sign)} {_number(evidence.bound, evidence.unit)}"


def margin_text(evidence: Evidence) -> str:
    """Return the distance to the bound, negative beyond it."""
    return _number(evidence.margin, evidence.unit)


def asked_text(evidence: Evidence) -> str:
    """Return ``avg of network.latency``: what was asked."""
    if evidence.parts:
        return f"{clean(evidence.statistic)} of {len(evidence.parts)} criteria"
    where = f" of {clean(evidence.scope)} {clean(evidence.group)}" if evidence.group else ""
    return f"{clean(evidence.statistic)} of {clean(evidence.metric)}{where}"


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    glue = "" if unit in ("", "%") else " "
    return f"{value:.6g}{glue}{clean(unit)}"


def bounds_of(evidence: Iterable[Evidence], key: str) -> tuple[float, ...]:
    """Return the bounds on the samples of `key`, in the base unit, to be drawn as lines."""
    found: dict[float, None] = {}
    for each in evidence:
        if each.metric == key and each.bound is not None and each.statistic not in _NO_VALUE:
            unit = UNITS.get(each.unit)
            found[unit.to_base(each.bound) if unit else each.bound] = None
    return tuple(found)
