"""When does it start, who stands in the line, why did it go there."""

import time
from collections.abc import Sequence
from datetime import datetime

import click
from rich.console import Console
from rich.text import Text

from tshrag_common import why_requests as wr
from tshrag_common.client import Client
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask, job_named
from tshrag_controller.cli.context import Connection
from tshrag_controller.reports.text import clean, plural

SOON_US = 2_000_000
DAY_US = 86_400_000_000


def instant(at: int) -> str:
    """Return ``now``, a time of today, or a date with its time."""
    now = time.time_ns() // 1000
    if at <= now + SOON_US:
        return "now"
    local = datetime.fromtimestamp(at / 1e6).astimezone()
    near = local.date() == datetime.now().astimezone().date() or at - now < DAY_US / 2
    return local.strftime("%H:%M:%S" if at - now < 600e6 else "%H:%M" if near else "%F %H:%M")


def about(span: wr.SpanView | None, observed: bool = True) -> str:
    """Return an estimate in words; where only limits are known, the latest instant."""
    if span is None:
        return "nobody can say"
    if not observed and span.low < span.high and instant(span.high) != "now":
        return f"by {instant(span.high)} at the latest, by the time limits of what is before it"
    likely, early, late = instant(span.mid), instant(span.low), instant(span.high)
    return likely if early == late else f"about {likely} ({early} to {late})"


def summary(found: wr.OutlookAnswer) -> str:
    """Return one line for who has just submitted."""
    if found.state != "waiting":
        return f"{found.state}: {clean(found.sentence)}"
    parts = [f"waits: {clean(found.sentence)}"]
    if found.ahead:
        parts.append(f"{plural(found.ahead, 'other')} before it")
    if found.start is not None:
        parts.append(f"starts {about(found.start, found.observed)}")
    return "; ".join(parts)


def print_outlook(out: Console, found: wr.OutlookAnswer) -> None:
    """Print when a job starts, what would start it sooner, and what holds its places."""
    rows: list[tuple[str, render.Cell]] = []
    if found.start is not None or found.holders:
        rows.append(("position", f"{found.ahead + 1}" if found.ahead else "1: it is the next"))
        rows.append(("starts", about(found.start, found.observed)))
    rows += [
        ("sooner" if not number else "", f"{clean(each.what)}: {about(each.start)}")
        for number, each in enumerate(found.changes)
    ]
    if rows:
        out.print(render.facts(rows))


def free_of(found: wr.OutlookAnswer) -> dict[tuple[str, str], str]:
    """Return (host, DUT) -> when that place is free."""
    return {
        (each.host, each.dut): f"until {instant(each.until)}" if each.until else about(each.free)
        for each in found.holders
        if each.holder
    }


@options.command(examples=("tshrag queue", "watch -n 5 tshrag queue"))
@options.readable
@options.in_lab
def queue(connection: Connection, output: str) -> None:
    """Show the lines: for each kind of place who waits, who is next, and when."""
    answer = ask(connection, lambda lab: lab.queue())
    names = [each.head for each in answer.classes]
    render.emit(output, answer, lambda out: _print_queue(out, answer), names)


def _print_queue(out: Console, answer: wr.QueueAnswer) -> None:
    if not answer.classes:
        out.print("nobody waits for a place")
        return
    rows: list[Sequence[render.Cell]] = []
    for each in answer.classes:
        people = f" + {plural(each.people, 'lease')}" if each.people else ""
        orgs = ", ".join(f"{count} {clean(org)}" for org, count in sorted(each.orgs.items()))
        rows.append(
            (
                render.text(each.target, 50),
                Text(f"{each.waiting}{people}"),
                orgs,
                Text(f"{each.free}/{each.places}"),
                each.head,
                Text(about(each.next)),
                Text(about(each.last)),
            )
        )
    heads = ("wanted", "waiting", "orgs", "free", "next", "it starts", "who comes now starts")
    out.print(render.table(heads, rows))
    if answer.more:
        out.print(Text(f"… and {plural(answer.more, 'shorter line')}", "bright_black"))


@click.group()
def explain() -> None:
    """Explain what the lab decided."""


@explain.command("placement", cls=options.Command, examples=("tshrag explain placement last:2",))
@click.argument("name", metavar="JOB")
@options.readable
@options.in_lab
def placement(connection: Connection, output: str, name: str) -> None:
    """Say why a JOB went to that host or board, and what spoke against the others then.

    It is made again from the record of who held what; what was not recorded it says.
    """

    async def asked(lab: Client) -> wr.PlacementAnswer:
        return await lab.placement(await job_named(lab, name))

    answer = ask(connection, asked)
    chosen = [each.dut or each.host for each in answer.places if each.chosen]
    render.emit(output, answer, lambda out: _print_placement(out, answer), chosen)


def _print_placement(out: Console, answer: wr.PlacementAnswer) -> None:
    facts: list[tuple[str, render.Cell]] = [
        ("job", f"{answer.job}, attempt {answer.attempt}"),
        ("assigned", render.when(answer.at)),
        ("wanted", answer.target),
        ("rule", answer.rule),
        ("known", answer.note),
    ]
    out.print(render.facts(facts))
    rows = [
        (
            f"{each.host}/{each.dut}" if each.dut else each.host,
            Text("chosen", "green") if each.chosen else Text("no", "yellow"),
            each.why,
        )
        for each in answer.places
    ]
    out.print(render.table(("place", "then", "why"), rows))
