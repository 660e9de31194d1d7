"""PURE: plain data -> a Struct, with every problem named at once.

msgspec stops at the first error. Here the same Struct types are walked, and all that does not
fit is noted with its path, its line and the nearest word. A Struct may say more about itself:

    WORDS   other spellings of its fields: {"seq": "sequence"}
    KINDS   fields of which exactly one must be there

and a type alias, in ``Meta(extra=...)``:

    parse     given -> number; raises BadQuantity (durations, sizes)
    check     value -> what is wrong with it, empty when nothing is
    code, say code and words of the problem when pattern, bounds or check do not hold
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import NoneType
from typing import TypeVar

import msgspec
from msgspec import inspect

from tshrag_common.errors import did_you_mean, shown
from tshrag_common.findings import Findings
from tshrag_common.positions import MAX_DEPTH, At
from tshrag_common.units import BadQuantity

T = TypeVar("T", bound=msgspec.Struct)
Extra = dict[str, object]

_INT64 = 1 << 63
_PYTHON: dict[type[inspect.Type], tuple[type, ...]] = {
    inspect.StrType: (str,),
    inspect.BoolType: (bool,),
    inspect.NoneType: (NoneType,),
    inspect.IntType: (int, float),
    inspect.FloatType: (int, float),
    inspect.StructType: (dict,),
    inspect.DictType: (dict,),
    inspect.ListType: (list, tuple),
    inspect.VarTupleType: (list, tuple),
    inspect.FrozenSetType: (list, tuple),
    inspect.TupleType: (list, tuple),
}
_WORDS: dict[type[inspect.Type], str] = {
    inspect.StrType: "text",
    inspect.BoolType: "true or false",
    inspect.NoneType: "nothing",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.StructType: "a mapping",
    inspect.DictType: "a mapping",
    inspect.ListType: "a list",
    inspect.VarTupleType: "a list",
    inspect.FrozenSetType: "a list",
    inspect.TupleType: "a list",
}


def convert(
    data: object, type_: type[T], findings: Findings, also: Callable[[T], None] | None = None
) -> T:
    """Return `data` as a `type_`; raise Invalid with all that is in `findings` in the end.

    `also` looks at what was made and notes more. It is asked even when problems are known, as
    long as something could be made of the rest; what follows from known ones is left out.
    """
    shaped = _Walker(findings).walk(_info(type_), data, ())
    try:
        made = msgspec.convert(shaped, type_)
    except msgspec.ValidationError as error:
        if not findings.problems:  # a rule of the type that the walk does not know
            findings.add("type", (), str(error))
        raise findings.invalid() from None
    if also is not None:
        findings.second_look()
        also(made)
    findings.check()
    return made


class _Bad:
    """What stands for a value that has been refused."""


_BAD = _Bad()


@cache
def _info(type_: type[msgspec.Struct]) -> inspect.Type:
    return inspect.type_info(type_)


class _Walker:
    """Returns the data as msgspec wants it: numbers for durations, one word a field."""

    def __init__(self, findings: Findings) -> None:
        self._add = findings.add
        self._spelled = findings.spelled

    def walk(self, info: inspect.Type, value: object, at: At) -> object:
        if len(at) > MAX_DEPTH:
            self._add("too_deep", at[:3], f"limit {MAX_DEPTH}")
            return _BAD
        info, extra = _meant(info, value)
        if "parse" in extra:
            return self._parsed(extra["parse"], value, at)
        if isinstance(info, inspect.AnyType | inspect.CustomType):
            return self._anything(value, at)
        if not _accepts(info, value):
            self._mismatch(info, value, at)
            return _BAD
        if isinstance(value, dict):
            return self._mapping(info, value, at)
        if isinstance(value, list | tuple):
            return self._list(info, extra, value, at)
        return self._scalar(info, extra, value, at)

    def _mapping(self, info: inspect.Type, value: dict[str, object], at: At) -> object:
        if isinstance(info, inspect.StructType):
            return self._struct(info, value, at)
        self._size(info, len(value), at, "entries")
        key_type = getattr(info, "key_type", inspect.AnyType())
        value_type = getattr(info, "value_type", inspect.AnyType())
        for key in value:
            self.walk(key_type, key, (*at, key))
        walked = {key: self.walk(value_type, each, (*at, key)) for key, each in value.items()}
        return {key: each for key, each in walked.items() if each is not _BAD}

    def _list(self, info: inspect.Type, extra: Extra, value: Sequence[object], at: At) -> object:
        if isinstance(info, inspect.TupleType):
            if len(value) != len(info.item_types):
                self._add("range", at, f"{len(info.item_types)} entries, got {len(value)}")
                return _BAD
            of = [*info.item_types]
        else:
            self._size(info, len(value), at, "entries", str(extra.get("code", "range")))
            of = [getattr(info, "item_type", inspect.AnyType())] * len(value)
        walked = [self.walk(of[n], each, (*at, n)) for n, each in enumerate(value)]
        return _BAD if any(each is _BAD for each in walked) else walked

    def _struct(self, info: inspect.StructType, value: dict[str, object], at: At) -> object:
        words: Mapping[str, str] = getattr(info.cls, "WORDS", {})
        fields = {field.encode_name: field for field in info.fields}
        shaped: dict[str, object] = {}
        for key, given in value.items():
            name = words.get(key, key)
            if name not in fields:
                fix = did_you_mean(key, [*fields, *words]) or f"known: {', '.join(fields)}"
                self._add("unknown_field", (*at, key), "", fix)
            elif name in shaped:
                what = f"{key!r} is another word for {name!r}, which is there too"
                self._add("duplicate_key", at, what, "keep one of them")
            else:
                if key != name:
                    self._spelled((*at, name), key)
                shaped[name] = self.walk(fields[name].type, given, (*at, name))
        absent = [name for name, field in fields.items() if field.required and name not in shaped]
        if absent:
            self._add("missing", at, f"Missing required field(s): {', '.join(absent)}")
        known = len(shaped) == len(value)
        self._exactly_one(getattr(info.cls, "KINDS", ()), shaped, at, known=known)
        return {name: each for name, each in shaped.items() if each is not _BAD}

    def _exactly_one(
        self, kinds: tuple[str, ...], shaped: Mapping[str, object], at: At, *, known: bool
    ) -> None:
        said = [kind for kind in kinds if kind in shaped]
        if len(said) > 1:
            named = " and ".join(map(repr, said))
            self._add("kind", at, f"has {named}", "keep exactly one of them")
        elif kinds and not said and known:  # a misspelt kind has been named already
            self._add("kind", at, f"needs one of {', '.join(kinds)}")

    def _scalar(self, info: inspect.Type, extra: Extra, value: object, at: At) -> object:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._number(info, extra, value, at)
        fits = True
        if isinstance(value, str) and isinstance(info, inspect.StrType):
            fits = self._text(info, extra, value, at)
        check = extra.get("check")
        wrong = check(value) if fits and callable(check) else ""
        if wrong:
            self._add(str(extra.get("code", "value")), at, str(wrong))
        return value if fits and not wrong else _BAD

    def _text(self, info: inspect.StrType, extra: Extra, value: str, at: At) -> bool:
        code = str(extra.get("code", "range"))
        if info.pattern and not re.fullmatch(info.pattern, value):
            say = extra.get("say", f"must match {info.pattern}")
            self._add(code, at, f"{say}, got {shown(value, 40)}")
            return False
        return self._size(info, len(value), at, "characters", code)

    def _number(self, info: inspect.Type, extra: Extra, value: float, at: At) -> object:
        limits, inside = _limits(info, value)
        if not inside or not math.isfinite(value) or not -_INT64 <= value < _INT64:
            said = f"{extra.get('say', limits)}, got {value}"
            self._add(str(extra.get("code", "range")), at, said)
            return _BAD
        if not isinstance(info, inspect.IntType):
            return value
        if int(value) != value:
            self._add("type", at, f"expected a whole number, got {value}")
            return _BAD
        return int(value)

    def _size(self, info: inspect.Type, size: int, at: At, of: str, code: str = "range") -> bool:
        least = getattr(info, "min_length", None) or 0
        most = getattr(info, "max_length", None)
        if size >= least and (most is None or size <= most):
            return True
        limits = f"{least}..{most}" if most is not None else f"at least {least}"
        self._add(code, at, f"{limits} {of}, got {size}")
        return False

    def _parsed(self, parse: object, value: object, at: At) -> object:
        try:
            return parse(value) if callable(parse) else value
        except BadQuantity as bad:
            self._add(bad.code, at, bad.what, bad.fix)
            return _BAD

    def _mismatch(self, info: inspect.Type, value: object, at: At) -> None:
        wanted, got = _wanted(info), got_text(value)
        if isinstance(info, inspect.LiteralType):
            near = did_you_mean(value, map(str, info.values)) if isinstance(value, str) else ""
            self._add("choice", at, f"expected {wanted}, got {got}", near)
            return
        quoted = wanted == "text" and isinstance(value, int | float)
        fix = f"write '{str(value).lower()}' in quotes" if quoted else ""
        self._add("type", at, f"expected {wanted}, got {got}", fix)

    def _anything(self, value: object, at: At) -> object:
        """Let pass what JSON can say: nothing else would survive the way to the job."""
        if len(at) > MAX_DEPTH:
            self._add("too_deep", at[:3], f"limit {MAX_DEPTH}")
        elif isinstance(value, dict):
            return {key: self._anything(each, (*at, key)) for key, each in value.items()}
        elif isinstance(value, list | tuple):
            return [self._anything(each, (*at, n)) for n, each in enumerate(value)]
        elif isinstance(value, float | int):
            if not math.isfinite(value) or not -_INT64 <= value < _INT64:
                self._add("range", at, "not a number of 64 bits")
        elif value is not None and not isinstance(value, str):
            self._add("type", at, f"expected text, got {got_text(value)}", "write it in quotes")
        return value


def got_text(value: object) -> str:
    """Return what was given, in words and bounded: ``a boolean``, ``'no'``, ``12``."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return shown(value, 40)
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


