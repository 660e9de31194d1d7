"""PURE: parameters of a load: declared in its manifest, given in a step, checked at submit."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tshrag_common.errors import did_you_mean, shown
from tshrag_common.fields import Text
from tshrag_common.findings import Findings
from tshrag_common.positions import At
from tshrag_common.strict import got_text
from tshrag_common.times import duration_s
from tshrag_common.units import BadQuantity, quantity

ParamType = Literal[
    "text", "integer", "number", "boolean", "list", "mapping", "duration", "size", "any"
]

_WORDS: dict[ParamType, str] = {
    "text": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "list": "a list",
    "mapping": "a mapping",
    "duration": "a duration like '10m'",
    "size": "a size like '64MiB'",
}


class Param(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One parameter. A duration is given to the load in seconds, a size in bytes.

    ``min`` and ``max`` bound the number, or the length of a text or a list.
    """

    type: ParamType = "any"
    default: object | UnsetType = UNSET
    min: float | UnsetType = UNSET
    max: float | UnsetType = UNSET
    choices: Annotated[tuple[object, ...], Meta(max_length=1000)] = ()
    required: bool = False
    description: Text = ""


def fill(
    declared: Mapping[str, Param], given: Mapping[str, object], at: At, findings: Findings
) -> dict[str, object]:
    """Return `given` with the defaults of what was left out, every value in its type.

    A load that declares no parameter takes any.
    """
    if not declared:
        return dict(given)
    filled: dict[str, object] = {}
    for name, value in given.items():
        if name in declared:
            filled[name] = checked(declared[name], value, (*at, name), findings)
        else:
            fix = did_you_mean(name, declared) or f"known: {', '.join(declared)}"
            findings.add("unknown_param", (*at, name), "", fix)
    for name, param in declared.items():
        if name not in filled and param.default is not UNSET:
            filled[name] = param.default
    absent = [name for name, param in declared.items() if param.required and name not in filled]
    if absent:
        findings.add("missing", at, f"Missing required parameter(s): {', '.join(absent)}")
    return filled


def check_default(param: Param, at: At, findings: Findings) -> None:
    """Note a default or choices that the parameter itself would refuse."""
    if param.min is not UNSET and param.max is not UNSET and param.min > param.max:
        findings.add("range", at, "min is above max")
    for number, choice in enumerate(param.choices):
        bare = msgspec.structs.replace(param, choices=())
        checked(bare, choice, (*at, "choices", number), findings)
    if param.default is UNSET:
        return
    checked(param, param.default, (*at, "default"), findings)
    if param.required:
        findings.add("kind", at, "a required parameter has no default")


def checked(param: Param, value: object, at: At, findings: Findings) -> object:
    """Return `value` in the type of `param`; note what is wrong with it."""
    try:
        typed = _typed(param.type, value)
    except BadQuantity as bad:
        findings.add(bad.code, at, bad.what, bad.fix)
        return value
    if typed is None and param.type != "any":
        findings.add("type", at, f"expected {_WORDS[param.type]}, got {got_text(value)}")
        return value
    if param.choices and typed not in param.choices:
        words = [choice if isinstance(choice, str) else str(choice) for choice in param.choices]
        near = did_you_mean(value, words) if isinstance(value, str) else ""
        named = ", ".join(shown(word, 40) for word in words[:10])
        findings.add("choice", at, f"expected one of {named}, got {got_text(value)}", near)
    _check_bounds(param, typed, at, findings)
    return typed


def _typed(type_: ParamType, value: object) -> object:
    """Return `value` as `type_`, None where it is not; numeric text is a number."""
    if type_ == "any":
        return value
    if type_ == "duration":
        return duration_s(_numeric(value), "", least_s=0.0)
    if type_ == "size":
        spelled = isinstance(value, str) and _numeric(value) is value
        return quantity(str(value), dimension="size").value if spelled else _number(value)
    if type_ == "integer":
        number = _number(_numeric(value))
        return int(number) if number is not None and number == int(number) else None
    if type_ == "number":
        return _number(_numeric(value))
    if type_ == "boolean":
        return value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value))
    python: dict[ParamType, type] = {"text": str, "list": list, "mapping": dict}
    return value if isinstance(value, python[type_]) else None


def _numeric(value: object) -> object:
    """Return the number that a text spells, anything else as it is."""
    if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", value):
        return value
    return float(value) if "." in value else int(value)


def _number(value: object) -> float | int | None:
    value = _numeric(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _check_bounds(param: Param, value: object, at: At, findings: Findings) -> None:
    if param.min is UNSET and param.max is UNSET:
        return
    if isinstance(value, str | list | dict):
        size, of = float(len(value)), " long"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        size, of = float(value), ""
    else:
        return
    low = -math.inf if param.min is UNSET else param.min
    high = math.inf if param.max is UNSET else param.max
    if not low <= size <= high:
        findings.add("range", at, f"{_limits(param)}{of}, got {size:g}")


def _limits(param: Param) -> str:
    if param.min is UNSET:
        return f"at most {param.max:g}"
    return f"at least {param.min:g}" if param.max is UNSET else f"{param.min:g}..{param.max:g}"
