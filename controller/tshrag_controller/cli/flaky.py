"""Boards that fail: board or build?"""

from collections.abc import Sequence

import click
from rich.console import Console
from rich.text import Text

from tshrag_common import flaky_requests as fr, requests as r
from tshrag_common.client import Client
from tshrag_common.errors import Refused
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.context import Connection
from tshrag_controller.cli.submit import submitted_again
from tshrag_controller.reports.text import clean


@options.command(
    examples=(
        "tshrag flaky                   # all boards, those that fail most first",
        "tshrag flaky rpi4-1 --days 30",
        "tshrag flaky rpi4-1 --decide   # run what is undecided on another board",
    )
)
@click.argument("dut", default="")
@click.option("--days", type=click.FloatRange(0.01, 3650), default=14.0, show_default=True,
              help="Results of the last days.")  # fmt: skip
@click.option("--decide", is_flag=True, help="Order the run that tells board from build.")
@options.readable
@options.in_lab
def flaky(connection: Connection, output: str, dut: str, days: float, decide: bool) -> None:
    """Tell boards that fail from builds that fail.

    The same build elsewhere, and other builds here: that says who is to blame. A build is what
    the profile's label 'build' (or app_version_id) says, else the bytes of its loads.
    """
    asked = fr.AskFlaky(dut=dut, days=days)
    if decide:
        _decide(connection, output, asked)
        return
    answer = ask(connection, lambda lab: lab.flaky(asked))
    names = [each.dut for each in answer.boards]
    render.emit(output, answer, lambda out: _print(out, answer, bool(dut)), names)


def _print(out: Console, answer: fr.FlakyAnswer, single: bool) -> None:
    if not answer.boards:
        out.print("no board has a result of these days", style="bright_black")
        return
    rows: list[Sequence[render.Cell]] = [
        (
            each.dut,
            Text(str(each.passed)),
            Text(str(each.failed)),
            Text(str(each.errors)),
            Text(str(each.flips)),
            Text(f"{each.check} {render.when(each.checked_at)}" if each.checked_at else "-"),
            ", ".join(sorted({item.verdict for item in each.suspicions})),
        )
        for each in answer.boards
    ]
    heads = ("dut", "passed", "failed", "errors", "flips", "health check", "suspected")
    out.print(render.table(heads, rows, ("passed", "failed", "errors", "flips")))
    suspicions = [item for each in answer.boards for item in each.suspicions]
    if single and suspicions:
        out.print()
        out.print(_table(suspicions))


def _table(suspicions: Sequence[fr.SuspicionView]) -> object:
    heads = ("test", "build", "here", "elsewhere", "other builds here", "suspected", "why")
    rows = [
        (
            render.text(each.test, 50),
            each.build,
            _pair(each.here),
            _pair(each.elsewhere),
            _pair(each.others),
            each.verdict,
            each.why,
        )
        for each in suspicions
    ]
    return render.table(heads, rows)


def _pair(pair: tuple[int, int]) -> Text:
    return Text(f"{pair[0]} of {pair[0] + pair[1]} passed" if sum(pair) else "-")


def _decide(connection: Connection, output: str, asked: fr.AskFlaky) -> None:
    if not asked.dut:
        raise Refused("", "which board?", "name one: tshrag flaky BOARD --decide", code="dut")
    answer = ask(connection, lambda lab: _decided(lab, asked))
    said = f"{answer.run}: the deciding run is accepted; then 'tshrag flaky {clean(asked.dut)}'"
    render.emit(output, answer, lambda out: out.print(said), [answer.run])


async def _decided(lab: Client, asked: fr.AskFlaky) -> r.SubmitAnswer:
    """Submit the newest undecided failure once more, on another board of the same kind."""
    board = (await lab.flaky(asked)).boards[0]
    open_ones = [each for each in board.suspicions if not sum(each.elsewhere)]
    if not open_ones:
        fix = f"see 'tshrag flaky {asked.dut}'"
        raise Refused(asked.dut, "there is nothing that another board could decide", fix,
                      code="decided")  # fmt: skip
    duts = (await lab.duts()).duts
    kind = next((each.dut.kind for each in duts if each.dut.id == asked.dut), "")
    others = [each.dut.id for each in duts if each.dut.kind == kind and each.dut.id != asked.dut]
    if not others:
        what = f"the lab has no other board of kind {kind}"
        raise Refused(asked.dut, what, "try another build here", code="unsatisfiable")
    newest = max(open_ones, key=lambda each: each.run)
    return await submitted_again(lab, newest.run, tuple(others))