def _meant(info: inspect.Type, value: object) -> tuple[inspect.Type, Extra]:
    """Return the type without its wrappings; of a union, the member that `value` is for."""
    extra: Extra = {}
    while isinstance(info, inspect.Metadata | inspect.UnionType):
        if isinstance(info, inspect.UnionType):
            info = _member(info, value)
        else:
            extra = {**(info.extra or {}), **extra}
            info = info.type
    return info, extra


def _member(info: inspect.UnionType, value: object) -> inspect.Type:
    for member in info.types:
        bare, extra = _meant(member, value)
        parses = "parse" in extra and isinstance(value, str)
        if parses or _accepts(bare, value):
            return member
    filled = [each for each in info.types if not isinstance(each, inspect.NoneType)]
    return filled[-1]  # the one that says most is written last


def _accepts(info: inspect.Type, value: object) -> bool:
    if isinstance(info, inspect.LiteralType):
        return any(value == known and type(value) is type(known) for known in info.values)
    python = _PYTHON.get(type(info))
    if python is None:
        return True  # msgspec judges it
    if isinstance(value, bool):
        return bool in python
    return isinstance(value, python)


def _wanted(info: inspect.Type) -> str:
    if isinstance(info, inspect.LiteralType):
        return "one of " + ", ".join(map(repr, info.values))
    return _WORDS.get(type(info), "something else")


def _limits(info: inspect.Type, value: float) -> tuple[str, bool]:
    """Return the bounds of a number in words, and whether `value` is inside."""
    low, high = getattr(info, "ge", None), getattr(info, "le", None)
    above, below = getattr(info, "gt", None), getattr(info, "lt", None)
    inside = (low is None or value >= low) and (high is None or value <= high)
    inside = inside and (above is None or value > above) and (below is None or value < below)
    least = f"{low}" if low is not None else f"more than {above}" if above is not None else ""
    most = f"{high}" if high is not None else f"less than {below}" if below is not None else ""
    if least and most:
        return f"{least}..{most}", inside
    if least or most:
        return f"at least {least}" if least else f"at most {most}", inside
    return "a number of 64 bits", inside
