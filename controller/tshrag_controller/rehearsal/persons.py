"""PURE: people in a rehearsal, who lease and reserve boards; and the chance that the lab fails."""

from collections.abc import Iterable

from tshrag_common.digest import mix
from tshrag_common.errors import LabError
from tshrag_common.ids import DutId, Fence, OrgId
from tshrag_common.work import YEAR_S, WorkLine
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.lease_events import DutReserved, LeaseAsked
from tshrag_controller.core.leases import on_take
from tshrag_controller.core.on_reserve import on_reserve

BEGAN_US = 1_800_000_000_000_000
"""Any instant will do; ids of runs are made from it."""
S = 1_000_000


def chance(seed: int, fence: Fence) -> float:
    """Return a number in [0, 1) for an attempt: the same for the same seed."""
    return mix(mix(seed & (1 << 64) - 1) ^ fence) / (1 << 64)


class Persons:
    """Who wants which board from when on; each keeps it for as long as their line says."""

    def __init__(self, lines: Iterable[WorkLine]) -> None:
        self._reserved = [line for line in lines if line.reserved]
        self._asked: dict[str, int] = {}  # lease -> since when it is waited for
        self._waits: list[float] = []
        self._refused = 0

    def reserve(self, decision: Decision) -> None:
        """Let all reservations be made before anything else happens."""
        for number, line in enumerate(self._reserved):
            start = BEGAN_US + round(line.at * S)
            name = f"reserved-{number}"
            asked = DutReserved(
                reservation=name, dut=DutId(line.dut), org=OrgId(line.org), by=line.name,
                start=start, end=start + round(line.seconds * S),
            )  # fmt: skip
            try:
                on_reserve(decision, asked, "", {})
                self._asked[name] = start
            except LabError:
                self._refused += 1

    def ask(self, decision: Decision, line: WorkLine) -> None:
        """Let a person stand in line, who does not give up."""
        if line.reserved:
            return
        name = f"lease-{len(self._asked) + len(self._waits) + self._refused}"
        asked = LeaseAsked(
            lease=name, org=OrgId(line.org), by=line.name, priority=line.priority, dut=line.dut,
            kind=line.kind, alive_until=BEGAN_US + 2 * YEAR_S * S, for_us=round(line.seconds * S),
        )  # fmt: skip
        try:
            on_take(decision, asked, wait=True)
            self._asked[name] = decision.now
        except LabError:
            self._refused += 1

    def look(self, lab: Lab, now: int) -> None:
        """See who has their board now."""
        for lease in lab.people.leases.values():
            since = self._asked.pop(lease.id, None)
            if since is not None:
                self._waits.append(max(0, now - since) / S)

    def result(self) -> tuple[tuple[float, ...], int]:
        """Return how long each waited, and how many never had a board."""
        return tuple(self._waits), self._refused + len(self._asked)
