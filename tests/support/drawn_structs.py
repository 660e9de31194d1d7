"""Tables of the fields of a Struct: name, type in words, default, meaning.

The meaning is the comment behind the field in its source, else what `meanings.py` says.
"""

import ast
import inspect
import re
import textwrap
from functools import cache
from typing import NamedTuple

import msgspec
from msgspec import NODEFAULT, UNSET, inspect as inspection

from tests.support.meanings import MEANINGS

ALIASES = {
    "str": "text",
    "Text": "text",
    "int": "integer",
    "float": "number",
    "bool": "true, false",
    "object": "anything",
    "Token": "name (a-z, 0-9, `_`, `-`)",
    "Name": "text, at most 200",
    "Path": "path below the job's directory",
    "CommandLine": "command line",
    "CommandWords": "list of words",
    "Timeout": "duration, 1s..7d",
    "LongTimeout": "duration, 1s..30d",
    "Sleep": "duration",
    "OutputSize": "size, at most 1GiB",
    "Sha256": "64 hex digits",
    "EnvName": "name of a variable",
    "Labels": "mapping of text",
    "Names": "list of names",
    "Seconds": "seconds",
    "HostName": "name or address",
    "UserName": "name of a user",
    "RunDir": "absolute path",
    "RemotePath": "path on the DUT",
    "LocalPath": "path below the folder",
    "State": "name of a state",
    "Line": "text, one line",
    "Words": "list of text",
    "Pattern": "regex",
    "Argv": "list of text",
    "Hex": "hex digits",
    "PlainWord": "text",
    "EnvValue": "text, one line",
    "ImagePath": "path without a comma",
    "Word": "text",
    "Port": "1..65535",
    "Bound": "quantity",
    "Entry": "path in the load",
    "AxisName": "name of a variable",
    "Axis": "list of values",
    "AxisValue": "value",
    "MetricType": '`"gauge"`, `"counter"`, `"histogram"`',
    "ParamType": "type of a param",
    "Scope": '`"run"`, `"job"`, `"dut"`, `"host"`',
    "OnFail": '`"stop"`, `"continue"`',
    "Way": '`"host"`, `"dut"`, `"ssh"`, `"serial"`, `"local"`',
    "ReportFormat": "`table`, `md`, `json`, `junit`, `html`",
    "Url": "URL",
}
_NONE = ("UnsetType", "None")


class Field(NamedTuple):
    """One row."""

    name: str
    type: str
    default: str
    meaning: str


def fields_of(struct: type[msgspec.Struct]) -> list[Field]:
    """Return the fields in their order, under the names that people write.

    Raises:
        LookupError: nobody says what a field means.

    """
    sources = sources_of(struct)
    info = inspection.type_info(struct)
    assert isinstance(info, inspection.StructType)
    infos = {field.name: field.type for field in info.fields}
    rows = []
    for field in msgspec.structs.fields(struct):
        annotation, comment = sources[field.name]
        meaning = MEANINGS.get(f"{struct.__name__}.{field.encode_name}") or comment
        if not meaning:
            where = f"{struct.__name__}.{field.encode_name}"
            raise LookupError(f"say what {where} means: behind it, or in tests/support/meanings.py")
        type_ = in_words(annotation)
        type_ += "" if type_.startswith(tuple("0123456789")) else bounds(infos[field.name])
        rows.append(Field(field.encode_name, type_, default_of(field), meaning))
    return rows


def table(struct: type[msgspec.Struct]) -> str:
    """Return the fields of `struct` as a table."""
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for row in fields_of(struct):
        cells = (f"`{row.name}`", row.type, row.default, row.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def default_of(field: "msgspec.structs.FieldInfo") -> str:
    """Return a default as people write it; empty where there is none."""
    default = field.default
    if field.default_factory is not NODEFAULT:
        default = field.default_factory()
    if default is NODEFAULT:
        return "**needed**"
    if default is UNSET or default is None or default == "" or default == () or default == {}:
        return ""
    if isinstance(default, msgspec.Struct):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    said = f"{default:.15g}" if isinstance(default, float) else str(default)
    return f"`{said!r}`" if "\r" in said else f"`{said}`"


def in_words(node: ast.expr) -> str:
    """Return a type as people say it."""
    if isinstance(node, ast.Constant):
        return ALIASES.get(str(node.value), str(node.value).lower())
    if isinstance(node, ast.BinOp):
        sides = [each for each in (node.left, node.right) if ast.unparse(each) not in _NONE]
        return " or ".join(in_words(each) for each in sides)
    if isinstance(node, ast.Subscript):
        return _subscript(node)
    name = node.attr if isinstance(node, ast.Attribute) else ast.unparse(node)
    return ALIASES.get(name, re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower())


def _subscript(node: ast.Subscript) -> str:
    name = ast.unparse(node.value)
    inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name == "Annotated":
        return in_words(inner[0])
    if name == "Literal":
        words = [each.value for each in inner if isinstance(each, ast.Constant)]
        return ", ".join(
            f'`"{word}"`' if isinstance(word, str) else f"`{word!r}`" for word in words
        )
    if name == "tuple" and "..." in ast.unparse(inner[-1]):
        return f"list of {in_words(inner[0])}"
    if name == "tuple":
        return f"[{', '.join(in_words(each) for each in inner)}]"
    if name == "dict":
        return f"mapping to {in_words(inner[1])}"
    return ast.unparse(node)


def bounds(info: inspection.Type) -> str:
    """Return the limits of a number, where it has any."""
    while isinstance(info, inspection.Metadata):
        info = info.type
    if isinstance(info, inspection.UnionType):
        return next((said for said in map(bounds, info.types) if said), "")
    if not isinstance(info, inspection.IntType | inspection.FloatType):
        return ""
    if info.ge is not None and info.le is not None:
        return f", {_number(info.ge)}..{_number(info.le)}"
    if info.gt is not None and info.le is not None:
        return f", at most {_number(info.le)}"
    return f", at least {_number(info.ge)}" if info.ge is not None else ""


def _number(value: float) -> str:
    """Return a whole number without a fraction: typing holds Meta(ge=1) and Meta(ge=1.0) for one.

    Which of them a field has depends on what was imported first.
    """
    return str(int(value)) if value == int(value) else str(value)


@cache
def sources_of(struct: type[msgspec.Struct]) -> dict[str, tuple[ast.expr, str]]:
    """Return annotation and trailing comment of every field, those of its bases too."""
    found: dict[str, tuple[ast.expr, str]] = {}
    for cls in reversed(struct.__mro__):
        if cls in (msgspec.Struct, object) or not issubclass(cls, msgspec.Struct):
            continue
        text = textwrap.dedent(inspect.getsource(cls))
        lines = text.split("\n")
        (node,) = ast.parse(text).body
        for line in getattr(node, "body", ()):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                last = lines[(line.end_lineno or line.lineno) - 1]
                comment = re.search(r"#\s*(?!fmt:)(.+)$", last[line.end_col_offset or 0 :])
                found[line.target.id] = (line.annotation, comment[1] if comment else "")
    return found
