"""Settings of a daemon or of the CLI: a TOML file into a strict Struct, then the environment.

Every field of a Struct can be overridden by a variable that is called like its path:
``TSHRAG_NATS_URL`` is ``url`` of the table ``nats``. All problems are named at once; a file is
named with its line, a variable by its name.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, inspect

from tshrag_common.documents import Document, read_document
from tshrag_common.errors import Refused, shown
from tshrag_common.findings import Findings
from tshrag_common.positions import At
from tshrag_common.strict import convert

T = TypeVar("T", bound=msgspec.Struct)

PREFIX = "TSHRAG_"
DEFAULT_NATS_URL = "nats://127.0.0.1:4222"

_SCHEMES = ("nats", "tls", "ws", "wss")
_URL = re.compile(r"([a-z]+)://(?:[^@/\s]*@)?(\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::([0-9]+))?/?")


def nats_url_fault(url: str) -> str:
    """Return what is wrong with the address of a NATS server; commas part several."""
    for each in url.split(","):
        if "://" not in each:
            return f"{shown(each)} has no scheme; write nats://HOST:4222"
        found = _URL.fullmatch(each.strip())
        if found is None:
            return f"{shown(each)} is no address; write nats://HOST:4222"
        if found[1] not in _SCHEMES:
            return f"scheme {found[1]!r} is none of {', '.join(_SCHEMES)}"
        if found[3] and not 1 <= int(found[3][:6]) <= 65535:
            return f"port {found[3][:12]} is not in 1..65535"
    return ""


NatsUrl = Annotated[str, Meta(extra={"code": "config", "check": nats_url_fault})]


class NatsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The way to the bus. ``creds`` is the path of a file; empty: none is needed."""

    url: NatsUrl = DEFAULT_NATS_URL
    creds: str = ""


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


def read_settings(
    type_: type[T], raw: bytes, name: str, environment: Mapping[str, str] | None = None
) -> T:
    """Return the settings in `raw`, a file called `name`; `environment` goes before it.

    Raises:
        Invalid: with every problem of the file and of the variables.

    """
    empty = Document(file=name, format="toml", data={}, lines={})
    document = read_document(raw, name) if raw.strip() else empty
    findings = Findings(document)
    data = document.data if isinstance(document.data, dict) else {}
    layered = _overlaid(type_, data, environment or {}, findings)
    return convert(layered, type_, findings)


def load_settings(
    type_: type[T], path: Path | None, environment: Mapping[str, str] | None = None
) -> T:
    """Return the settings of the file at `path`; without one, defaults and environment.

    Raises:
        Refused: code ``config``: the file cannot be read.
        Invalid: with every problem of it.

    """
    if path is None:
        return read_settings(type_, b"", "", environment)
    try:
        raw = path.read_bytes()
    except OSError as error:
        why = (error.strerror or "not readable").lower()
        raise Refused(str(path), why, "name another file", code="config") from None
    return read_settings(type_, raw, str(path), environment)


def variables(type_: type[msgspec.Struct]) -> dict[str, At]:
    """Return the variables that override fields of `type_`, and the path of each field."""
    info = inspect.type_info(type_)
    found: dict[str, At] = {}
    for field in info.fields if isinstance(info, inspect.StructType) else ():
        if isinstance(field.type, inspect.StructType):
            for inner in field.type.fields:
                if _is_scalar(inner.type):
                    at = (field.encode_name, inner.encode_name)
                    found[_variable(*at)] = at
        elif _is_scalar(field.type):
            found[_variable(field.encode_name)] = (field.encode_name,)
    return found


def _variable(*path: str) -> str:
    return PREFIX + "_".join(path).upper()


def _is_scalar(info: inspect.Type) -> bool:
    while isinstance(info, inspect.Metadata):
        info = info.type
    if isinstance(info, inspect.UnionType):
        return all(_is_scalar(each) for each in info.types)
    scalars = (inspect.StrType, inspect.IntType, inspect.FloatType, inspect.BoolType)
    return isinstance(info, (*scalars, inspect.LiteralType, inspect.NoneType))


def _overlaid(
    type_: type[msgspec.Struct],
    data: Mapping[str, object],
    environment: Mapping[str, str],
    findings: Findings,
) -> dict[str, object]:
    layered = dict(data)
    for name, at in variables(type_).items():
        if name not in environment:
            continue
        table = layered
        if len(at) > 1:
            inner = layered.get(str(at[0]), {})
            if not isinstance(inner, dict):
                continue  # the file is wrong here, and will be told so
            table = dict(inner)
            layered[str(at[0])] = table
        findings.renamed(at, name)
        table[str(at[-1])] = _value(type_, at, environment[name])
    return layered


def _value(type_: type[msgspec.Struct], at: At, text: str) -> object:
    """Return a variable's text as the field wants it: text stays text, else TOML's own words."""
    info: inspect.Type = inspect.type_info(type_)
    for part in at:
        fields = info.fields if isinstance(info, inspect.StructType) else ()
        info = next(field.type for field in fields if field.encode_name == part)
    while isinstance(info, inspect.Metadata):
        if "parse" in (info.extra or {}):
            return text
        info = info.type
    if isinstance(info, inspect.BoolType):
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if isinstance(info, inspect.IntType | inspect.FloatType):
        return float(text) if re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]+)?", text) else text
    return text
