"""PURE: a value against that of another metric, or of the baseline run."""

from itertools import chain

import msgspec

from tshrag_common.criteria import CompiledCriterion
from tshrag_common.significance import chance_of
from tshrag_controller.core.measured import statistic_of
from tshrag_controller.core.source import NoVerdict, Source


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Both values in base units; ``value`` is the change, a ratio where it is relative.

    ``p_value``: how likely a difference as large is by chance; None: that cannot be told.
    """

    now: float
    other: float
    value: float
    samples: int
    other_samples: int
    p_value: float | None


def change_of(criterion: CompiledCriterion, sources: list[Source], others: list[Source]) -> Change:
    """Compare the samples of a group with those of its counterpart.

    Raises:
        NoVerdict: there is nothing to compare with, or a change in percent says nothing.

    """
    against = "the baseline" if criterion.vs == "baseline" else criterion.vs_key
    if not others:
        raise NoVerdict(f"{against} has no samples to compare with")
    if others[0].unit != sources[0].unit:
        units = f"{sources[0].unit or 'no unit'} and {others[0].unit or 'no unit'}"
        raise NoVerdict(f"{criterion.key} and {against} are in {units}")
    now = statistic_of(criterion.statistic, sources)
    other = statistic_of(criterion.vs_statistic, others)
    value = now - other
    if criterion.relative:
        if other == 0 and now != 0:
            raise NoVerdict(f"{against} is 0: a change in percent says nothing; write it in units")
        value = value / abs(other) if other else 0.0
    mine = list(chain.from_iterable(source.values for source in sources))
    theirs = list(chain.from_iterable(source.values for source in others))
    same = criterion.statistic == criterion.vs_statistic
    return Change(
        now=now,
        other=other,
        value=value,
        samples=len(mine),
        other_samples=len(theirs),
        p_value=chance_of(criterion.statistic, mine, theirs) if same else None,
    )
