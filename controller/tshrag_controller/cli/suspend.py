"""Hold a run back, let it go, move its window."""

import click

from tshrag_common import suspend_requests as sr
from tshrag_common.client import Client
from tshrag_common.errors import Refused
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask, run_named, thing_named
from tshrag_controller.cli.context import Connection
from tshrag_controller.reports.text import plural


@options.command(
    examples=(
        "tshrag hold last --reason 'wait for the new firmware'",
        "tshrag hold last:3             # one job; what comes after it waits too",
    )
)
@click.argument("name", metavar="RUN|JOB")
@click.option("--reason", default="", help="Why; 'tshrag why' tells it.")
@options.readable
@options.in_lab
def hold(connection: Connection, output: str, name: str, reason: str) -> None:
    """Let nothing of a RUN (or a JOB) start until 'tshrag release'; what runs goes on."""

    async def asked(lab: Client) -> sr.HeldAnswer:
        return await lab.hold(sr.Hold(id=await thing_named(lab, name), reason=reason))

    answer = ask(connection, asked)
    said = f"{plural(len(answer.jobs), 'job')} of {answer.run} held back"
    render.emit(output, answer, lambda out: out.print(said), answer.jobs)


@options.command(examples=("tshrag release last", "tshrag release last:3"))
@click.argument("name", metavar="RUN|JOB")
@options.readable
@options.in_lab
def release(connection: Connection, output: str, name: str) -> None:
    """Let a RUN or JOB that was held back start again, at its old place in the line."""

    async def asked(lab: Client) -> sr.HeldAnswer:
        return await lab.let_go(sr.LetGo(id=await thing_named(lab, name)))

    answer = ask(connection, asked)
    said = f"{plural(len(answer.jobs), 'job')} of {answer.run} let go"
    render.emit(output, answer, lambda out: out.print(said), answer.jobs)


@options.command(
    examples=(
        "tshrag reschedule last --not-before 22:00 --deadline +1d",
        "tshrag reschedule last --no-deadline",
    )
)
@click.argument("name", metavar="RUN")
@click.option("--not-before", type=options.Moment(), help="Nothing of it starts earlier.")
@click.option("--deadline", type=options.Moment(), help="What has not started then expires.")
@click.option("--no-window", is_flag=True, help="It may start at once.")
@click.option("--no-deadline", is_flag=True, help="Nothing of it expires.")
@options.readable
@options.in_lab
def reschedule(
    connection: Connection, output: str, name: str, not_before: int | None,
    deadline: int | None, no_window: bool, no_deadline: bool,
) -> None:  # fmt: skip
    """Move the window of a RUN that has not ended; what runs goes on."""
    opens = 0 if no_window else not_before
    closes = 0 if no_deadline else deadline
    if opens is None and closes is None:
        fix = "--not-before, --deadline, --no-window or --no-deadline"
        raise Refused("", "where to?", fix, code="window")

    async def asked(lab: Client) -> sr.WindowAnswer:
        run = await run_named(lab, name)
        return await lab.reschedule(sr.Reschedule(run=run, not_before=opens, deadline=closes))

    answer = ask(connection, asked)
    said = (
        f"{answer.run} may start {_at(answer.not_before, 'at once')}, "
        f"expires {_at(answer.deadline, 'never')}"
    )
    render.emit(output, answer, lambda out: out.print(said), [answer.run])


def _at(instant: int, otherwise: str) -> str:
    return f"at {render.when(instant)}" if instant else otherwise
