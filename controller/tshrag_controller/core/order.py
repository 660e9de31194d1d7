"""PURE: who goes first. Points of priority, less what waiting is worth, plus what an org used.

The points of a job are ``admitted / ageing - priority``: all jobs age alike, so this number never
changes, and a heap of it stays in order. Behind it stand the deadline, the order of admission and
the serial. Only what an org has used moves with time: it is added where the heads of queues are
compared, and an org has queues of its own.
"""

from tshrag_common.ids import OrgId
from tshrag_controller.core.lab import Job, Lab, Order, OrgUse, Run
from tshrag_controller.core.policy import Policy

NEVER = 1 << 62
LEAST_S = 60.0
"""What an attempt counts from its first moment, so that a burst of one org shows at once."""
CALM_S = 3600.0
"""Use below this, in all of the lab, is too little to speak of shares."""


def place_of(lab: Lab, came_at: int, priority: int, order: int) -> Order:
    """Return the place in line of one who came then."""
    return (came_at // round(lab.policy.ageing_s * 1e6) - priority, NEVER, order, 0)


def order_of(lab: Lab, run: Run, job: Job) -> Order:
    points = place_of(lab, run.created_at, run.priority, run.order)[0]
    return (points, run.deadline or NEVER, run.order, job.serial)


def used_s(policy: Policy, use: OrgUse, now: int) -> float:
    """Return what an org has used until `now`: decayed, with what it holds."""
    held = max(use.live * LEAST_S, (use.live * now - use.since) / 1e6)
    return _decayed(policy, use, now) + held


def _decayed(policy: Policy, use: OrgUse, now: int) -> float:
    if not use.used_s:
        return 0.0
    gone_s = max(0, now - use.at) / 1e6
    return use.used_s * float(0.5 ** (gone_s / policy.half_life_s))


def note_taken(lab: Lab, org: OrgId, size: int, at: int) -> None:
    """Count places that an org has from now on. Part of `apply`."""
    use = lab.orgs.setdefault(org, OrgUse())
    use.live += size
    use.since += size * at


def note_given_back(lab: Lab, org: OrgId, size: int, given_at: int, at: int) -> None:
    """Count what an org has used of places that it gives back. Part of `apply`."""
    use = lab.orgs.setdefault(org, OrgUse())
    use.used_s = _decayed(lab.policy, use, at) + size * max(0, at - given_at) / 1e6
    use.at = at
    use.live -= size
    use.since -= size * given_at


def order_of_run(lab: Lab, run: Run) -> Order:
    points = place_of(lab, run.created_at, run.priority, run.order)[0]
    return (points, run.deadline or NEVER, run.order, 0)


class Shares:
    """What each org loses for what it has used, as of one pass; what the pass gives counts."""

    def __init__(self, lab: Lab, now: int) -> None:
        self._lab, self._now = lab, now
        policy = lab.policy
        self._all_s = CALM_S + sum(
            used_s(policy, use, now) / policy.weight(org) for org, use in lab.orgs.items()
        )

    def points(self, org: OrgId) -> int:
        use = self._lab.orgs.get(org)
        if use is None:
            return 0
        policy = self._lab.policy
        share = used_s(policy, use, self._now) / policy.weight(org) / self._all_s
        return int(policy.share_points * min(1.0, share))
