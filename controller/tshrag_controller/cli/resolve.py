"""Give up an attempt whose agent is away, because a person knows that nothing of it is alive."""

import click
from rich.console import Console
from rich.text import Text

from tshrag_common.client import Client
from tshrag_common.errors import Refused
from tshrag_common.resolve_requests import ResolveAnswer
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask, job_named
from tshrag_controller.cli.context import Connection


@options.command(
    examples=(
        "tshrag resolve last:2                                  # what would it mean?",
        "tshrag resolve last:2 --lost --reason 'rpi4-1 powered off by hand'",
        "tshrag resolve last:2 --power-cycle                    # the controller sees to it",
    )
)
@click.argument("name", metavar="ATTEMPT")
@click.option("--lost", is_flag=True, help="Give it up: you know that nothing of it is alive.")
@click.option("--power-cycle", is_flag=True, help="Switch its board off and on first, and see it.")
@click.option("--reason", metavar="TEXT", default="", help="Why you know; kept with your name.")
@options.readable
@options.in_lab
def resolve(
    connection: Connection, output: str, name: str, lost: bool, power_cycle: bool, reason: str
) -> None:
    """Give up an ATTEMPT whose agent is away; without --lost only say what that means.

    ATTEMPT is a job (its newest attempt), JOB.N, or a fence. An agent that is silent may well be
    working on: a board that only it reaches stays its own until it is back, until the time limit
    of the job is over, or until you say here that nothing is alive. With --power-cycle the
    controller switches the board off and on by its [outlet] and gives the attempt up only when the
    outlet has said both.
    """
    if lost and not power_cycle and not reason.strip():
        fix = "add --reason 'powered off by hand', or what else you have done"
        raise Refused("--reason", "it is missing", fix, code="reason_missing")

    async def resolved(lab: Client) -> ResolveAnswer:
        return await lab.resolve(
            await _attempt(lab, name), lost=lost, reason=reason, power_cycle=power_cycle
        )

    answer = ask(connection, resolved)
    render.emit(output, answer, lambda out: _print(out, answer), [answer.job])


async def _attempt(lab: Client, name: str) -> str:
    """Return an attempt by its fence or as ``JOB.N`` as it stands; ``last:2`` is looked up."""
    is_plain = name.isdigit() or (name.startswith("job-") and "." in name)
    return name if is_plain else await job_named(lab, name)


def _print(out: Console, answer: ResolveAnswer) -> None:
    rows: list[tuple[str, render.Cell]] = [
        ("attempt", f"{answer.job}.{answer.attempt}"),
        ("state", render.state(answer.state)),
        ("agent", Text.assemble(answer.agent, ", ", render.state(answer.agent_state))),
        ("frees", answer.frees),
        ("without you", f"given up at {render.when(answer.gives_up_at)}"),
    ]
    out.print(render.facts(rows))
    job = "its job is tried again, or ends in error" if answer.job_open else "its job has ended"
    if answer.done:
        out.print(Text(f"given up by {answer.by}; {job}"))
        return
    lines = (
        f"With --lost: {answer.frees} may be given to another attempt at once; {job}.",
        f"If {answer.agent} is only cut off, its work may still be alive: power the board off or",
        "stop the host first. What it reports later is recorded and has no effect.",
    )
    for line in lines:
        out.print(render.text(line))
