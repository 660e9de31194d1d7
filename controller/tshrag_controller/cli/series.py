"""Metrics of any time and any run: grouped, stepped, as files, as pictures."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.text import Text

from tshrag_common import store_requests as sr
from tshrag_common.client import Client
from tshrag_common.criteria import Evidence
from tshrag_common.statistics import unit_of
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask, job_named, run_named
from tshrag_controller.cli.context import Connection
from tshrag_controller.cli.figure import Line, save
from tshrag_controller.cli.query import FORMATS, fetch
from tshrag_controller.reports.chart import lines_of
from tshrag_controller.reports.plot import plot
from tshrag_controller.reports.series_sql import BY, Grouping, samples_sql, statistics_sql
from tshrag_controller.reports.text import clean, plural, quantity

ALL = "all"
STATS = ("count", "avg", "min", "max", "p95")
STEPS, MOST_PLOTS = 400, 6
"""Of a picture without --step."""


def over_time(command: options.Function) -> options.Function:
    """Give a command the options of this room; they come as one ``span``."""
    import functools

    @click.option("--since", type=options.Moment(), help="From here on: -1h, ISO 8601.")
    @click.option("--until", type=options.Moment(), help="Before this instant.")
    @click.option("--by", multiple=True, type=click.Choice(BY), help="A row for each; repeatable.")
    @click.option("--step", type=options.Seconds(), help="A row for each step of time, as 1s.")
    @click.option("--format", "form", type=click.Choice(FORMATS), help="All rows, as a file.")
    @click.option("--png", type=click.Path(path_type=Path), help="Draw into a PNG file.")
    @click.option("--svg", type=click.Path(path_type=Path), help="Draw into an SVG file.")
    @functools.wraps(command)
    def found(
        since: int | None, until: int | None, by: tuple[str, ...], step: float | None,
        form: str | None, png: Path | None, svg: Path | None, **rest: object,
    ) -> object:  # fmt: skip
        span = Span(
            since=since or 0, until=until or 0, by=by, step_us=round((step or 0) * 1e6),
            form=form or "", picture=png or svg,
        )  # fmt: skip
        return command(span=span, **rest)

    return found


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked beyond the metrics of one run."""

    since: int = 0
    until: int = 0
    by: tuple[str, ...] = ()
    step_us: int = 0
    form: str = ""
    picture: Path | None = None

    @property
    def is_asked(self) -> bool:
        return self != Span()


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Which samples, which statistics."""

    run: str
    key: str
    job: str
    stats: tuple[str, ...]
    span: Span
    out: Path | None
    plots: bool = False


def show(connection: Connection, asked: Asked, output: str) -> None:
    """Show, write or draw what was asked."""
    if asked.span.picture is not None or asked.plots:
        draw(connection, asked, asked.span.picture)
        return
    grouping = Grouping(
        stats=asked.stats or STATS,
        by=asked.span.by,
        step_us=asked.span.step_us,
        job=bool(asked.job),
    )
    form = asked.span.form
    if form and form != "table":
        raw = not (asked.stats or asked.span.by or asked.span.step_us)
        sql = samples_sql(job=bool(asked.job)) if raw else statistics_sql(grouping)
        request = _request(asked, sql, form)
        _write(connection, asked, request)
        return
    sql = statistics_sql(grouping)
    answer = ask(connection, lambda lab: _answered(lab, asked, _request(asked, sql, "rows")))
    names = list(dict.fromkeys(str(row[answer.names.index("key")]) for row in answer.rows))
    render.emit(output, answer, lambda out: _print(out, answer, grouping), names)


def _write(connection: Connection, asked: Asked, request: sr.Query) -> None:
    if asked.job or (asked.run != ALL):
        request = ask(connection, lambda lab: _bounded(lab, asked, request))
    fetch(connection, request, None, asked.out)


def _request(asked: Asked, sql: str, form: str) -> sr.Query:
    return sr.Query(
        sql=sql,
        since=asked.span.since,
        until=asked.span.until,
        key=_glob(asked.key),
        limit=10_000,
        format=form,  # type: ignore[arg-type]  # click checked it
    )


def _glob(key: str) -> str:
    return key.replace("::", ".").replace("/", ".").lower()


async def _answered(lab: Client, asked: Asked, request: sr.Query) -> sr.QueryAnswer:
    return await lab.query(await _bounded(lab, asked, request))


async def _bounded(lab: Client, asked: Asked, request: sr.Query) -> sr.Query:
    """Return the request with the run and the job that were named."""
    if asked.run != ALL:
        request = msgspec.structs.replace(request, run=await run_named(lab, asked.run))
    if asked.job:
        job = await job_named(lab, asked.job)
        request = msgspec.structs.replace(request, arguments={"job": job})
    return request


def _print(out: Console, answer: sr.QueryAnswer, grouping: Grouping) -> None:
    if not answer.rows:
        out.print("no samples")
        return
    heads = grouping.heads
    rows = []
    for row in answer.rows:
        unit = str(row[len(heads)])
        cells = [_cell(cell) for cell in row[: len(heads)]]
        stats = [
            Text(str(value) if name == "count" else quantity(value, unit_of(name, unit)))
            for name, value in zip(grouping.stats, row[len(heads) + 1 :], strict=True)
        ]
        rows.append([*cells, *stats])
    out.print(render.table([*heads, *grouping.stats], rows, grouping.stats))
    if answer.more:
        told = f"{plural(len(rows), 'row')}, and more: a larger --step, or --format csv"
        out.print(Text(told, "bright_black"))


def _cell(value: object) -> Text:
    return render.text(str(value) if value else "-", 80)


def draw(connection: Connection, asked: Asked, path: Path | None) -> None:
    """Draw mean, least and greatest over time, a line for each group: a file, or the terminal."""
    answer, evidence = ask(connection, lambda lab: _steps(lab, asked))
    lines: dict[tuple[str, ...], Line] = {}
    unit = ""
    for row in answer.rows:
        at, *group, in_unit, mean, least, most = row
        unit = str(in_unit)
        name = " ".join(map(str, group))
        line = lines.setdefault(tuple(map(str, group)), Line(name, [], [], [], []))
        line.times.append(str(at))
        for column, value in ((line.means, mean), (line.lows, least), (line.highs, most)):
            column.append(float(str(value)))
    if path is None:
        _plot(list(lines.values()), unit)
        return
    keys = dict.fromkeys(group[0] for group in lines)
    bounds = [bound for key in keys for bound in lines_of(evidence, key)]
    save(path, asked.key, unit, list(lines.values()), bounds)
    render.note(f"{plural(len(lines), 'line')} drawn into {clean(str(path))}")


def _plot(lines: Sequence[Line], unit: str) -> None:
    """Draw each line by itself, from the least to the greatest of each step."""
    out = render.console()
    width, height = min(out.width, 120), max(6, min(12, out.height // 3))
    for line in lines[:MOST_PLOTS]:
        out.print(Text(clean(line.name), "bold", no_wrap=True))
        times = [round(datetime.fromisoformat(each).timestamp() * 1e6) for each in line.times]
        values = [*line.means, *line.lows, *line.highs]
        for drawn in plot(times * 3, values, unit, width=width, height=height):
            out.print(Text(drawn, no_wrap=True))
    if len(lines) > MOST_PLOTS:
        out.print(f"and {len(lines) - MOST_PLOTS} more; name one metric, or --png FILE")
    elif not lines:
        out.print("no samples")


async def _steps(lab: Client, asked: Asked) -> tuple[sr.QueryAnswer, tuple[Evidence, ...]]:
    """Return the samples of each step, and what was judged of the one run that was named."""
    bounded = await _bounded(lab, asked, _request(asked, "SELECT 1", "rows"))
    step = asked.span.step_us or await _step(lab, bounded)
    grouping = Grouping(
        stats=("avg", "min", "max"), by=asked.span.by, step_us=step, job=bool(asked.job)
    )
    sql = statistics_sql(grouping)
    answer = await lab.query(msgspec.structs.replace(bounded, sql=sql, limit=50_000))
    evidence = (await lab.run(bounded.run)).run.evidence if bounded.run else ()
    return answer, evidence


async def _step(lab: Client, bounded: sr.Query) -> int:
    """Return a step that makes some hundreds of points of all samples."""
    where = " WHERE job = $job" if bounded.arguments else ""
    sql = f"SELECT epoch_us(max(time)) - epoch_us(min(time)) FROM samples{where}"
    answer = await lab.query(msgspec.structs.replace(bounded, sql=sql))
    span = int(str(answer.rows[0][0] or 0)) if answer.rows else 0
    return max(1, span // STEPS)
