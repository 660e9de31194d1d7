"""PURE: what each step of a profile asks of the place it goes to.

A role that a run keeps gets one DUT for all its jobs, so that the needs of all of them are one:
that DUT has to fit every load that comes to it.
"""

from collections.abc import Mapping

import msgspec

from tshrag_common.errors import shown
from tshrag_common.findings import Findings
from tshrag_common.jobs import Need, Target
from tshrag_common.manifest import Manifest, ResolvedLoad
from tshrag_common.positions import At
from tshrag_common.profile import Profile, Role
from tshrag_common.schedule import BOARD, Step, children
from tshrag_controller.core.actions import action_of

ROLE = "dut"
"""The role of a load that runs on a DUT in a step that names no target."""


def needs_of_steps(
    profile: Profile, loads: Mapping[str, ResolvedLoad], findings: Findings
) -> dict[int, Need]:
    """Return the need of every load and command, by ``id`` of its step."""
    roles = _Roles(profile, findings)
    asked: dict[int, Need] = {}
    stack: list[tuple[At, Step, str]] = [(("schedule",), profile.schedule, "")]
    if profile.distribution:
        stack.append((("distribution",), profile.distribution, ""))
    while stack:
        at, step, around = stack.pop()
        role = step.target or around
        for place, each in reversed(children(at, step)):
            stack.append((place, each, str(place[-1]) if step.gang else role))
        if step.kind in BOARD:
            action = action_of(step)
            asked[id(step)] = roles.board(at, role, action.wants if action else ())
        if step.kind in ("load", "command"):
            resolved = loads.get(step.load) if step.load else None
            asked[id(step)] = roles.need(at, role, resolved.manifest if resolved else None)
    return {own: roles.merged(need) for own, need in asked.items()}


def is_kept(need: Need) -> bool:
    """Tell whether a run keeps one DUT for all jobs with this role."""
    return bool(need.role) and need.wants_dut and need.target.hold == "run"


_ANY = Role()


class _Roles:
    def __init__(self, profile: Profile, findings: Findings) -> None:
        self._targets = {name: role.target for name, role in profile.targets.items()}
        self._roles = profile.targets
        self._findings = findings
        self._kept: dict[str, Need] = {}

    def need(self, at: At, role: str, manifest: Manifest | None) -> Need:
        """Return what one step asks for, and remember it for its role."""
        target = self._targets.get(role, Target())
        asked = self._roles.get(role, _ANY)
        if manifest is None:
            need = Need(
                target=target, role=role, resources=asked.resources, consumes=asked.consumes
            )
        else:
            if not role and manifest.runs == "dut":
                role, target = self._implied(manifest.needs.kind)
            need = Need(
                target=self._fitted(at, role, target, manifest),
                role=role,
                platforms=manifest.pairs,
                tools=manifest.needs.tools,
                slots=manifest.needs.slots,
                resources=asked.resources,
                consumes=asked.consumes,
            )
        if is_kept(need):
            self._keep(at, need)
        return need

    def board(self, at: At, role: str, can: tuple[str, ...]) -> Need:
        """Return what a step asks for that does something with a board."""
        if not role:
            role, target = self._implied("")
        else:
            target = self._targets.get(role, Target())
        if target.runtime == "host":
            self._say(at, f"target '{role}' is a host, the step does something with a board")
        asked = self._roles.get(role, _ANY)
        need = Need(
            target=target,
            role=role,
            can=can,
            resources=asked.resources,
            consumes=asked.consumes,
        )
        if is_kept(need):
            self._keep(at, need)
        return need

    def merged(self, need: Need) -> Need:
        """Return what all jobs of the role ask for together."""
        return self._kept[need.role] if is_kept(need) else need

    def _implied(self, kind: str) -> tuple[str, Target]:
        if ROLE in self._targets:
            return ROLE, self._targets[ROLE]
        return f"{ROLE}-{kind}" if kind else ROLE, Target(runtime="dut", kind=kind)

    def _fitted(self, at: At, role: str, target: Target, manifest: Manifest) -> Target:
        on_dut = target.runtime != "host"
        if role and manifest.runs and (manifest.runs == "dut") != on_dut:
            place = "a DUT" if manifest.runs == "dut" else "the host"
            what = f"load {shown(manifest.name)} runs on {place}, target '{role}' does not"
            self._say(at, what)
        kind = manifest.needs.kind
        if not kind or not on_dut or target.kind == kind:
            return target
        if target.kind:
            what = f"load {shown(manifest.name)} needs kind {shown(kind)}"
            self._say(at, f"{what}, target '{role}' is {shown(target.kind)}")
        return msgspec.structs.replace(target, kind=kind)

    def _keep(self, at: At, need: Need) -> None:
        known = self._kept.setdefault(need.role, need)
        both = tuple(pair for pair in known.platforms if pair in need.platforms)
        if known.platforms and need.platforms and not both:
            self._say(at, f"the loads of target '{need.role}' have no platform in common")
        kinds = sorted({known.target.kind, need.target.kind} - {""})
        if len(kinds) > 1:
            what = f"target '{need.role}' would be {' and '.join(map(shown, kinds))}"
            self._say(at, what)
        self._kept[need.role] = msgspec.structs.replace(
            known,
            target=known.target if known.target.kind else need.target,
            platforms=both or known.platforms or need.platforms,
            tools=tuple(dict.fromkeys((*known.tools, *need.tools))),
            slots=max(known.slots, need.slots),
            can=tuple(dict.fromkeys((*known.can, *need.can))),
        )

    def _say(self, at: At, what: str) -> None:
        self._findings.add("target", (*at, "target"), what, "give it another target")
