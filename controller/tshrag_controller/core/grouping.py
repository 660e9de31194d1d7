"""PURE: the setup of a profile -> what jobs on DUTs share, and by which digest they know it."""

import hashlib
import shlex
from collections.abc import Mapping

import msgspec

from tshrag_common.findings import Findings
from tshrag_common.jobs import Group, Need, Setup
from tshrag_common.positions import At
from tshrag_common.profile import Profile
from tshrag_common.schedule import Step
from tshrag_controller.core.scopes import Core, Scope, expand

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
    made = _words(profile.setup, ("setup",), around, findings) if profile.setup else ()
    undone = _words(profile.teardown, ("teardown",), around, findings) if profile.teardown else ()
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


def _words(root: Step, at: At, around: Scope, findings: Findings) -> Words:
    """Return the commands of a setup, in order: a command, or a sequence of them."""
    found: list[tuple[str, ...]] = []
    stack: list[tuple[At, Step]] = [(at, root)]
    while stack:
        here, step = stack.pop()
        if step.sequence:
            inner = [((*here, "sequence", n), each) for n, each in enumerate(step.sequence)]
            stack.extend(reversed(inner))
        elif step.command:
            line = step.command
            words = tuple(shlex.split(line)) if isinstance(line, str) else line
            found.append(tuple(expand(word, around) for word in words))
        elif step.kind != "comment":
            fix = "use a command, or a sequence of commands"
            findings.add("setup", here, f"a {step.kind} cannot stand here", fix)
    if len(found) > MOST_COMMANDS:
        findings.add("limit", at, f"{len(found)} commands > {MOST_COMMANDS}")
    return tuple(found)
