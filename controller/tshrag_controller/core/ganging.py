"""PURE: what may be a gang: jobs of different roles that start together or not at all."""

from collections.abc import Mapping

from tshrag_common.errors import shown
from tshrag_common.findings import Findings
from tshrag_common.jobs import MAX_GANG
from tshrag_common.positions import At
from tshrag_common.profile import Profile
from tshrag_common.schedule import Step

ROLE = "TSHRAG_ROLE"
"""What a member of a gang is called in it."""
ROLES = "TSHRAG_ROLES"
"""All roles of the gang, with commas."""


def check_gang(profile: Profile, members: Mapping[str, Step], at: At, findings: Findings) -> None:
    """Note what cannot be together: too many, one DUT twice, more than a job in a role."""
    if len(members) > MAX_GANG:
        findings.add("limit", at, f"gang of {len(members)}: gang <= {MAX_GANG}")
    for name, member in members.items():
        _check_member(member, (*at, name), findings)
    roles = {name: member.target or name for name, member in members.items()}
    if len(set(roles.values())) < len(members):
        findings.add("gang", at, "two of them have one target", "give each a target of its own")
    named: set[str] = set()
    for name, role in roles.items():
        target = profile.targets.get(role)
        if target is None:
            findings.add("gang", (*at, name), f"there is no target {shown(role)}", "add it")
        elif len(target.duts) == 1:
            if target.duts[0] in named:
                findings.add("duplicate_dut", (*at, name), shown(target.duts[0]))
            named.add(target.duts[0])


def _check_member(member: Step, at: At, findings: Findings) -> None:
    if member.kind not in ("load", "command"):
        fix = "use one load or one command for each role"
        findings.add("gang", at, f"a {member.kind} cannot be in a gang", fix)
    if member.needs:
        findings.add("gang", (*at, "needs"), "they start together", "name it at the gang")
