"""PURE: how many DUTs an org may have, and how many jobs it may let wait."""

from tshrag_common.errors import Refused
from tshrag_common.ids import OrgId
from tshrag_controller.core.lab import Lab


def over_quota(lab: Lab, org: OrgId, more: int) -> str:
    """Return why `org` may not have so many DUTs more; empty: it may."""
    quota = lab.policy.quota(org)
    if not quota.running_duts:
        return ""
    owned = lab.indexes.idle.owned
    leased = owned.get((org, True), 0) if quota.leases else 0
    has = owned.get((org, False), 0) + leased
    if has + more <= quota.running_duts:
        return ""
    by_people = f" ({leased} of them leased)" if leased else ""
    duts = "1 DUT" if has == 1 else f"{has} DUTs"
    return f"org {org} has {duts}{by_people}, its quota is {quota.running_duts}"


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
