"""PURE: how many DUTs an org may have, and how many jobs it may let wait."""

from collections import Counter

from tshrag_common.errors import Refused
from tshrag_common.ids import OrgId
from tshrag_controller.core.lab import DutRow, Lab


class Quotas:
    """What each org with a quota has, as of one pass; what the pass gives counts."""

    def __init__(self, lab: Lab) -> None:
        self._policy = lab.policy
        self._has: Counter[OrgId] = Counter()
        if any(quota.running_duts for quota in lab.policy.quotas.values()):
            self._has.update(org for row in lab.duts.values() if (org := org_of(lab, row)))

    def allows(self, org: OrgId, more: int) -> bool:
        return not self.reason(org, more)

    def reason(self, org: OrgId, more: int) -> str:
        """Return why `org` may not have so many DUTs more; empty: it may."""
        most = self._policy.quota(org).running_duts
        if not most or self._has[org] + more <= most:
            return ""
        return f"org {org} has {self._has[org]} DUTs, its quota is {most}"

    def note(self, org: OrgId, more: int) -> None:
        self._has[org] += more


def org_of(lab: Lab, row: DutRow) -> OrgId | None:
    """Return who has a DUT: the org of the attempt on it, or of the run that keeps it."""
    attempt = lab.attempts.get(row.holder)
    if attempt is not None:
        return lab.runs[lab.jobs[attempt.job].run].org
    return lab.runs[row.kept_by].org if row.kept_by in lab.runs else None


def check_queued(lab: Lab, org: OrgId, more: int) -> None:
    """Refuse jobs beyond what an org may let wait.

    Raises:
        Refused: with what it has and what it may have.

    """
    most = lab.policy.quota(org).queued_jobs
    if not most:
        return
    waiting = sum(run.open_jobs - run.live for run in lab.runs.values() if run.org == org)
    if waiting + more > most:
        what = f"{waiting} jobs wait and {more} would be added, the quota of org {org} is {most}"
        fix = "submit again when some have ended, or ask the operator of the lab"
        raise Refused("quota", what, fix, code="quota")
