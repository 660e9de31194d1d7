"""Who is here: the attempts that live, and those that have ended and whose end is on its way."""

from collections import deque
from typing import Protocol

from tshrag_agent.attempts.stuck import Stuck
from tshrag_agent.leases import Leases
from tshrag_agent.slots import Slots
from tshrag_common.clock import SystemClock
from tshrag_common.commands import CancelAttempt, StartAttempt
from tshrag_common.digest import mix
from tshrag_common.errors import ErrorReport
from tshrag_common.ids import DutId, Fence
from tshrag_common.jobs import JobSpec


class Living(Protocol):
    """An attempt, as far as commands concern it."""

    start: StartAttempt
    spec: JobSpec

    def cancel(self, command: CancelAttempt) -> None:
        """End it; a second time does nothing."""
        ...

    def interrupt(self, error: ErrorReport) -> None:
        """End it for a reason of the agent's own."""
        ...

    async def gone(self) -> None:
        """Return when nothing of it is alive."""
        ...


class Roster:
    """Fences of this agent, with the number that heartbeats carry."""

    def __init__(self, slots: Slots, leases: Leases | None = None) -> None:
        self.live: dict[Fence, Living] = {}
        self.digest = 0
        self.slots = slots
        self.leases = Leases(SystemClock()) if leases is None else leases
        self.stuck = Stuck()
        self._ended: set[Fence] = set()
        self._blamed: dict[DutId, int] = {}
        self._ends = deque[tuple[int, Fence]]()

    def knows(self, fence: Fence) -> bool:
        return fence in self.live or fence in self._ended

    def enter(self, attempt: Living) -> None:
        """Take an attempt in; it is in the journal already."""
        self.live[attempt.start.fence] = attempt
        self.digest ^= mix(attempt.start.fence)

    def end(self, fence: Fence, seq: int) -> None:
        """Take note that report `seq` tells the end of an attempt."""
        if self.live.pop(fence, None) is not None:
            self.digest ^= mix(fence)
        self._ended.add(fence)
        self._ends.append((seq, fence))

    def blame(self, dut: DutId, seq: int) -> None:
        """Take note that report `seq` tells of a DUT that is out of service."""
        self._blamed[dut] = seq

    def confirm(self, upto: int) -> None:
        """Forget the ended, and the DUTs out of service, of which the controller knows for good.

        Whatever it sends from now on was decided with that knowledge.
        """
        for dut, seq in list(self._blamed.items()):
            if seq <= upto:
                del self._blamed[dut]
                self.slots.blame(dut, "")
        while self._ends and self._ends[0][0] <= upto:
            self._ended.discard(self._ends.popleft()[1])
