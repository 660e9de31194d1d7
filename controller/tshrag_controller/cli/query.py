"""``tshrag query``: SQL over all samples, hot and cold."""

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from tshrag_common import store_requests as sr
from tshrag_common.client import Client
from tshrag_common.errors import Refused
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask, run_named
from tshrag_controller.cli.context import Connection
from tshrag_controller.reports.text import clean, plural

FORMATS = ("table", "csv", "json", "parquet", "arrow")
BINARY = ("parquet", "arrow")


@options.command(
    examples=(
        "tshrag query 'SELECT key, count(*), avg(value) FROM samples GROUP BY key'",
        'tshrag query --since -1h "SELECT dut, quantile_cont(value, 0.99) AS p99 FROM samples',
        "    WHERE key = 'network.latency' GROUP BY dut ORDER BY p99 DESC\"",
        "tshrag query --format parquet --out all.parquet 'SELECT * FROM samples'",
        "tshrag query 'SELECT state, count(*) FROM runs GROUP BY state'",
    )
)
@click.argument("sql")
@click.option("--since", type=options.Moment(), help="Only samples from here on: -1h, ISO, now.")
@click.option("--until", type=options.Moment(), help="Only samples before.")
@click.option("--run", help="Only samples of this run.")
@click.option("--key", help="Only metrics of this pattern, as 'network.*'.")
@click.option("--limit", default=1000, show_default=True, help="Rows of a table.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="The form of the rows; parquet and arrow go to a file or a pipe.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the file here.")
@options.in_lab
def query(
    connection: Connection,
    sql: str,
    since: int | None,
    until: int | None,
    run: str | None,
    key: str | None,
    limit: int,
    form: str,
    out: Path | None,
) -> None:
    """Ask SQL of all samples, from those that have just arrived to those of the cold store.

    Views: samples (time value duration_us key unit type run job attempt agent dut), series, runs,
    jobs; docs/reference/query.md tells of every column. One SELECT of DuckDB's SQL. --since,
    --until, --run and --key let less be read. A format other than table holds all rows.
    """
    asked = sr.Query(
        sql=sql,
        since=since or 0,
        until=until or 0,
        key=key or "",
        limit=max(1, min(limit, 50_000)),
        format="rows" if form == "table" else form,  # type: ignore[arg-type]  # click checked it
    )
    if form == "table":
        answer = ask(connection, lambda lab: _rows(lab, asked, run))
        _print(render.console(), answer)
        return
    fetch(connection, asked, run, out)


async def _rows(lab: Client, asked: sr.Query, run: str | None) -> sr.QueryAnswer:
    return await lab.query(await within(lab, asked, run))


async def within(lab: Client, asked: sr.Query, run: str | None) -> sr.Query:
    """Return the query with the run that a person has named."""
    import msgspec

    return msgspec.structs.replace(asked, run=await run_named(lab, run)) if run else asked


def fetch(connection: Connection, asked: sr.Query, run: str | None, out: Path | None) -> None:
    """Bring the file of a query to `out`, or to stdout.

    Raises:
        Refused: it would write bytes to a terminal.

    """
    if out is None and asked.format in BINARY and sys.stdout.isatty():
        raise Refused("--format", f"{asked.format} is not for a terminal", "name a file by --out")
    size = ask(connection, lambda lab: _fetched(lab, asked, run, out))
    if out is not None:
        render.note(f"{size} bytes written to {clean(str(out))}")


async def _fetched(lab: Client, asked: sr.Query, run: str | None, out: Path | None) -> int:
    answer = await lab.query(await within(lab, asked, run))
    sink = sys.stdout.buffer if out is None else out.open("wb")
    try:
        async for part in lab.query_file(answer):
            sink.write(part)
        sink.flush()
    finally:
        if out is not None:
            sink.close()
    return answer.size


NUMBERS = ("bigint", "integer", "hugeint", "double", "float", "ubigint", "smallint", "decimal")


def _print(out: Console, answer: sr.QueryAnswer) -> None:
    kinds = [kind.split("(")[0] for kind in answer.types]
    right = [name for name, kind in zip(answer.names, kinds, strict=True) if kind in NUMBERS]
    rows = [[render.text(shown(cell), 200) for cell in row] for row in answer.rows]
    out.print(render.table([clean(name) for name in answer.names], rows, right))
    told = plural(len(rows), "row")
    if answer.more:
        told += " and more: --limit, or --format csv --out FILE for all of them"
    out.print(Text(f"{told} in {answer.took_us / 1000:.0f} ms", "bright_black"))


def shown(cell: object) -> str:
    """Return a cell as people read it."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.6g}"
    return str(cell)
