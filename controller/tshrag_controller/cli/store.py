"""``tshrag store``: where samples rest, and what can be done about it."""

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from tshrag_common import store_requests as sr
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.context import Connection
from tshrag_controller.reports.text import clean, plural

MEANINGS = {
    "tail": "arriving, in SQLite",
    "local": "sealed, on the controller's disk",
    "cold": "in the cold store",
    "cache": "fetched from the cold store",
}


@click.group()
def store() -> None:
    """The store of samples: status, seal, verify, export, import, gc."""


@store.command("status", cls=options.Command, examples=("tshrag store status",))
@options.readable
@options.in_lab
def status(connection: Connection, output: str) -> None:
    """Show where the samples of the lab rest, and how many bytes they take."""
    answer = ask(connection, lambda lab: lab.store_status())
    names = [each.place for each in answer.places]
    render.emit(output, answer, lambda out: _print(out, answer), names)


def _print(out: Console, answer: sr.StoreStatus) -> None:
    rows = [
        (
            each.place,
            str(each.parts),
            str(each.samples),
            size(each.bytes),
            f"{each.bytes / each.samples:.1f}" if each.samples and each.place != "tail" else "-",
            f"{each.first_day} .. {each.last_day}" if each.last_day else "-",
            MEANINGS.get(each.place, ""),
        )
        for each in answer.places
    ]
    right = ("parts", "samples", "bytes", "a sample")
    heads = ("place", "parts", "samples", "bytes", "a sample", "days", "")
    out.print(render.table(heads, rows, right))
    kept = f"then cold for {answer.cold_days} days" if answer.cold_days else "then cold for ever"
    out.print(f"hot for {answer.hot_days} days, {kept}: {clean(answer.cold_url)}")
    for name, count in sorted(answer.counters.items()):
        out.print(f"{clean(name)}: {count}")
    for deed in answer.deeds[:5]:
        out.print(f"{render.when(deed.at)}  {clean(deed.by)}: {deed.what}: {clean(deed.told)}")
    if answer.trouble:
        out.print(Text(clean(answer.trouble), "yellow"))


def size(count: int) -> str:
    """Return bytes with a unit."""
    number = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def _do(connection: Connection, what: str, output: str) -> None:
    asked = sr.StoreDo(what=what)  # type: ignore[arg-type]  # one of ours
    done = ask(connection, lambda lab: lab.store_do(asked))

    def table(out: Console) -> None:
        told = ", ".join(f"{count} {clean(name)}" for name, count in done.counts.items() if count)
        out.print(told or "nothing to do")
        for problem in done.problems:
            out.print(Text(clean(problem), "red"))
        if done.problems:
            out.print(f"{plural(len(done.problems), 'problem')}; see docs/how-to/keep-samples.md")

    render.emit(output, done, table, done.problems)
    sys.exit(1 if done.problems else 0)


@store.command("seal", cls=options.Command, examples=("tshrag store seal",))
@options.readable
@options.in_lab
def seal(connection: Connection, output: str) -> None:
    """Seal all samples into Parquet now, those of today too; an operator's."""
    _do(connection, "seal", output)


@store.command("gc", cls=options.Command, examples=("tshrag store gc",))
@options.readable
@options.in_lab
def gc(connection: Connection, output: str) -> None:
    """Do what is due now: merge, seal, move to the cold store, remove old ones; an operator's."""
    _do(connection, "gc", output)


@store.command("verify", cls=options.Command, examples=("tshrag store verify",))
@options.readable
@options.in_lab
def verify(connection: Connection, output: str) -> None:
    """Read every segment where it rests and compare; exit 1: one is not whole. An operator's."""
    _do(connection, "verify", output)


@store.command("import", cls=options.Command, examples=("tshrag store import",))
@options.readable
@options.in_lab
def take_up(connection: Connection, output: str) -> None:
    """Take up segments that this lab does not know, here and cold: a lost hot.db. An operator's."""
    _do(connection, "import", output)


@store.command(
    "export",
    cls=options.Command,
    examples=(
        "tshrag store export --run last --out run.parquet",
        "tshrag store export --since 2026-11-01 --until 2026-12-01 --out november.parquet",
    ),
)
@click.option("--run", help="Only samples of this run.")
@click.option("--key", help="Only metrics of this pattern.")
@click.option("--since", type=options.Moment(), help="Only samples from here on.")
@click.option("--until", type=options.Moment(), help="Only samples before.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("parquet", "arrow", "csv", "json")),
    default="parquet",
    show_default=True,
    help="The form of the file.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
@options.in_lab
def export(
    connection: Connection,
    run: str | None,
    key: str | None,
    since: int | None,
    until: int | None,
    form: str,
    out: Path,
) -> None:
    """Write samples into a file that pandas, DuckDB, Spark or a spreadsheet reads."""
    from tshrag_controller.cli.query import fetch

    asked = sr.Query(
        sql="SELECT * FROM samples",
        since=since or 0,
        until=until or 0,
        key=key or "",
        format=form,  # type: ignore[arg-type]  # click checked it
    )
    fetch(connection, asked, run, out)
