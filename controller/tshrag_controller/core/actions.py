"""PURE: a step of a board -> what its job does there, variables put in."""

from collections.abc import Callable, Mapping

import msgspec

from tshrag_common.actions import Action
from tshrag_common.schedule import BOARD, Kind, Step
from tshrag_controller.core.scopes import Scope, expand

_SHORT: Mapping[Kind, Callable[[str], object]] = {
    "boot": lambda text: {"to": text},
    "send": lambda text: {"text": text},
    "expect": lambda text: {"text": [text]},
    "bootloader": lambda text: [text],
}
"""What a text stands for, where it is written instead of a mapping."""


def action_of(step: Step) -> Action | None:
    """Return what `step` does with a board, as it is written; None: it is no such step."""
    kind = step.kind
    if kind not in BOARD or kind == "shell":
        return None
    given: object = msgspec.to_builtins(getattr(step, kind))
    if isinstance(given, str) and kind in _SHORT:
        given = _SHORT[kind](given)
    return msgspec.convert({kind: given}, Action)


def expanded(action: Action, scope: Scope) -> Action:
    """Return `action` with every variable of the plan in its place."""
    plain: object = msgspec.to_builtins(action)
    return msgspec.convert(_expanded(plain, scope), Action)


def _expanded(value: object, scope: Scope) -> object:
    if isinstance(value, str):
        return expand(value, scope)
    if isinstance(value, dict):
        return {key: _expanded(each, scope) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_expanded(each, scope) for each in value]
    return value
