"""Tables of settings: path, type, default and variable from the Structs, words from configs/.

The files in ``configs/`` show every setting with a comment; that comment is what the table says.
"""

import re
from pathlib import Path

import msgspec
from msgspec import inspect

from tests.support.drawn_structs import Field, bounds, default_of, in_words, sources_of
from tshrag_agent.settings import AgentSettings
from tshrag_common.settings import variables
from tshrag_controller.settings import ControllerSettings

ROOT = Path(__file__).parent.parent.parent
FILES: dict[str, tuple[type[msgspec.Struct], Path]] = {
    "controller": (ControllerSettings, ROOT / "configs/controller.toml"),
    "agent": (AgentSettings, ROOT / "configs/agent.toml"),
}
AS_ABOVE = {"dut.ssh.jump": "dut.ssh", "dut.local.guard": "dut.ssh.guard"}
"""Tables that have the same fields as another one."""

VARIABLES = {  # of the agent, whose settings read these only
    "agent.store": "TSHRAG_STORE",
    "agent.cache": "TSHRAG_CACHE",
    "nats.url": "TSHRAG_NATS_URL",
    "nats.bundle": "TSHRAG_AGENT_BUNDLE",
}
_LISTS = ("dut", "dut.boot.move", "dut.boot.move.acts")
_TABLE = re.compile(r"^(?:# )?\[+([\w.]+)\]+")
_SETTING = re.compile(r"^(?:# )?(\w+) = (.+?)(?:\s+#\s(.+))?$")


def said_of(name: str) -> dict[str, str]:
    """Return path -> comment of every setting that the file in configs/ shows."""
    table, found = "", dict[str, str]()
    for line in FILES[name][1].read_text().splitlines():
        if head := _TABLE.match(line):
            table = head[1]
        elif setting := _SETTING.match(line):
            path = f"{table}.{setting[1]}" if table else setting[1]
            found[path] = found.get(path) or setting[3] or ""
    return found


def settings_of(name: str) -> dict[str, Field]:
    """Return every setting of a daemon by its path, as its Structs have it."""
    found: dict[str, Field] = {}
    _gather(FILES[name][0], "", found, said_of(name))
    return found


def settings_table(name: str) -> str:
    """Return all tables of a daemon's file, one after the other."""
    named = {".".join(map(str, at)): each for each, at in variables(FILES[name][0]).items()}
    named = VARIABLES if name == "agent" else named
    tables: dict[str, list[str]] = {}
    for path, field in settings_of(name).items():
        variable = f"`{named[path]}`" if path in named else ""
        cells = [f"`{field.name}`", field.type, field.default, variable, field.meaning]
        row = "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        tables.setdefault(path.rpartition(".")[0], []).append(row)
    head = "| setting | type | default | variable | meaning |\n|---|---|---|---|---|"
    return "\n\n".join(
        f"### {_title(table)}\n\n{head}\n" + "\n".join(rows) for table, rows in tables.items()
    )


def _title(table: str) -> str:
    if not table:
        return "Above all tables, or as a table of its own"
    return f"`[[{table}]]`" if table in _LISTS else f"`[{table}]`"


def _gather(
    struct: type[msgspec.Struct], above: str, found: dict[str, Field], said: dict[str, str]
) -> None:
    info = inspect.type_info(struct)
    types = {field.name: field.type for field in getattr(info, "fields", ())}
    for field in msgspec.structs.fields(struct):
        path = f"{above}.{field.encode_name}".lstrip(".")
        inner = _struct_of(types[field.name])
        if inner is not None and path not in AS_ABOVE:
            _gather(inner, path, found, said)
        elif inner is None:
            annotation, _ = sources_of(struct)[field.name]
            words = in_words(annotation)
            words += "" if words[0].isdigit() else bounds(types[field.name])
            found[path] = Field(field.encode_name, words, default_of(field), said.get(path, ""))


def _struct_of(info: inspect.Type) -> type[msgspec.Struct] | None:
    """Return the Struct in a type: alone, optional, or in a list."""
    if isinstance(info, inspect.StructType):
        return info.cls
    if isinstance(info, inspect.VarTupleType):
        return _struct_of(info.item_type)
    if isinstance(info, inspect.UnionType):
        return next((found for found in map(_struct_of, info.types) if found), None)
    return None
