"""Answers on a terminal, as JSON, or as ids only.

Text of others goes through `clean` and into `Text`, never into markup. Colour is off where the
output is no terminal, and with NO_COLOR.
"""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import click
import msgspec
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from tshrag_common.views import JobView, RunView
from tshrag_controller.reports.text import clean, duration, safe_json, span

STYLES: Mapping[str, str] = {
    "waiting": "yellow", "assigned": "cyan", "preparing": "cyan", "running": "blue",
    "collecting": "blue", "evaluating": "blue", "passed": "green", "failed": "red",
    "error": "red", "timeout": "red", "expired": "red", "cancelled": "magenta",
    "skipped": "bright_black", "pass": "green", "fail": "red",
    "online": "green", "suspect": "yellow", "lost": "red", "draining": "cyan",
    "offline": "bright_black", "available": "green", "leased": "blue", "faulty": "red",
    "teardown": "cyan", "unreachable": "red", "held": "blue", "ok": "green", "degraded": "yellow",
    "on hold": "yellow", "cancelling": "magenta",
    "leader": "green", "standby": "cyan", "leaving": "bright_black",
}  # fmt: skip
MARKS: Mapping[str, str] = {
    "passed": "✓", "failed": "✗", "error": "!", "timeout": "!", "expired": "!",
    "cancelled": "⊘", "skipped": "·", "running": "▶", "pass": "✓", "fail": "✗",
}  # fmt: skip
EXITS: Mapping[str, int] = {
    "passed": 0, "failed": 1, "error": 1, "cancelled": 4, "timeout": 5, "expired": 5,
}  # fmt: skip

WHOLE = (
    "run", "agent", "state", "took", "submitted", "verdict", "#", "count", "heard", "place",
    "since", "until",
)  # fmt: skip
"""Columns that are copied or compared: never broken into lines while another one can be."""

_WIDE = 400  # what is no terminal has no edge to wrap at

Cell = str | Text


def console(*, err: bool = False) -> Console:
    """Return a console for stdout (or stderr) as it is now."""
    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else _WIDE
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def emit(
    output: str,
    answer: msgspec.Struct,
    table: Callable[[Console], None],
    names: Iterable[str],
) -> None:
    """Print `answer` as `output` says: by `table`, as JSON, or only `names`."""
    if output == "json":
        click.echo(safe_json(msgspec.json.encode(answer)))
    elif output == "quiet":
        for name in names:
            click.echo(clean(name))
    else:
        table(console())


def state(word: str) -> Text:
    """Return a state in its colour, with its mark."""
    mark = MARKS.get(word)
    return Text(f"{mark} {word}" if mark else clean(word), STYLES.get(word, ""))


def run_state(run: RunView) -> Text:
    """Return the state of a run; on hold, where nothing of it may start."""
    waits = run.counts.get("waiting", 0)
    is_held = run.state == "waiting" and run.held and run.held == waits
    return state("on hold" if is_held else run.state)


def job_state(job: JobView) -> Text:
    """Return the state of a job; on hold, where a person holds it back."""
    return state("on hold" if job.held else job.state)


def run_counts(run: RunView) -> Text:
    """Return how many jobs are in which state; those on hold are not told as waiting."""
    waits = run.counts.get("waiting", 0) - run.held
    return counted({**run.counts, "waiting": max(0, waits), "on hold": run.held})


def text(given: str, most: int = 0, style: str = "") -> Text:
    """Return hostile text as a cell."""
    return Text(clean(given, most), style)


def table(heads: Sequence[str], rows: Iterable[Sequence[Cell]], right: Sequence[str] = ()) -> Table:
    """Return a table without frames; columns named in `right` are aligned there."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for head in heads:
        justify: JustifyMethod = "right" if head in right else "left"
        made.add_column(head, justify=justify, overflow="fold", no_wrap=head in WHOLE)
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else text(cell) for cell in row))
    return made


def facts(rows: Iterable[tuple[str, Cell]]) -> Table:
    """Return names and values, one pair a line."""
    made = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, value if isinstance(value, Text) else text(value))
    return made


def when(at_us: int) -> str:
    """Return an instant in local time; a dash where there is none."""
    if not at_us:
        return "-"
    return datetime.fromtimestamp(at_us / 1e6).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def near(at_us: int) -> str:
    """Return an instant as people say it: of today without its date, nothing below a minute."""
    local = datetime.fromtimestamp(at_us / 1e6).astimezone()
    is_today = local.date() == datetime.now().astimezone().date()
    return local.strftime("%H:%M" if is_today else "%Y-%m-%d %H:%M")


def took(started_at: int, ended_at: int) -> str:
    """Return how long it took, or for how long it goes on: ``12s …``; nothing before its begin."""
    if not started_at or ended_at:
        return span(started_at, ended_at)
    return duration(max(0, time.time_ns() // 1000 - started_at) // 1_000_000) + " …"


def counted(counts: Mapping[str, int]) -> Text:
    """Return ``3 passed, 1 failed`` in colours."""
    parts = [
        Text(f"{count} {clean(name)}", STYLES.get(name, ""))
        for name, count in sorted(counts.items(), key=_weight)
        if count
    ]
    return Text(", ").join(parts) if parts else Text("none")


def _weight(item: tuple[str, int]) -> int:
    order = list(STYLES)
    return order.index(item[0]) if item[0] in order else len(order)


def exit_code(word: str) -> int:
    """Return the exit code of a final state."""
    return EXITS.get(word, 1)


def note(line: str) -> None:
    """Say something to the person at the terminal, beside the output."""
    click.echo(line, err=True)
