"""PURE. What a query may be: one SELECT over the documented views, and nothing that acts.

DuckDB's own parser takes the text apart; what is carried out is written anew from what was
checked, so that there is no second reading of the text. The process that carries it out can
open no file but the segments of the org, and has no network and no extensions.
"""

import re
from collections.abc import Iterator, Mapping

import msgspec

from tshrag_common.errors import Refused, did_you_mean, shown

VIEWS: Mapping[str, Mapping[str, str]] = {
    "samples": {
        "time": "when, UTC, in microseconds",
        "value": "the number, in the base unit of its metric",
        "duration_us": "how long it held from `time` on; 0: an instant",
        "key": "the metric, as `network.latency`",
        "unit": "how the metric is printed",
        "type": "`gauge`, `counter` or `histogram`",
        "run": "the run; empty: samples of a host or an idle DUT",
        "job": "the job, or empty",
        "attempt": "its attempt, from 1; 0 without a job",
        "agent": "the agent, which is the host",
        "dut": "the DUT, or empty",
    },
    "series": {
        "key": "as above, one row for each series",
        "unit": "", "type": "", "run": "", "job": "", "attempt": "", "agent": "", "dut": "",
        "samples": "how many",
        "first_at": "time of the earliest",
        "last_at": "time of the latest",
    },
    "runs": {
        "run": "its id",
        "name": "of the profile",
        "by": "who submitted it",
        "state": "as in `tshrag list`",
        "priority": "0 to 100",
        "created_at": "time of the submit",
        "started_at": "or null",
        "ended_at": "or null",
        "reason": "why it is in this state",
    },
    "jobs": {
        "job": "its id",
        "run": "its run",
        "name": "of the step",
        "state": "as in `tshrag status`",
        "started_at": "or null",
        "ended_at": "or null",
    },
}  # fmt: skip
"""View -> column -> what it is; a query sees what its org may see."""

MOST_SQL = 20_000
TABLE_FUNCTIONS = ("range", "generate_series", "unnest")
_FORBIDDEN = re.compile(
    r"(current_setting|set_.*|getenv|getvariable|query|query_table|write_log|sleep.*|nextval|"
    r"currval|txid_current|read_.*|parse_duckdb.*|pragma_.*|duckdb_.*|pg_.*|json_execute.*|"
    r"json_serialize_plan|enable_.*|disable_.*|checkpoint|force_checkpoint|add_parquet_key|"
    r"current_(database|schema|schemas|query|catalog)|in_search_path|has_.*privilege|version)"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class BadQuery(Refused):
    """SQL that is not one SELECT over the views."""

    code = "query"


def checked(tree: bytes) -> frozenset[str]:
    """Return the views that a serialized statement uses.

    Raises:
        BadQuery: it does anything but read them.

    """
    parsed = msgspec.json.decode(tree)
    if parsed.get("error"):
        fix = "one SELECT over " + ", ".join(VIEWS)
        said = str(parsed.get("error_message"))
        no_select = parsed.get("error_type") == "not implemented"
        raise BadQuery("SQL", "it is no SELECT" if no_select else _first_line(said), fix)
    if len(parsed["statements"]) != 1:
        raise BadQuery("SQL", f"{len(parsed['statements'])} statements", "ask one at a time")
    nodes = list(_nodes(parsed))
    own = {name for node in nodes for name in _own_names(node)}
    return frozenset(name for node in nodes if (name := _checked_node(node, own)))


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0][:300]


def _nodes(tree: object) -> Iterator[dict[str, object]]:
    waiting = [tree]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _own_names(node: dict[str, object]) -> Iterator[str]:
    """Yield the names of common table expressions."""
    ctes = node.get("cte_map")
    entries = ctes.get("map", ()) if isinstance(ctes, dict) else ()
    for entry in entries if isinstance(entries, list) else ():
        name = str(entry.get("key"))
        if not _NAME.fullmatch(name):
            raise BadQuery("SQL", f"{shown(name)} is no name for a table")
        yield name.lower()


def _checked_node(node: dict[str, object], own: set[str]) -> str:
    """Return the view that a node names; empty where it names none."""
    kind = node.get("type")
    if kind == "SHOW_REF":
        raise BadQuery("SQL", "SHOW, DESCRIBE and SUMMARIZE", "see 'tshrag query --help'")
    if node.get("function_name") is not None:
        _check_function(str(node["function_name"]))
    if kind == "TABLE_FUNCTION":
        function = node.get("function")
        name = str(function.get("function_name")) if isinstance(function, dict) else ""
        if name.lower() not in TABLE_FUNCTIONS:
            raise BadQuery("SQL", f"{name}() is no table of samples", "see 'tshrag query --help'")
    if kind != "BASE_TABLE":
        return ""
    name = str(node.get("table_name")).lower()
    if node.get("schema_name") or node.get("catalog_name") or name not in {*VIEWS, *own}:
        near = did_you_mean(name, VIEWS) or "there are " + ", ".join(VIEWS)
        raise BadQuery("SQL", f"no table {shown(name)}", near)
    return name if name in VIEWS else ""


def _check_function(name: str) -> None:
    if _FORBIDDEN.fullmatch(name.lower()):
        raise BadQuery("SQL", f"{name}() is not for queries", "leave it out")
