"""Boards from afar: power, boot, files."""

import os
import sys
from pathlib import Path

import click
import msgspec
from rich.text import Text

from tshrag_common.board_client import PowerWord, boards_of
from tshrag_common.channel.wants import BoardWord
from tshrag_common.client import Client
from tshrag_common.errors import NotFound, Refused
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.context import Connection
from tshrag_controller.cli.progress import progress
from tshrag_controller.reports.text import clean

_WORDS: dict[str, PowerWord] = {
    "on": "on", "off": "off", "cycle": "cycle", "status": "status", "read": "read"
}  # fmt: skip


class PowerState(msgspec.Struct, frozen=True, kw_only=True):
    """Of one board."""

    dut: str
    power: str
    note: str
    watts: float | None = None


@options.command(
    examples=(
        "tshrag power pi-7 status",
        "tshrag lease pi-7 && tshrag power pi-7 cycle",
        "tshrag power pi-7 read                      # the watts that it takes",
    )
)
@click.argument("dut")
@click.argument("what", type=click.Choice(tuple(_WORDS)), default="status")
@options.readable
@options.in_lab
def power(connection: Connection, output: str, dut: str, what: str) -> None:
    """Switch the power of a board, or ask for it; switching takes its lease.

    ``read`` tells the watts that it takes, where its outlet has a meter.
    """
    word = ask(connection, lambda lab: _powered(lab, dut, _WORDS[what]))
    state = clean(word.states[-1]) if word.states else "unknown"
    found = PowerState(dut=dut, power=state, note=word.note, watts=word.watts)
    takes = f"{word.watts:g} W" if word.watts is not None else ""
    line = Text(f"{dut} is {state}; {f'takes {takes}; ' if takes else ''}{clean(word.note)}")
    render.emit(output, found, lambda out: out.print(line), [takes or state])


async def _powered(lab: Client, dut: str, what: PowerWord) -> BoardWord:
    async with boards_of(lab) as boards:
        return await boards.power(dut, what)


@options.command(
    examples=(
        "tshrag boot pi-7 --to shell",
        "tshrag boot pi-7 --to bootloader --fresh    # from no power, whatever it does now",
    )
)
@click.argument("dut")
@click.option("--to", "goal", default="shell", show_default=True, help="off, bootloader, shell ...")
@click.option("--fresh", is_flag=True, help="Cut the power first.")
@click.option("-q", "--quiet", is_flag=True, help="Do not show what the console says.")
@options.in_lab
def boot(connection: Connection, dut: str, goal: str, fresh: bool, quiet: bool) -> None:
    """Bring a board to a state, and show its console meanwhile; takes its lease."""

    def hear(data: bytes) -> None:
        if not quiet:
            sys.stdout.write(clean_console(data))
            sys.stdout.flush()

    async def booted(lab: Client) -> tuple[str, ...]:
        async with boards_of(lab) as boards:
            return await boards.boot(dut, goal, hear, fresh=fresh)

    states = ask(connection, booted)
    render.note(f"{dut}: {' -> '.join(map(clean, states))}")


def clean_console(data: bytes) -> str:
    """Return what a console says without what would steer this terminal."""
    text = (
        data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n").replace("\b", "")
    )
    return "\n".join(clean(line) for line in text.split("\n"))


@options.command(examples=("tshrag put pi-7 ./image.bin /tmp/image.bin", "tshrag put pi-7 ./tests"))
@click.argument("dut")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", default="")
@options.in_lab
def put(connection: Connection, dut: str, source: Path, target: str) -> None:
    """Copy a file or folder to a board, as TARGET (or into /tmp); takes its lease."""
    if not source.exists():
        raise NotFound("file", str(source))
    source = source.resolve()
    path = target or f"/tmp/{source.name}"

    async def copied(lab: Client) -> str:
        async with boards_of(lab) as boards:
            return await boards.put(dut, source, path, shown.advance)

    with progress() as shown:
        said = ask(connection, copied)
    render.note(f"{dut}:{path}: {clean(said)}")


@options.command(examples=("tshrag get pi-7 /var/log/messages", "tshrag get pi-7 /etc ./etc-of-pi"))
@click.argument("dut")
@click.argument("source")
@click.argument("target", type=click.Path(path_type=Path), default=None)
@options.in_lab
def get(connection: Connection, dut: str, source: str, target: Path | None) -> None:
    """Copy a file or folder of a board to TARGET, which must not be there; takes its lease."""
    path = target or Path(Path(source).name or "root")
    if path.exists() or path.is_symlink():
        raise Refused(str(path), "it is there already", "name another TARGET", code="file")
    if not os.access(path.parent, os.W_OK):
        raise Refused(str(path.parent), "no folder to write in", "name another TARGET", code="file")

    async def copied(lab: Client) -> int:
        async with boards_of(lab) as boards:
            return await boards.get(dut, source, path, shown.advance)

    with progress() as shown:
        size = ask(connection, copied)
    render.note(f"{path}: {size} bytes")
