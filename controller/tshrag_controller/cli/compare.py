"""Metrics of several runs side by side: means with their confidence intervals."""

from collections.abc import Mapping, Sequence

import click
import msgspec
from rich.console import Console
from rich.text import Text

from tshrag_common import metric_requests as mr
from tshrag_common.client import Client
from tshrag_common.errors import NotFound, Refused
from tshrag_common.significance import Moments, interval, welch_of
from tshrag_common.views import SeriesView
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.context import Connection
from tshrag_controller.cli.judge import runs_named
from tshrag_controller.cli.progress import Progress, progress
from tshrag_controller.reports.text import quantity

LEVEL = 0.95
_STATS = ("avg", "stdev", "count")
_WIDTH = 32


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one run; ``low`` and ``high`` bound its mean with 95 % confidence."""

    key: str
    run: str
    unit: str
    count: int
    mean: float
    low: float | None
    high: float | None
    change: float | None  # of the mean, as a ratio to that of the first run
    p_value: float | None


class Comparison(msgspec.Struct, frozen=True):
    """The metrics that two of the runs have at least, by key and run."""

    rows: tuple[Compared, ...]


@options.command(
    examples=(
        "tshrag compare run-01m8… run-01m9…",
        "tshrag compare last:5 --key 'network::*' --plot",
    )
)
@click.argument("runs", nargs=-1, required=True)
@click.option("--key", default="*", show_default=True, help="Metrics, as 'network::*'.")
@click.option("--plot", "plots", is_flag=True, help="Draw the intervals.")
@options.readable
@options.in_lab
def compare(
    connection: Connection, output: str, runs: tuple[str, ...], key: str, plots: bool
) -> None:
    """Compare the means of the metrics of RUNS with those of the first one.

    The interval of a mean is that of 95 % confidence; p is how likely a difference as large comes
    by chance (Welch). 'last:5' stands for the newest five runs.
    """
    with progress(output) as shown:
        found = ask(connection, lambda lab: _compared(lab, runs, key, shown))
    names = list(dict.fromkeys(row.key for row in found.rows))
    render.emit(output, found, lambda out: _print(out, found, plots), names)


async def _compared(lab: Client, texts: Sequence[str], key: str, shown: Progress) -> Comparison:
    named = [run for text in texts for run in await runs_named(lab, text)]
    runs = list(dict.fromkeys(named))
    if len(runs) < 2:
        raise Refused("runs", "one run only", "name two or more", code="range")
    found: dict[str, dict[str, SeriesView]] = {}
    for number, run in enumerate(runs, 1):
        shown.say(f"reading {number} of {len(runs)}")
        answer = await lab.metrics(mr.ListMetrics(run=run, key=key, stats=_STATS))
        for row in answer.whole:
            found.setdefault(row.key, {})[run] = row
    shared = [name for name in sorted(found) if len(found[name]) > 1]
    if not shared:
        raise NotFound("metric", key, found)
    return Comparison(tuple(row for name in shared for row in _of_key(found[name], runs)))


def _of_key(by_run: Mapping[str, SeriesView], runs: Sequence[str]) -> list[Compared]:
    first: Moments | None = None
    rows: list[Compared] = []
    for run in runs:
        row = by_run.get(run)
        if row is None:
            continue
        own = _moments(row)
        low, high = interval(own, LEVEL) or (None, None)
        rows.append(
            Compared(
                key=row.key,
                run=run,
                unit=row.unit,
                count=own.count,
                mean=own.mean,
                low=low,
                high=high,
                change=own.mean / first.mean - 1 if first and first.mean else None,
                p_value=welch_of(first, own) if first else None,
            )
        )
        first = first or own
    return rows


def _moments(row: SeriesView) -> Moments:
    mean, deviation = row.stats.get("avg"), row.stats.get("stdev")
    return Moments(
        row.count,
        float(mean) if isinstance(mean, int | float) else 0.0,
        float(deviation) if isinstance(deviation, int | float) else 0.0,
    )


def _print(out: Console, found: Comparison, plots: bool) -> None:
    heads = ["metric", "run", "samples", "mean", "95 % interval", "change", "p"]
    rows: list[list[render.Cell]] = []
    before = ""
    for row in found.rows:
        rows.append(
            [
                render.text(row.key, 48) if row.key != before else "",
                f"…{row.run[-6:]}",
                Text(str(row.count)),
                Text(quantity(row.mean, row.unit)),
                Text(_interval(row)),
                _change(row),
                Text("" if row.p_value is None else f"{row.p_value:.2g}"),
            ]
        )
        if plots:
            same = [each for each in found.rows if each.key == row.key]
            rows[-1].append(Text(drawn(row, same), "blue"))
        before = row.key
    numbers = ("samples", "mean", "change", "p")
    out.print(render.table([*heads, ""] if plots else heads, rows, numbers))


def _interval(row: Compared) -> str:
    if row.low is None or row.high is None:
        return "-"
    return f"{quantity(row.low, row.unit)} … {quantity(row.high, row.unit)}"


def _change(row: Compared) -> Text:
    if row.change is None:
        return Text("")
    is_sure = row.p_value is not None and row.p_value < 1 - LEVEL
    return Text(f"{100 * row.change:+.3g}%", "bold" if is_sure else "dim")


def drawn(row: Compared, same: Sequence[Compared]) -> str:
    """Draw ``├──●──┤``: the interval of a mean among those of the other runs."""
    edges = [edge for each in same for edge in (each.low, each.mean, each.high) if edge is not None]
    low, span = min(edges), max(edges) - min(edges)

    def place(value: float) -> int:
        return round((value - low) / span * (_WIDTH - 1)) if span else _WIDTH // 2

    line = [" "] * _WIDTH
    if row.low is not None and row.high is not None:
        for at in range(place(row.low), place(row.high) + 1):
            line[at] = "─"
        line[place(row.low)], line[place(row.high)] = "├", "┤"
    line[place(row.mean)] = "●"
    return "".join(line)
