"""Draws the parts of docs/ that are facts of the code: ``python -m tests.support.draw_docs``.

A page says ``<!-- drawn: NAME -->`` and ``<!-- /drawn -->``; what stands between is made here.
tests/test_docs.py fails when it is not fresh.
"""

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import msgspec

from tests.support.drawn_commands import commands_text
from tests.support.drawn_errors import collected_reasons, errors_table
from tests.support.drawn_settings import settings_table
from tests.support.drawn_structs import table
from tshrag_common import (
    actions,
    criteria,
    manifest,
    metrics,
    params,
    profile,
    requests,
    results,
    schedule,
    scrapes,
    states,
    statistics,
    streams,
    subjects,
    units,
)
from tshrag_controller.core import events
from tshrag_controller.store import guard

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
_BLOCK = re.compile(r"(<!-- drawn: ([\w.-]+) -->\n).*?(<!-- /drawn -->)", re.DOTALL)


def main() -> None:
    """Draw every block of every page; print which pages changed."""
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text()
        fresh = drawn(text)
        if fresh != text:
            path.write_text(fresh)
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")


def drawn(text: str) -> str:
    """Return a page with all of its blocks made anew.

    Raises:
        KeyError: there is no block of that name.

    """
    return _BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}\n{found[3]}", text)


def names(text: str) -> list[str]:
    """Return the names of the blocks in a page."""
    return [found[2] for found in _BLOCK.finditer(text)]


def _states(kind: type[StrEnum], machine: states.Machine[Any, Any]) -> str:
    comments = _comments(kind)
    lines = ["| state | moves on | meaning |", "|---|---|---|"]
    for state in kind:
        moves = ", ".join(f"{cause} → **{to}**" for cause, to in machine.moves[state].items())
        lines.append(f"| **{state}** | {moves or 'final'} | {comments.get(state.name, '')} |")
    return "\n".join(lines)


def _comments(kind: type[StrEnum]) -> dict[str, str]:
    found = re.findall(r"^    (\w+) = \"\w+\"  # (.+)$", inspect.getsource(kind), re.MULTILINE)
    return dict(found)


def _docstring_table(module: object) -> str:
    """Return the part of a docstring between lines of equals signs, or its indented part."""
    doc = inspect.getdoc(module) or ""
    if "====" in doc:
        parts = re.split(r"^=+ +=+.*$", doc, flags=re.MULTILINE)
        return "```text\n" + parts[1].strip("\n") + "\n```"
    lines = [line[4:] for line in doc.split("\n") if line.startswith("    ")]
    return "```text\n" + "\n".join(lines) + "\n```"


def _events() -> str:
    lines = ["| kind | what it says | fields |", "|---|---|---|"]
    for kind in get_args(events.AnyEvent):
        about = " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())
        fields = ", ".join(f"`{field.name}`" for field in msgspec.structs.fields(kind))
        lines.append(f"| `{kind.__struct_config__.tag}` | {about} | {fields} |")
    return "\n".join(lines)


def _views() -> str:
    parts: list[str] = []
    for view, columns in guard.VIEWS.items():
        rows = [f"| `{name}` | {about} |" for name, about in columns.items()]
        parts.append("\n".join([f"### `{view}`", "", "| column | meaning |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _verbs() -> str:
    return " ".join(f"`{verb}`" for verb in get_args(requests.Verb))


def _units() -> str:
    by_dimension: dict[str, list[units.Unit]] = {}
    for unit in units.UNITS.values():
        if (
            not unit.name.endswith(("/sec", "/min", "/h"))
            and "\N{GREEK SMALL LETTER MU}" not in unit.name
        ):
            by_dimension.setdefault(unit.dimension, []).append(unit)
    lines = ["| dimension | stored in | written as |", "|---|---|---|"]
    for dimension, known in by_dimension.items():
        base = units.BASES[known[0].dimension] or "a plain number"
        words = " ".join(f"`{each.name}`" for each in known if each.name)
        lines.append(f"| {dimension} | {base} | {words} |")
    return "\n".join(lines)


def _reasons() -> str:
    lines = ["| reason | what `why` says |", "|---|---|"]
    rows: dict[str, list[str]] = {}
    for code, text in collected_reasons():
        rows.setdefault(code, []).append(text)
    lines += [f"| `{code}` | {' / '.join(dict.fromkeys(rows[code]))} |" for code in rows]
    return "\n".join(lines)


def _decisions() -> str:
    lines = []
    for path in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        title = path.read_text().partition("\n")[0].removeprefix("# ").strip()
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines)


BLOCKS: Mapping[str, Callable[[], str]] = {
    "states.run": lambda: _states(states.RunState, states.RUN),
    "states.job": lambda: _states(states.JobState, states.JOB),
    "states.attempt": lambda: _states(states.AttemptState, states.ATTEMPT),
    "states.agent": lambda: _states(states.AgentState, states.AGENT),
    "subjects": lambda: _docstring_table(subjects),
    "streams": lambda: _docstring_table(streams),
    "statistics": lambda: _docstring_table(statistics),
    "units": _units,
    "verbs": _verbs,
    "views": _views,
    "events": _events,
    "errors": errors_table,
    "commands": commands_text,
    "reasons": _reasons,
    "decisions": _decisions,
    "settings.controller": lambda: settings_table("controller"),
    "settings.agent": lambda: settings_table("agent"),
    "profile": lambda: table(profile.Profile),
    "profile.load": lambda: table(profile.LoadSource),
    "profile.target": lambda: table(profile.Role),
    "profile.group": lambda: table(profile.GroupOptions),
    "profile.retries": lambda: table(schedule.Retries),
    "profile.limits": lambda: table(profile.Limits),
    "profile.report": lambda: table(profile.ReportOptions),
    "profile.step": lambda: table(schedule.Step),
    "profile.repeat": lambda: table(schedule.Repeat),
    "profile.boot": lambda: table(actions.Boot),
    "profile.send": lambda: table(actions.Send),
    "profile.expect": lambda: table(actions.Expect),
    "profile.upload": lambda: table(actions.Upload),
    "profile.download": lambda: table(actions.Download),
    "profile.flash": lambda: table(actions.Flash),
    "profile.freeze": lambda: table(actions.Freeze),
    "profile.capture": lambda: table(actions.Capture),
    "profile.matrix": lambda: table(schedule.Matrix),
    "load": lambda: table(manifest.Manifest),
    "load.platform": lambda: table(manifest.Platform),
    "load.needs": lambda: table(manifest.Needs),
    "load.param": lambda: table(params.Param),
    "load.metric": lambda: table(metrics.MetricInfo),
    "load.results": lambda: table(results.ResultFile),
    "load.scrape": lambda: table(scrapes.Scrape),
    "criterion": lambda: table(criteria.Criterion),
    "criterion.window": lambda: table(criteria.Window),
}

if __name__ == "__main__":
    main()
