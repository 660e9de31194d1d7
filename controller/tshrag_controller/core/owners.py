"""PURE: which org has which DUT, counted whenever a DUT changes hands: asking costs nothing.

Part of `apply`; an index, never recorded.
"""

from tshrag_common.ids import DutId, OrgId
from tshrag_controller.core.lab import DutRow, Lab

Owner = tuple[OrgId, bool]
"""An org, and whether one of its people holds the DUT, not a job."""


def note_owner(lab: Lab, row: DutRow) -> None:
    """Take in who has a DUT now."""
    _change(lab, row.dut.id, owner_of(lab, row))


def forget_owner(lab: Lab, dut: DutId) -> None:
    _change(lab, dut, None)


def owner_of(lab: Lab, row: DutRow) -> Owner | None:
    """Return whose the attempt, the lease or the run is that has a DUT."""
    attempt = lab.attempts.get(row.holder)
    if attempt is not None:
        return lab.runs[lab.jobs[attempt.job].run].org, False
    lease = lab.people.leases.get(row.holder)
    if lease is not None:
        return lease.org, True
    return (lab.runs[row.kept_by].org, False) if row.kept_by in lab.runs else None


def _change(lab: Lab, dut: DutId, owner: Owner | None) -> None:
    idle = lab.indexes.idle
    before = idle.owners.pop(dut, None)
    if before is not None:
        idle.owned[before] -= 1
    if owner is not None:
        idle.owners[dut] = owner
        idle.owned[owner] = idle.owned.get(owner, 0) + 1
