"""Who did what to the things of the lab."""

import click
from rich.console import Console
from rich.text import Text

from tshrag_common.audit_requests import AuditAnswer, AuditEntry, ListAudit
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.console_log import moment
from tshrag_controller.cli.context import Connection


@options.command(
    examples=(
        "tshrag audit                          # the newest hundred",
        "tshrag audit rpi4-1 --since 1d        # who was at this board",
        "tshrag audit --by default/jo --what forward --output json",
    )
)
@click.argument("name", default="")
@click.option("--by", default="", help="A person as ORG/NAME, or an org.")
@click.option("--what", default="", help="As 'exec', 'forward', 'console', 'cordoned', 'reserved'.")
@click.option("--since", default="", help="As '10m' (ago), or an instant.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0, help="Pass over so many.")
@options.readable
@options.in_lab
def audit(
    connection: Connection, output: str, name: str, by: str, what: str, since: str,
    limit: int, offset: int,
) -> None:  # fmt: skip
    """Show who did what, newest first: a board or host by NAME, or all of them.

    Channels (console, forward, put, get, power, boot, exec) stand twice: opened, and closed with
    the bytes in each direction. An operator sees everybody, others what their own org did.
    """
    asked = ListAudit(name=name, by=by, what=what, since=moment(since), limit=limit, offset=offset)
    answer = ask(connection, lambda lab: lab.audit(asked))
    render.emit(output, answer, lambda out: _print(out, answer), map(_line, answer.entries))
    if answer.more and output == "table":
        render.note("there are more; narrow it, or --offset")


def _line(entry: AuditEntry) -> str:
    words = (entry.by, entry.what, entry.phase, entry.name)
    return " ".join(word for word in words if word)


def _print(out: Console, answer: AuditAnswer) -> None:
    if not answer.entries:
        out.print("nobody did anything that matches", style="bright_black")
        return
    rows: list[list[render.Cell]] = [
        [
            render.when(each.at),
            each.by,
            Text(f"{each.what} {each.phase}".strip()),
            each.name,
            render.text(each.reason, 60),
            each.lease or "-",
            Text(f"{each.up_bytes} / {each.down_bytes}" if each.phase == "closed" else "-"),
        ]
        for each in answer.entries
    ]
    heads = ("at", "by", "what", "board or host", "details", "lease", "bytes up / down")
    out.print(render.table(heads, rows, right=("bytes up / down",)))
