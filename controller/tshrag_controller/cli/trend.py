"""A metric over many runs: its course, and where its level changed for good."""

from collections.abc import Sequence

import click
import msgspec
from rich.console import Console
from rich.text import Text

from tshrag_common import metric_requests as mr
from tshrag_common.changepoints import change_points
from tshrag_common.client import Client
from tshrag_common.errors import LabError, Refused
from tshrag_common.metrics import metric_key
from tshrag_common.statistics import UnknownStatistic, is_one_number, unit_of
from tshrag_common.times import printed_instant
from tshrag_common.views import SeriesView
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.context import Connection
from tshrag_controller.cli.judge import runs_named
from tshrag_controller.cli.progress import Progress, progress
from tshrag_controller.reports.plot import plot
from tshrag_controller.reports.text import quantity


class Point(msgspec.Struct, frozen=True):
    """The value of one run, of one DUT or host where they are told apart."""

    run: str
    at: int
    group: str
    value: float
    is_change: bool = False  # a new level begins here


class Trend(msgspec.Struct, frozen=True):
    """A metric over runs, the oldest first."""

    key: str
    stat: str
    unit: str
    points: tuple[Point, ...]


@options.command(
    examples=(
        "tshrag trend boot::time --runs last:200",
        "tshrag trend network::latency --stat p99 --by dut",
    )
)
@click.argument("key")
@click.option("--runs", "wanted", default="last:100", show_default=True, help="The newest N.")
@click.option("--name", default="", help="Only runs of this name.")
@click.option("--stat", default="avg", show_default=True, help="A statistic, as p99.9.")
@click.option("--by", type=click.Choice(["dut", "host"]), help="A course for each of them.")
@options.readable
@options.in_lab
def trend(
    connection: Connection,
    output: str,
    key: str,
    wanted: str,
    name: str,
    stat: str,
    by: str | None,
) -> None:
    """Show KEY over many runs, and mark where its level changed for good."""
    if not is_one_number(stat):
        raise UnknownStatistic(stat, "--stat")
    asked = metric_key(key)
    with progress(output) as shown:
        found = ask(connection, lambda lab: _trend(lab, asked, wanted, name, stat, by, shown))
    changes = [point.run for point in found.points if point.is_change]
    render.emit(output, found, lambda out: _print(out, found), changes)


async def _trend(
    lab: Client, key: str, wanted: str, name: str, stat: str, by: str | None, shown: Progress
) -> Trend:
    runs = await runs_named(lab, wanted, name)
    points: list[Point] = []
    unit = ""
    for number, run in enumerate(reversed(runs), 1):
        shown.say(f"reading {number} of {len(runs)}")
        try:
            answer = await lab.metrics(mr.ListMetrics(run=run, key=key, stats=(stat,)))
        except LabError as error:
            if error.code != "unknown_metric":
                raise
            continue  # a run without it
        rows = answer.series if by else answer.whole
        unit = next((row.unit for row in rows), unit)
        points += _points(run, rows, stat, by or "")
    if not points:
        what = f"{key} has no samples in the {len(runs)} runs"
        raise Refused("metric", what, "see 'tshrag metrics RUN'", code="unknown_metric")
    return Trend(key, stat, unit, tuple(marked(points)))


def _points(run: str, rows: Sequence[SeriesView], stat: str, by: str) -> list[Point]:
    found: dict[str, tuple[int, float]] = {}
    for row in rows:
        value = row.stats.get(stat)
        group = {"dut": row.dut, "host": row.agent}.get(by, "")
        if isinstance(value, int | float) and (group or not by):
            found.setdefault(group, (row.first_at, float(value)))
    return [Point(run, at, group, value) for group, (at, value) in found.items()]


def marked(points: Sequence[Point]) -> list[Point]:
    """Mark where a new level begins, group by group."""
    found: list[Point] = []
    for group in sorted({point.group for point in points}):
        own = [point for point in points if point.group == group]
        places = set(change_points([point.value for point in own]))
        found += [
            msgspec.structs.replace(point, is_change=number in places)
            for number, point in enumerate(own)
        ]
    return found


def _print(out: Console, found: Trend) -> None:
    unit = unit_of(found.stat, found.unit)
    for group in sorted({point.group for point in found.points}):
        own = [point for point in found.points if point.group == group]
        title = f"{found.stat} of {found.key}" + (f" on {group}" if group else "")
        out.print(Text(f"{title}, {len(own)} runs, the oldest first", "bold"))
        lines = plot(range(len(own)), [point.value for point in own], unit, height=8)
        for line in lines[:-1]:
            out.print(Text(line), soft_wrap=True)
        _print_changes(out, own, unit)


def _print_changes(out: Console, own: Sequence[Point], unit: str) -> None:
    begin = 0
    for number, point in enumerate(own):
        if not point.is_change:
            continue
        before = [each.value for each in own[begin:number]]
        rest = own[number:]
        end = next((n for n, each in enumerate(rest) if n and each.is_change), len(rest))
        after = [each.value for each in rest[:end]]
        was, now = (quantity(sum(part) / len(part), unit) for part in (before, after))
        when = printed_instant(point.at)
        out.print(Text.assemble(("▲ ", "yellow"), f"{point.run}  {when}  {was} → {now}"))
        begin = number
    if not begin:
        out.print("no change of level")
