"""PURE: DUTs for the roles of a run: all at once or none, no run waits while it holds."""

from collections.abc import Mapping, Sequence

from tshrag_common.ids import AgentId, DutId
from tshrag_controller.core.lab import Lab, Run
from tshrag_controller.core.places import Places
from tshrag_controller.core.queues import roles_to_bind

Chosen = tuple[tuple[str, AgentId, DutId], ...]


def match_roles(lab: Lab, run: Run, now: int, places: Places | None = None) -> Chosen | None:
    """Return a DUT for each open role, no DUT twice; None when that cannot be had now.

    Roles with the fewest candidates choose first, and give way along augmenting paths: when a
    matching exists it is found. As many candidates a role as there are roles are enough for that.
    """
    mine = places or Places(lab, now)
    roles = roles_to_bind(lab, run)
    candidates = {
        role: mine.duts(key, run, run.avoid.get(role, ()), most=len(roles))
        for role, key in roles.items()
    }
    if places is None:
        mine.close()
    given = matched(candidates)
    if given is None:
        return None
    return tuple(sorted((role, lab.duts[dut].agent, dut) for role, dut in given.items()))


def matched(candidates: Mapping[str, Sequence[DutId]]) -> dict[str, DutId] | None:
    """Give each role one of its candidates, no candidate twice; None where that cannot be."""
    given: dict[DutId, str] = {}

    def find(role: str, tried: set[DutId]) -> bool:
        for dut in candidates[role]:
            if dut not in tried:
                tried.add(dut)
                if dut not in given or find(given[dut], tried):
                    given[dut] = role
                    return True
        return False

    for role in sorted(candidates, key=lambda name: (len(candidates[name]), name)):
        if not find(role, set()):
            return None
    return {role: dut for dut, role in given.items()}
