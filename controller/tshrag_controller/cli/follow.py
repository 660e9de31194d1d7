"""Watch and wait: news of a run as they happen; nothing is polled."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from tshrag_common import requests as r
from tshrag_common.client import Client, is_final
from tshrag_common.views import JobView, RunView
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask, run_named
from tshrag_controller.cli.board import LIVE, Board, Happened
from tshrag_controller.cli.context import Connection
from tshrag_controller.cli.verdicts import MOST_BLAMED, print_end
from tshrag_controller.reports.text import clean, duration

TIMED_OUT = 5
MOST_LIVE = 12
_BLAMED = ("error", "failed", "timeout", "expired")
_REFRESH = 4  # times a second: elapsed times go on between news

Moved = Callable[[list[Happened], bool], None]
"""Called after each news with what moved; True: it is the run as it stands."""


@options.command(
    examples=(
        "tshrag watch last",
        "tshrag watch run-01j9… | tee run.log",
    )
)
@click.argument("run")
@click.option("--timeout", type=options.Seconds(), help="Watch at most so long; then exit 5.")
@options.readable
@options.in_lab
def watch(connection: Connection, output: str, run: str, timeout: float | None) -> None:
    """Watch a RUN until it ends: counts, what runs where, what happened last.

    Where the output is no terminal, each move is a line. Ctrl-C ends the watching, not the run.
    """
    follow(connection, run, output, live=True, timeout_s=timeout)


@options.command(
    examples=(
        "tshrag wait last --timeout 30m && echo fine",
        "tshrag wait run-01j9… --json > verdict.json",
    )
)
@click.argument("run")
@click.option("--timeout", type=options.Seconds(), help="Wait at most so long; then exit 5.")
@options.readable
@options.in_lab
def wait(connection: Connection, output: str, run: str, timeout: float | None) -> None:
    """Wait until a RUN has ended; the exit code is its verdict.

    0 passed, 1 failed or in error, 4 cancelled, 5 timed out or expired, or --timeout is over:
    then the run goes on.
    """
    follow(connection, run, output, live=False, timeout_s=timeout)


def follow(
    connection: Connection, run: str, output: str, *, live: bool, timeout_s: float | None
) -> None:
    """Follow a run to its end, print its verdict and leave with its exit code."""
    board = Board()
    shows = live and output == "table"
    try:
        ended = ask(connection, lambda lab: _followed(lab, run, board, shows, timeout_s))
    except KeyboardInterrupt:
        render.note(_goes_on(board, run))
        sys.exit(130)
    if ended is None:
        render.note(f"timeout: {_goes_on(board, run)}")
        sys.exit(TIMED_OUT)
    run_end, blamed = ended
    render.emit(output, run_end, lambda out: print_end(out, run_end, blamed), [run_end.state])
    sys.exit(render.exit_code(run_end.state))


def _goes_on(board: Board, run: str) -> str:
    name = board.id or run
    return f"the run goes on; 'tshrag watch {name}' shows it, 'tshrag cancel {name}' ends it"


async def _followed(
    lab: Client, name: str, board: Board, shows: bool, timeout_s: float | None
) -> tuple[RunView, list[JobView]] | None:
    """Return the run when it has ended, and whose fault it is; None: `timeout_s` was over."""
    run = board.id = await run_named(lab, name)
    try:
        async with asyncio.timeout(timeout_s):
            await _to_the_end(lab, run, board, shows)
    except TimeoutError:
        return None
    return (await lab.run(run)).run, await _in_states(lab, run, _BLAMED, MOST_BLAMED + 1)


async def _to_the_end(lab: Client, run: str, board: Board, shows: bool) -> None:
    if sys.stdout.isatty() if shows else sys.stderr.isatty():
        with _screen(board, whole=shows) as moved:
            await _listen(lab, run, board, moved)
    else:
        await _listen(lab, run, board, _line_by_line(board) if shows else lambda _, __: None)


async def _listen(lab: Client, run: str, board: Board, moved: Moved) -> None:
    async for each in lab.watch(run):
        if isinstance(each, RunView):
            board.stands(each)
            if not is_final(each.state):
                board.seed(await _in_states(lab, run, LIVE, 100))
            moved([], True)
        else:
            moved(board.hear(each), False)


async def _in_states(lab: Client, run: str, states: Iterable[str], limit: int) -> list[JobView]:
    found: list[JobView] = []
    for state in states:
        found += (await lab.jobs(r.ListJobs(id=run, state=state, limit=limit))).jobs
    return found


def _line_by_line(board: Board) -> Moved:
    """Return what prints a line for each move, for a log."""

    def moved(happened: list[Happened], stands: bool) -> None:
        if stands:
            counts = render.counted(board.counts).plain
            click.echo(f"{board.id} {clean(board.name)}: {board.state}, {counts}")
        for each in happened:
            click.echo(move_line(each))

    return moved


def move_line(each: Happened) -> str:
    """Return one move as one line."""
    moved = each.moved
    where = f" on {clean(moved.place)}" if moved.place else ""
    why = f": {clean(moved.note, 200)}" if moved.note else ""
    clock = render.when(each.at)[11:]
    return f"{clock} {clean(moved.name)} {moved.state}{where}{why}"


class _Drawn:
    """Draws the board anew each time that rich asks."""

    def __init__(self, board: Board, whole: bool) -> None:
        self._board, self._whole = board, whole

    def __rich__(self) -> RenderableType:
        now = time.time_ns() // 1000
        return drawn(self._board, now) if self._whole else head_line(self._board, now)


@contextlib.contextmanager
def _screen(board: Board, whole: bool) -> Iterator[Moved]:
    """Show the board live: all of it on stdout, or its first line on stderr."""
    out = render.console(err=not whole)
    with Live(
        _Drawn(board, whole), console=out, refresh_per_second=_REFRESH, transient=True
    ) as live:
        yield lambda _, __: live.refresh()


def drawn(board: Board, now: int) -> RenderableType:
    """Return the whole board: counts, what runs, what happened last."""
    parts: list[RenderableType] = [head_line(board, now)]
    running = sorted(board.live.values(), key=lambda each: each.at)
    if running:
        rows = [
            (
                render.text(each.moved.name, 40),
                render.state(each.moved.state),
                render.text(each.moved.place),
                Text(duration(max(0, now - each.at) // 1_000_000)),
            )
            for each in running[:MOST_LIVE]
        ]
        parts.append(render.table(("job", "state", "place", "for"), rows, ("for",)))
    if len(running) > MOST_LIVE:
        parts.append(Text(f"… and {len(running) - MOST_LIVE} more", "bright_black"))
    for each in board.last:
        style = render.STYLES.get(each.moved.state, "")
        parts.append(Text(move_line(each), style, overflow="ellipsis", no_wrap=True))
    return Group(*parts)


def head_line(board: Board, now: int) -> Text:
    """Return name, state, how many jobs have ended, and for how long it runs."""
    if not board.state:
        return Text("connecting", "bright_black")
    since = duration(max(0, now - board.started_at) // 1_000_000) if board.started_at else ""
    return Text.assemble(
        (clean(board.name, 40), "bold"), "  ", render.state(board.state),
        f"  {board.ended}/{board.total} jobs  ", render.counted(board.counts), f"  {since}",
    )  # fmt: skip
