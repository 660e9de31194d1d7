"""PURE: what a step sees of the steps around it: variables, directory, limits.

``env`` of a step is expanded against what is around it only: entries of one ``env`` do not see
each other. An unknown ``${NAME}`` stays as it is written, so that the agent can put in what only
it knows (``TSHRAG_JOB_ID``).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from tshrag_common.fields import VARIABLE
from tshrag_common.jobs import RetryOn
from tshrag_common.schedule import OnCrash, OnFail, Retries, Step

_VARIABLE = re.compile(rf"\$\{{({VARIABLE})\}}")

REPEAT = "TSHRAG_REPEAT"
"""Which copy of a repeat or matrix a job belongs to, from 1."""


@dataclass(frozen=True, slots=True)
class Core:
    """What is the same for all copies of a step."""

    env: Mapping[str, str]
    cwd: str
    timeout_s: float
    attempts: int
    on_fail: OnFail
    disconnect_s: float = 0.0
    on_crash: OnCrash = "mark"
    expect_reboot: bool = True
    retry_on: tuple[RetryOn, ...] = ()
    retry_elsewhere: bool = False
    preemptible: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """A Core, and what differs among copies: the number and the axes, with their types."""

    core: Core
    values: Mapping[str, object] = field(default_factory=dict[str, object])
    env: Mapping[str, str] = field(default_factory=dict[str, str])  # the same as text

    def copy(self, number: int, axes: Mapping[str, object]) -> "Scope":
        """Return the scope of copy `number` (from 1) of what stands here."""
        own: dict[str, object] = {REPEAT: number, **axes}
        texts = {name: as_text(value) for name, value in own.items()}
        return Scope(self.core, {**self.values, **own}, {**self.env, **texts})


class Scopes:
    """Makes the scope of a step from the one around it; equal ones are made once."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], tuple[Core, Core]] = {}  # (step, core around) -> core

    def inner(self, step: Step, around: Scope) -> Scope:
        if not is_static(step.env, step.cwd):
            return Scope(_overlaid(step, around), *_unhidden(step, around))
        key = (id(step), id(around.core))
        if key not in self._made:  # the core around is kept too: its id stays its own
            self._made[key] = (_overlaid(step, around), around.core)
        return Scope(self._made[key][0], *_unhidden(step, around))


def is_static(*texts: object) -> bool:
    """Tell whether nothing in `texts`, however deep, is to be put in."""
    for each in texts:
        if isinstance(each, str):
            if "${" in each:
                return False
        elif isinstance(each, Mapping):
            if not is_static(*each.values()):
                return False
        elif isinstance(each, list | tuple) and not is_static(*each):
            return False
    return True


def expand(text: str, scope: Scope, params: Mapping[str, object] | None = None) -> str:
    """Put the variables into `text`: params first, then copies, then env."""
    if "${" not in text:
        return text
    found = _lookup(scope, params or {})
    return _VARIABLE.sub(lambda match: as_text(found.get(match[1], match[0])), text)


def expand_value(value: object, scope: Scope) -> object:
    """Put the variables into all texts of `value`; a text that is one variable takes its type."""
    if isinstance(value, str):
        whole = _VARIABLE.fullmatch(value)
        found = _lookup(scope, {}) if whole else {}
        return found[whole[1]] if whole and whole[1] in found else expand(value, scope)
    if isinstance(value, dict):
        return {key: expand_value(each, scope) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [expand_value(each, scope) for each in value]
    return value


def as_text(value: object) -> str:
    """Return a value as it stands in an environment."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _lookup(scope: Scope, params: Mapping[str, object]) -> Mapping[str, object]:
    return {**scope.core.env, **scope.values, **params}


def _overlaid(step: Step, around: Scope) -> Core:
    core, retries = around.core, step.retries or Retries()
    env = core.env
    if step.env:
        env = {**env, **{name: expand(text, around) for name, text in step.env.items()}}
    return Core(
        env=env,
        cwd=_joined(core.cwd, expand(step.cwd, around)),
        timeout_s=step.timeout or core.timeout_s,
        attempts=step.attempts or retries.attempts or core.attempts,
        on_fail=step.on_fail or core.on_fail,
        disconnect_s=step.disconnect or core.disconnect_s,
        on_crash=step.on_crash or core.on_crash,
        expect_reboot=_or(step.expect_reboot, core.expect_reboot),
        retry_on=core.retry_on if isinstance(retries.on, msgspec.UnsetType) else retries.on,
        retry_elsewhere=_or(retries.elsewhere, core.retry_elsewhere),
        preemptible=_or(step.preemptible, core.preemptible),
    )


def _or(own: bool | msgspec.UnsetType, around: bool) -> bool:
    return around if isinstance(own, msgspec.UnsetType) else own


def _unhidden(step: Step, around: Scope) -> tuple[Mapping[str, object], Mapping[str, str]]:
    """Return what differs among copies, without what the step sets itself."""
    if not step.env.keys() & around.values.keys():
        return around.values, around.env
    values = {name: value for name, value in around.values.items() if name not in step.env}
    return values, {name: text for name, text in around.env.items() if name not in step.env}


def _joined(around: str, own: str) -> str:
    if not own or own.startswith("/"):
        return own or around
    return f"{around.rstrip('/')}/{own}" if around else own
