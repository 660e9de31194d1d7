"""PURE: when may an org have one DUT more? From what it has, and how long such things took."""

from collections.abc import Collection, Sequence

from tshrag_common.ids import OrgId
from tshrag_controller.core.free_at import Span, Typical, dut_server
from tshrag_controller.core.lab import Lab

MOST_SPARE = 64


def seats(
    lab: Lab, org: OrgId, now: int, typical: Typical, free_too: Collection[str] = ()
) -> list[Span] | None:
    """Return when each DUT that a quota allows may be had, the first first; None: no quota.

    What an org has beyond its quota has to be given back first; what nobody can say the end of
    is never given back. `free_too` would be given back now.
    """
    quota = lab.policy.quota(org)
    if not quota.running_duts:
        return None
    free = Span(now, now, now)
    spare, ends = quota.running_duts, []
    for dut, (owner, is_person) in lab.indexes.idle.owners.items():
        if owner != org or (is_person and not quota.leases):
            continue
        spare -= 1
        server = dut_server(lab, lab.duts[dut], now, typical)
        begin = free if dut in free_too else server.free
        if begin is not None:
            ends.append(begin)
    ends.sort(key=lambda span: span.mid)
    return [free] * min(spare, MOST_SPARE) + ends[max(0, -spare) :]


def opening(found: Sequence[Span], ahead: Sequence[Span], which: int) -> int | None:
    """Let who of the org goes before take the seats in turn; return when the next one is there."""
    if not found:
        return None
    free = [each[which] for each in found]
    for span in ahead:
        first = free.index(min(free))
        free[first] += span[which]
    return min(free)
