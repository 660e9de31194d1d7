"""Samples of a run: statistics, a drawing, CSV."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from tshrag_common import metric_requests as mr
from tshrag_common.client import Client
from tshrag_common.criteria import Evidence
from tshrag_common.errors import Refused
from tshrag_common.metrics import file_name, metric_key
from tshrag_common.statistics import UnknownStatistic, is_statistic, unit_of
from tshrag_common.views import SeriesView
from tshrag_controller.cli import metric_infos, options, render, series
from tshrag_controller.cli.ask import ask, job_named, run_named
from tshrag_controller.cli.context import Connection
from tshrag_controller.reports.evidence import bounds_of
from tshrag_controller.reports.plot import plot
from tshrag_controller.reports.tables import samples_csv, statistics_csv
from tshrag_controller.reports.text import clean, plural, quantity, sparkline

STATS = ("avg", "min", "max", "p95", "last")
MOST_PLOTTED = 200_000
_PAGE = 10_000


@options.command(
    examples=(
        "tshrag metrics last",
        "tshrag metrics last 'network::*' --stat p50 --stat p99.9 --each",
        "tshrag metrics last --info                    # unit, type, writer, labels, left out",
        "tshrag metrics last network::latency --plot",
        "tshrag metrics last network::latency --csv > latency.csv",
        "tshrag metrics last --csv --out samples/      # a file for each metric",
        "tshrag metrics all 'host.*.cpu.used' --since -1h --by host --stat avg --stat p99",
        "tshrag metrics last network::latency --step 1s --format parquet --out steps.parquet",
        "tshrag metrics all network::latency --since -7d --by dut --png latency.png",
    )
)
@click.argument("run")
@click.argument("key", required=False)
@click.option("--stat", "stats", multiple=True, help="A statistic, as p99.9; may be repeated.")
@click.option("--job", help="Only the samples of this job.")
@click.option("--each", is_flag=True, help="A row for each job, not for the run as a whole.")
@click.option("--csv", "as_csv", is_flag=True, help="Samples (with --stat: statistics) as CSV.")
@click.option("--plot", "plots", is_flag=True, help="Draw it, with the bounds of criteria.")
@click.option("--info", "infos", is_flag=True, help="What the metrics are, not what they say.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="With --csv: a file; of several metrics a folder.",
)
@series.over_time
@options.readable
@options.in_lab
def metrics(
    connection: Connection,
    span: series.Span,
    output: str,
    run: str,
    key: str | None,
    stats: tuple[str, ...],
    job: str | None,
    each: bool,
    as_csv: bool,
    plots: bool,
    infos: bool,
    out: Path | None,
) -> None:
    """Show the metrics of a RUN, or of 'all' runs and hosts; KEY may be a pattern: 'network::*'.

    Statistics: sum avg min max count first last median stdev rate hist num, and any percentile
    like p95 or p99.9. CSV has the form of a job directory: timestamp (microseconds UTC), value.
    """
    for name in stats:
        if not is_statistic(name):
            raise UnknownStatistic(name, "--stat")
    if infos:
        metric_infos.show(connection, run, key or "*", output)
        return
    if span.is_asked or run == series.ALL:
        asked = series.Asked(
            run=run,
            key=key or "*",
            job=job or "",
            stats=stats,
            span=span,
            out=out,
            plots=plots,
        )
        series.show(connection, asked, output)
        return
    wanted = _Wanted(run, key or "*", stats or STATS, job)
    if plots:
        _plot(connection, wanted)
    elif as_csv and not stats:
        folder = out if out is not None and out.is_dir() else None
        ask(connection, lambda lab: _export(lab, wanted, out, folder))
    else:
        answer = ask(connection, lambda lab: wanted.answer(lab))
        rows = answer.series if each or job else answer.whole or answer.series
        if as_csv:
            _write(out, statistics_csv(rows, wanted.stats))
            return
        keys = list(dict.fromkeys(row.key for row in rows))
        render.emit(output, answer, lambda to: _print(to, rows, wanted.stats), keys)


class _Wanted:
    """What was asked for."""

    def __init__(self, run: str, key: str, stats: Sequence[str], job: str | None) -> None:
        self.run, self.key, self.stats, self._job = run, key, tuple(stats), job
        self.job = ""

    async def named(self, lab: Client) -> None:
        """Find out the ids behind ``last`` and the like."""
        self.run = await run_named(lab, self.run)
        if self._job:
            self.job = await job_named(lab, self._job)

    async def answer(self, lab: Client) -> mr.MetricsAnswer:
        await self.named(lab)
        asked = mr.ListMetrics(run=self.run, key=self.key, stats=self.stats, job=self.job)
        return await lab.metrics(asked)

    async def pages(self, lab: Client, key: str) -> AsyncIterator[mr.SamplesAnswer]:
        """Yield all samples of one metric."""
        offset, more = 0, True
        while more:
            asked = mr.GetSeries(run=self.run, key=key, job=self.job, offset=offset, limit=_PAGE)
            page = await lab.series(asked)
            offset, more = offset + len(page.at), page.more and bool(page.at)
            yield page


def _print(out: Console, rows: Sequence[SeriesView], stats: Sequence[str]) -> None:
    if not rows:
        out.print("no samples")
        return
    by_job = any(row.job for row in rows)
    heads = ["metric", *(["job"] if by_job else []), "count", *stats, ""]
    cells = [
        [
            render.text(row.key, 60),
            *([Text(_serial(row.job))] if by_job else []),
            Text(str(row.count)),
            *(Text(quantity(row.stats.get(name), unit_of(name, row.unit))) for name in stats),
            Text(sparkline(row.spark), "blue"),
        ]
        for row in rows
    ]
    out.print(render.table(heads, cells, ("count", *stats)))


def _serial(job: str) -> str:
    return job[31:].lstrip("0") if job else "-"


def _plot(connection: Connection, wanted: _Wanted) -> None:
    out = render.console()
    width, height = min(out.width, 120), max(6, min(16, out.height // 2))
    key = _one_key(wanted.key)
    page, unit, evidence = ask(connection, lambda lab: _plotted(lab, wanted, key))
    out.print(Text.assemble((key, "bold"), f"  {plural(len(page.at), 'sample')}"))
    bounds = bounds_of(evidence, key)
    for line in plot(page.at, page.value, unit, bounds=bounds, width=width, height=height):
        out.print(Text(line, no_wrap=True))


async def _plotted(
    lab: Client, wanted: _Wanted, key: str
) -> tuple[mr.SamplesAnswer, str, tuple[Evidence, ...]]:
    answer = await wanted.answer(lab)
    unit = next((each.unit for each in answer.series), "")
    at: list[int] = []
    values: list[float] = []
    async for page in wanted.pages(lab, key):
        at += page.at
        values += page.value
        if len(at) > MOST_PLOTTED:
            break
    run = (await lab.run(wanted.run)).run
    nothing = (0,) * len(at)
    whole = mr.SamplesAnswer(at=tuple(at), value=tuple(values), duration_us=nothing, job=())
    return whole, unit, run.evidence


def _is_pattern(key: str) -> bool:
    return any(sign in key for sign in "*?[")


def _one_key(key: str) -> str:
    if _is_pattern(key):
        raise Refused("KEY", "a drawing is of one metric", "name it; without --plot all are listed")
    return metric_key(key, "KEY")


async def _export(lab: Client, wanted: _Wanted, out: Path | None, folder: Path | None) -> None:
    """Write all samples: of one metric into a file, of a pattern into a folder."""
    answer = await wanted.answer(lab)
    units = {each.key: each.unit for each in answer.series}
    if len(units) > 1 and out is None:
        what = f"{len(units)} metrics"
        raise Refused("--csv", what, "name one of them, or a folder by --out", code="many")
    folder = out if _is_pattern(wanted.key) else folder
    for key, unit in units.items():
        path = folder / file_name(key) if folder is not None else out
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        head = True
        async for page in wanted.pages(lab, key):
            _write(path, samples_csv(page, unit, head=head), append=True)
            head = False
        if path is not None:
            render.note(f"written to {clean(str(path))}")


def _write(path: Path | None, text: str, *, append: bool = False) -> None:
    if path is None:
        click.echo(text, nl=False)
        return
    with path.open("a" if append else "w") as file:
        file.write(text)
