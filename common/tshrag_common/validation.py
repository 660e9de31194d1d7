"""PURE: every problem of one file, whatever it is: a profile, a manifest, settings.

`tshrag validate` prints what stands here; the JSON Schemas for editors are made here too.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from tshrag_common.errors import Invalid, LabError, Problem
from tshrag_common.fields import QUANTITY
from tshrag_common.manifest import FILE, Manifest, read_manifest
from tshrag_common.profile import Profile
from tshrag_common.reading import read_profile

Schema = dict[str, Any]


def validate_document(raw: bytes, name: str) -> list[Problem]:
    """Return every problem of the file called `name`; ``load.toml`` is a manifest."""
    read = read_manifest if name.rpartition("/")[2] == FILE else read_profile
    try:
        read(raw, name)
    except Invalid as invalid:
        return list(invalid.problems)
    except LabError as error:
        where = error.where
        return [Problem(code=error.code, where=where, what=error.what, fix=error.fix, file=name)]
    return []


def profile_schema() -> Schema:
    """Return the JSON Schema of a profile, other spellings of its words included."""
    return _schema(Profile, "tshrag profile")


def manifest_schema() -> Schema:
    """Return the JSON Schema of ``load.toml``."""
    return _schema(Manifest, "tshrag load manifest")


def _schema(type_: type[msgspec.Struct], title: str) -> Schema:
    (top,), parts = msgspec.json.schema_components(
        [type_], schema_hook=_anything, ref_template="#/$defs/{name}"
    )
    named = _structs(type_)
    defs = {name: _strict(part, named.get(name)) for name, part in sorted(parts.items())}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return {**head, **top, "$defs": defs}


def _anything(type_: type) -> Schema:
    return {"description": "any value"}


def _structs(type_: type[msgspec.Struct]) -> dict[str, type]:
    """Return every Struct below `type_` by its name in the schema."""
    found: dict[str, type] = {}
    info = msgspec.inspect.type_info(type_)
    waiting: list[object] = [info]
    while waiting:
        each = waiting.pop()
        if isinstance(each, msgspec.inspect.StructType):
            if each.cls.__name__ in found:
                continue
            found[each.cls.__name__] = each.cls
            waiting.extend(field.type for field in each.fields)
        for part in ("type", "item_type", "key_type", "value_type"):
            if hasattr(each, part):
                waiting.append(getattr(each, part))
        waiting.extend(getattr(each, "types", ()))
        waiting.extend(getattr(each, "item_types", ()))
    return found


def _strict(part: Schema, of: type | None) -> Schema:
    """Return the schema of one Struct as we read it: no other keys, all words, one kind."""
    if "properties" not in part:
        return part
    words: Mapping[str, str] = getattr(of, "WORDS", {})
    properties = dict(part["properties"])
    for name, each in properties.items():
        if each.get("format") == QUANTITY:
            properties[name] = {**each, "type": ["number", "string"]}
    for word, name in words.items():
        properties[word] = properties[name]
    made = {**part, "properties": properties, "additionalProperties": False}
    required = [name for name in part.get("required", ()) if name not in words.values()]
    made["required"] = required
    either = [
        {"oneOf": [{"required": [each]} for each in _spellings(name, words)]}
        for name in part.get("required", ())
        if name in words.values()
    ]
    kinds = getattr(of, "KINDS", ())
    if kinds:
        spelled = [each for kind in kinds for each in _spellings(kind, words)]
        either.append({"oneOf": [{"required": [each]} for each in spelled]})
    return {**made, "allOf": either} if either else made


def _spellings(name: str, words: Mapping[str, str]) -> list[str]:
    return [name, *(word for word, meant in words.items() if meant == name)]
