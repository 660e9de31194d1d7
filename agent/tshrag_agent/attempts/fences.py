"""PURE: the newest command that was heard, the newest fence of every DUT.

A fence only grows. What is not newer than what has been seen comes late, twice or out of order,
and does nothing.
"""

from collections.abc import Mapping

from tshrag_common.errors import StaleFence
from tshrag_common.ids import DutId, Fence


class Fences:
    """What this agent has seen; the journal keeps the same."""

    def __init__(
        self, heard: tuple[int, int] = (0, 0), duts: Mapping[DutId, Fence] | None = None
    ) -> None:
        self.heard = heard
        self._duts = dict(duts or {})

    def hear(self, epoch: int, n: int) -> bool:
        """Take note of a message of commands; false: it is not newer than the newest."""
        if (epoch, n) <= self.heard:
            return False
        self.heard = (epoch, n)
        return True

    def check(self, dut: DutId, fence: Fence) -> None:
        """Raise StaleFence unless `fence` is higher than every one that the DUT has seen."""
        newest = self._duts.get(dut, 0)
        if fence <= newest:
            raise StaleFence(fence, newest)

    def take(self, dut: DutId, fence: Fence) -> None:
        """Take note that `fence` was accepted for the DUT."""
        self._duts[dut] = max(fence, self._duts.get(dut, fence))

    def newest(self, dut: DutId) -> int:
        return self._duts.get(dut, 0)
