"""PURE: the setup of a profile -> what jobs on DUTs share, and by which digest they know it."""

import hashlib
import shlex
from collections.abc import Mapping, Sequence

import msgspec

from tshrag_common.errors import shown
from tshrag_common.findings import Findings
from tshrag_common.jobs import Group, JobSpec, Need, Setup
from tshrag_common.positions import At
from tshrag_common.profile import Profile
from tshrag_common.schedule import Step
from tshrag_controller.core.scopes import Core, Scope, expand
from tshrag_controller.core.specs import params_of

KEY_LABEL = "app_version_id"
"""The label of a profile that is the key of its group where it names none."""
MOST_COMMANDS = 64

Words = tuple[tuple[str, ...], ...]


class Grouping(msgspec.Struct, frozen=True):
    """What a need says of the group, and what a job does for it."""

    group: Group
    setup: Setup


def grouping_of(
    profile: Profile, env: Mapping[str, str], org: str, findings: Findings
) -> Grouping | None:
    """Return what the jobs of `profile` on DUTs share; None: each is on its own."""
    key = profile.group.key or profile.labels.get(KEY_LABEL, "")
    if not key and not profile.setup and not profile.teardown:
        return None
    around = Scope(Core(env=dict(env), cwd="", timeout_s=0.0, attempts=1, on_fail="stop"))
    words = _Words(profile, around, findings)
    made = words.of(profile.setup, ("setup",)) if profile.setup else ()
    undone = words.of(profile.teardown, ("teardown",)) if profile.teardown else ()
    told = msgspec.msgpack.encode((org, key, made, undone, dict(sorted(env.items()))))
    digest = hashlib.sha256(told).hexdigest()[:32]
    window, linger = profile.group.window or 0.0, profile.group.linger
    group = Group(
        key=key,
        digest=digest,
        max_jobs=profile.group.max_jobs,
        max_runtime_s=profile.group.max_runtime or 0.0,
        window_s=window if isinstance(window, float) else 0.0,
        linger_s=linger if isinstance(linger, float) else -1.0,
    )
    own_env = dict(env) if undone else {}
    return Grouping(group, Setup(digest=digest, commands=made, teardown=undone, env=own_env))


def grouped(need: Need, group: Group) -> Need:
    """Return the need of a job of a group: hosts carry no setups."""
    return msgspec.structs.replace(need, group=group) if need.wants_dut else need


def check_used(profile: Profile, specs: Sequence[JobSpec], findings: Findings) -> None:
    """Note a setup that no job would have made: hosts carry none, nor do steps of a board."""
    for name, root in (("setup", profile.setup), ("teardown", profile.teardown)):
        if root and not any(spec.setup is not None for spec in specs):
            fix = "give a job a target with a board, or make it a step before the others"
            findings.add("setup", (name,), "no load or command runs on a board with it", fix)


class _Words:
    """The command lines of the setup and the teardown of a profile."""

    def __init__(self, profile: Profile, around: Scope, findings: Findings) -> None:
        self._loads, self._around, self._findings = profile.loads, around, findings

    def of(self, root: Step, at: At) -> Words:
        """Return the commands in order: a command, a load that is one, or a sequence of these."""
        found: list[tuple[str, ...]] = []
        stack: list[tuple[At, Step]] = [(at, root)]
        while stack:
            here, step = stack.pop()
            if step.sequence:
                inner = [((*here, "sequence", n), each) for n, each in enumerate(step.sequence)]
                stack.extend(reversed(inner))
            elif line := step.command or self._named(step):
                words = shlex.split(line) if isinstance(line, str) else line
                params = params_of(step, self._around)
                found.append(tuple(expand(word, self._around, params) for word in words))
            elif step.kind != "comment":
                self._refuse(step, here)
        if len(found) > MOST_COMMANDS:
            self._findings.add("limit", at, f"{len(found)} commands > {MOST_COMMANDS}")
        return tuple(found)

    def _named(self, step: Step) -> str | tuple[str, ...]:
        """Return the command of the load that a step names, where the load is one."""
        source = self._loads.get(step.load) if step.load else None
        return (source.command or ()) if source else ()

    def _refuse(self, step: Step, at: At) -> None:
        fix = "use a command, a load that is a command, or a sequence of these"
        what = f"a {step.kind} cannot stand here"
        if step.load and step.load not in self._loads:
            what = f"there is no load {shown(step.load)}"
        elif step.load:
            what = f"load {shown(step.load)} is a tree of files, which a setup cannot bring along"
        self._findings.add("setup", at, what, fix)
