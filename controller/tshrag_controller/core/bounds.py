"""PURE: a value against its bounds: how far it is from each, and in words."""

from collections.abc import Sequence

import msgspec

from tshrag_common.criteria import CompiledBound, CompiledCriterion
from tshrag_common.units import UNITS, printed
from tshrag_controller.core.source import NoVerdict

SLACK = 1e-12  # limits are inclusive, also for a mean whose last digit was rounded away


class Held(msgspec.Struct, frozen=True):
    """One bound against the value that is worst for it; the margin is negative beyond it."""

    name: str
    bound: float
    value: float
    margin: float


def held(name: str, bound: float, low: float, high: float) -> Held:
    if name == "equals":
        value = low if abs(low - bound) > abs(high - bound) else high
        margin = -abs(value - bound)
    elif name in ("min", "warn_min"):
        value, margin = low, low - bound
    else:
        value, margin = high, bound - high
    if abs(margin) <= SLACK * max(abs(bound), abs(value)):
        margin = 0.0
    return Held(name, bound, value, margin)


def decisive(bounds: Sequence[tuple[str, float]], low: float, high: float) -> Held:
    """Return the bound that decides over values from `low` to `high`.

    That is the worst of the hard ones; where all of those hold, the worst that warns.
    """
    all_held = [held(name, bound, low, high) for name, bound in bounds]
    hard = [each for each in all_held if not each.name.startswith("warn")]
    soft = [each for each in all_held if each.name.startswith("warn") and each.margin < 0]
    worst = min(hard, key=lambda each: each.margin)
    if worst.margin >= 0 and soft:
        return min(soft, key=lambda each: each.margin)
    return worst


def in_base(criterion: CompiledCriterion, bound: CompiledBound, unit: str) -> float:
    """Return the bound in the base unit of the statistic, which is printed in `unit`."""
    found = UNITS.get(unit)
    if bound.dimension is None:
        return found.to_base(bound.number) if found else bound.number
    if found is None or found.dimension != bound.dimension:
        said = f"{criterion.key} was stored in {unit or 'no unit'}, {bound.name} is a "
        fix = "" if unit else "; declare its unit in load.toml or write it behind the value"
        raise NoVerdict(f"{said}{bound.dimension}{fix}")
    return bound.number


def place(held: Held, unit: str) -> str:
    bound, far = printed(held.bound, unit), printed(abs(held.margin), unit)
    if held.name == "equals":
        return f"as asked: {bound}" if held.margin == 0 else f"not {bound}: off by {far}"
    if held.margin == 0:
        return f"right at {held.name} {bound}"
    side = "above" if held.value > held.bound else "below"
    return f"{side} {held.name} {bound} by {far}"


def samples_text(count: int) -> str:
    return "1 sample" if count == 1 else f"{count} samples"
