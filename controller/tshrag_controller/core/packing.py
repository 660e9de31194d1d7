"""PURE: places for several that must all fit at once: where greed fails, a bounded search.

Each asks for slots and resources of a host, and may have one of its options: a host, or a DUT that
a host reaches. No DUT is given twice, no host beyond what it has. Options come best first, so that
of several solutions the one is found in which the first, that has the fewest choices, has its best.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tshrag_common.ids import AgentId, DutId

MOST_ASKS = 16
MOST_STEPS = 4_000
"""Options that are looked at; beyond it the search says that there is no place."""


class Option(NamedTuple):
    """A place that one of them could have."""

    agent: AgentId
    dut: DutId | None = None


class Ask(NamedTuple):
    """What one of them needs. ``uses``: slots and resources of the host, by name."""

    name: str
    uses: Mapping[str, float]
    options: Sequence[Option]


Free = Mapping[AgentId, Mapping[str, float]]


def pack(asks: Sequence[Ask], free: Free, most_steps: int = MOST_STEPS) -> dict[str, Option] | None:
    """Return an option for each, such that all of them hold together; None: none was found.

    With no more than `most_steps` to look at, what is not found does not exist.
    """
    order = sorted(asks, key=lambda ask: (len(ask.options), -sum(ask.uses.values()), ask.name))
    return _Search(order, free, most_steps).run()


class _Search:
    def __init__(self, order: Sequence[Ask], free: Free, most_steps: int) -> None:
        self._order, self._left_steps = order, most_steps
        self._left = {agent: dict(amounts) for agent, amounts in free.items()}
        self._taken: set[DutId] = set()
        self._given: dict[str, Option] = {}

    def run(self) -> dict[str, Option] | None:
        return dict(self._given) if self._place(0) else None

    def _place(self, index: int) -> bool:
        if index == len(self._order):
            return True
        ask = self._order[index]
        for option in ask.options:
            self._left_steps -= 1
            if self._left_steps < 0:
                return False
            left = self._left.get(option.agent, {})
            if option.dut in self._taken or not _holds(left, ask.uses):
                continue
            self._take(ask, option, 1)
            if self._place(index + 1):
                return True
            self._take(ask, option, -1)
        return False

    def _take(self, ask: Ask, option: Option, sign: int) -> None:
        left = self._left[option.agent]
        for name, amount in ask.uses.items():
            left[name] = left.get(name, 0) - sign * amount
        if sign > 0:
            self._given[ask.name] = option
            if option.dut is not None:
                self._taken.add(option.dut)
        else:
            del self._given[ask.name]
            self._taken.discard(option.dut)


def _holds(left: Mapping[str, float], uses: Mapping[str, float]) -> bool:
    return all(amount <= left.get(name, 0) for name, amount in uses.items())
