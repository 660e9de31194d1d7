"""PURE: may this attempt start now? Slots of the host, holds of DUTs.

A job on the host takes slots; a job on a DUT takes its DUT instead. A DUT that an older attempt
still holds is not refused to a newer one: the controller has given the older one up, so the
agent ends it first.
"""

from collections.abc import Mapping

from tshrag_common.commands import StartAttempt
from tshrag_common.errors import ErrorReport, did_you_mean, shown
from tshrag_common.ids import DutId, Fence
from tshrag_common.inventory import Dut
from tshrag_common.jobs import JobSpec


class Slots:
    """What the host and its DUTs have to give, and who holds it."""

    def __init__(self, total: int, duts: Mapping[DutId, Dut]) -> None:
        self.total = total
        self.free = total
        self._duts = dict(duts)
        self._faulty: dict[DutId, str] = {}
        self._slots: dict[Fence, int] = {}
        self._holds: dict[DutId, Fence] = {}

    def refusal(self, start: StartAttempt, spec: JobSpec) -> ErrorReport | None:
        """Return why this attempt cannot start here and now; None: it may."""
        if not spec.is_placed:
            return _no("not_placed", f"a {spec.kind} is not executed by an agent")
        if not spec.need.wants_dut:
            return self._lack_of_slots(spec)
        if start.dut is None:
            return _no(
                "no_dut", f"the job wants a DUT over {spec.need.target.runtime}, none is named"
            )
        return self._lack_of_dut(start.dut, spec)

    def take(self, start: StartAttempt, spec: JobSpec) -> Fence | None:
        """Give what the attempt needs; return the older attempt that holds its DUT, if any."""
        if spec.need.wants_dut and start.dut is not None:
            older = self._holds.get(start.dut)
            self._holds[start.dut] = start.fence
            return older
        self._slots[start.fence] = spec.need.slots
        self.free -= spec.need.slots
        return None

    def release(self, fence: Fence, dut: DutId | None) -> None:
        """Take back what an attempt held; what a newer one holds by now stays with it."""
        self.free += self._slots.pop(fence, 0)
        if dut is not None and self._holds.get(dut) == fence:
            del self._holds[dut]

    def become(self, total: int, duts: Mapping[DutId, Dut]) -> None:
        """Have other DUTs and slots from now on; what is held stays held."""
        self.free += total - self.total
        self.total, self._duts = total, dict(duts)

    def knows(self, dut: DutId) -> bool:
        return dut in self._duts

    def holder(self, dut: DutId) -> Fence | None:
        """Return the attempt that has the DUT."""
        return self._holds.get(dut)

    def blame(self, dut: DutId, reason: str) -> bool:
        """Take a DUT out of service, or back with an empty `reason`; true: that is news."""
        if self._faulty.get(dut, "") == reason:
            return False
        self._faulty[dut] = reason
        return True

    def faults(self) -> dict[DutId, str]:
        return {dut: reason for dut, reason in self._faulty.items() if reason}

    def _lack_of_slots(self, spec: JobSpec) -> ErrorReport | None:
        wanted = spec.need.slots
        if wanted > self.total:
            return _no("no_slots", f"{wanted} slots are needed, this host has {self.total}")
        if wanted > self.free:
            return _no("no_slots", f"{wanted} slots are needed, {self.free} are free")
        return None

    def _lack_of_dut(self, dut_id: DutId, spec: JobSpec) -> ErrorReport | None:
        dut, runtime = self._duts.get(dut_id), spec.need.target.runtime
        if dut is None:
            near = did_you_mean(dut_id, self._duts)
            return _no("unknown_dut", f"{shown(dut_id)} is not known here{near and '; ' + near}")
        if runtime != "dut" and runtime not in dut.transports:
            ways = ", ".join(dut.transports)
            return _no("no_transport", f"DUT {dut_id} is not reached over {runtime}, but {ways}")
        if reason := self._faulty.get(dut_id):
            return _no("dut_faulty", f"DUT {dut_id} is out of service: {reason}")
        return None


def _no(code: str, message: str) -> ErrorReport:
    return ErrorReport(code=code, message=message, retryable=True)
