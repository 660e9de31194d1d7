"""``tshrag metrics --info``: what the metrics of a run are, and what of them is missing."""

from rich.console import Console
from rich.text import Text

from tshrag_common.client import Client
from tshrag_common.metric_requests import InfosAnswer, InfoView, ListInfos
from tshrag_controller.cli import render
from tshrag_controller.cli.ask import ask, run_named
from tshrag_controller.cli.context import Connection
from tshrag_controller.reports.text import clean

HEADS = ("metric", "unit", "type", "count", "writer", "labels", "first", "last", "left out")


def show(connection: Connection, run: str, key: str, output: str) -> None:
    """Print them."""

    async def answer(lab: Client) -> InfosAnswer:
        return await lab.metric_infos(ListInfos(run=await run_named(lab, run), key=key))

    found = ask(connection, answer)
    names = [info.key for info in found.infos]
    render.emit(output, found, lambda out: _print(out, found), names)


def _print(out: Console, answer: InfosAnswer) -> None:
    if not answer.infos:
        out.print("no metrics")
        return
    out.print(render.table(HEADS, [_row(info) for info in answer.infos], ("count",)))
    described = [info for info in answer.infos if info.description]
    if described:
        out.print()
        out.print(render.facts([(clean(info.key), info.description) for info in described]))
    if answer.more:
        out.print("there are more: name a narrower KEY")


def _row(info: InfoView) -> list[str | Text]:
    left_out = Text(_left_out(info), "yellow" if info.refused or info.overflow else "")
    return [
        info.key,
        info.unit or "-",
        info.type,
        str(info.count),
        ", ".join(info.writers) or "-",
        ", ".join(info.labels) or "-",
        _clock(info.first_at),
        _clock(info.last_at),
        left_out,
    ]


def _clock(at_us: int) -> str:
    return render.when(at_us)[5:] if at_us else "-"


def _left_out(info: InfoView) -> str:
    if not info.refused:
        return "-"
    return f"{info.refused}, {info.overflow} overflow" if info.overflow else str(info.refused)
