"""PURE: bytes of a file that a person wrote -> plain data, and where each value stands.

JSON (comments and trailing commas are fine in it), TOML and YAML 1.2, told apart by the ending of
the name, else by what the text begins with. All of it is hostile: size first, then encoding, then
syntax. Keys that stand twice are refused in every format.
"""

import re
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from tshrag_common.errors import Invalid, Problem, Refused
from tshrag_common.jsontext import parse_json
from tshrag_common.positions import At, Broken, Fault, Parsed
from tshrag_common.tomltext import parse_toml

Format = Literal["json", "toml", "yaml"]

MAX_BYTES = 262_144
MAX_FAULTS = 100

_ENDINGS: dict[str, Format] = {
    "json": "json",
    "jsonc": "json",
    "json5": "json",
    "toml": "toml",
    "yaml": "yaml",
    "yml": "yaml",
}
_LEAD = re.compile(r"(?:\s++|//[^\n]*+|/\*(?:[^*]|\*(?!/))*+\*/)*+")
_TOML_LEAD = re.compile(r"(?:\s++|#[^\n]*+)*+(?:\[\[?[\w\s.\"'-]+\]|[\w.\"'-]+[ \t]*=)")
_REMARKS = re.compile(r"(?:\s++|#[^\n]*+)*+")


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A text that was read: its data, and the line of every path in it."""

    file: str
    format: Format
    data: object
    lines: dict[At, int]


def read_document(raw: bytes, name: str, *, kind: str = "profile") -> Document:
    """Read `raw`, which its author calls `name` (empty where it has none).

    `kind` names the code of an empty document: ``profile_empty``.

    Raises:
        Invalid: it is too large, no text, empty, or breaks the rules of its format.

    """
    file = name if name.isprintable() else ascii(name)[1:-1]
    if len(raw) > MAX_BYTES:
        fault = Fault(code="too_large", what=f"{len(raw)} > {MAX_BYTES} bytes")
        raise Invalid(_problems((fault,), file))
    text = _decoded(raw, file)
    form = format_of(text, name)
    if not _content(text, form):
        raise Invalid(_problems((Fault(code=f"{kind}_empty", what="no content"),), file))
    try:
        parsed = _parser(form)(text)
    except Broken as broken:
        raise Invalid(_problems((broken.fault,), file)) from None
    if parsed.faults:
        raise Invalid(_problems(parsed.faults[:MAX_FAULTS], file))
    return Document(file=file, format=form, data=parsed.data, lines=parsed.lines)


def format_of(text: str, name: str) -> Format:
    """Return the format of `text` by the ending of `name`, else by how it begins."""
    _, dot, ending = name.rpartition(".")
    if dot and ending.lower() in _ENDINGS:
        return _ENDINGS[ending.lower()]
    lead = _LEAD.match(text)
    begin = lead.end() if lead else 0
    if text[begin : begin + 1] in ("{", "["):
        return "toml" if _TOML_LEAD.match(text) else "json"
    return "toml" if _TOML_LEAD.match(text) else "yaml"


def _decoded(raw: bytes, file: str) -> str:
    if raw.startswith(b"\xef\xbb\xbf"):
        raise Invalid(_problems((_encoding(raw, 0),), file))
    nul = raw.find(b"\0")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        first = min(error.start, nul) if nul >= 0 else error.start
        raise Invalid(_problems((_encoding(raw, first),), file)) from None
    if nul >= 0:
        raise Invalid(_problems((_encoding(raw, nul),), file))
    return text


def _encoding(raw: bytes, offset: int) -> Fault:
    what = f"byte 0x{raw[offset]:02x} at offset {offset}"
    return Fault(code="encoding", what=what)


def _content(text: str, form: Format) -> bool:
    lead = (_LEAD if form == "json" else _REMARKS).match(text)
    rest = text[lead.end() :] if lead else text
    return bool(rest.strip()) and rest.strip() != "---"


def _parser(form: Format) -> Callable[[str], Parsed]:
    if form == "json":
        return parse_json
    if form == "toml":
        return parse_toml
    try:
        from tshrag_common.yamltext import parse_yaml
    except ImportError:
        fix = "write TOML or JSON, or install tshrag-common[yaml]"
        raise Refused("", "YAML cannot be read here", fix, code="yaml_missing") from None
    return parse_yaml


def _problems(faults: Iterable[Fault], file: str) -> list[Problem]:
    return [
        Problem(
            code=fault.code,
            where="",
            what=fault.what,
            fix=fault.fix,
            line=fault.line,
            column=fault.column,
            file=file,
        )
        for fault in faults
    ]
