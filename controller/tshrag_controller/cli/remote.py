"""Processes on a lab host: started, followed, read again later, ended, forgotten."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeVar

import click
import msgspec
from rich.console import Console

from tshrag_common.channel.channel import ChannelClosed
from tshrag_common.channel.wants import ExecView
from tshrag_common.client import Client
from tshrag_common.errors import LabError, Unavailable
from tshrag_common.exec_client import HostProcesses, processes_of
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.context import Connection
from tshrag_controller.reports.text import clean

T = TypeVar("T")
Stream = Literal["stdout", "stderr"]

_READ_BYTES = 64 << 10
_SIGNALS = {each.name.removeprefix("SIG"): int(each) for each in signal.Signals}


class HostView(msgspec.Struct, frozen=True, kw_only=True):
    """The processes of one host."""

    processes: tuple[ExecView, ...]


@options.command(
    "exec",
    examples=(
        "tshrag exec rack-2 -- uname -a",
        "tar c . | tshrag exec rack-2 --stdin -- tar x -C /tmp",
        "tshrag exec rack-2 --detach -- make -C /srv/image   # prints its id; see 'tshrag process'",
    ),
)
@click.argument("host")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--cwd", default="", help="Folder there; the home of the agent's user if not said.")
@click.option("--env", "pairs", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--stdin", "reads", is_flag=True, help="Hand on what comes on stdin here.")
@click.option("--detach", is_flag=True, help="Print its id and leave.")
@click.option("--secret-args", is_flag=True, help="Record and lists name the program only.")
@options.in_lab
def exec_(
    connection: Connection, host: str, words: Sequence[str], cwd: str, pairs: Sequence[str],
    reads: bool, detach: bool, secret_args: bool,
) -> int:  # fmt: skip
    """Start a process on a lab host, show its output, end with its exit code; for operators.

    It goes on when this ends: Ctrl-C leaves it at work and says how to find it again. One whose
    end was seen is forgotten there.
    """
    env = dict(_pair(each) for each in pairs)

    async def work(host: HostProcesses) -> int:
        view = await host.start(words, cwd=cwd, env=env, stdin=reads, secret_args=secret_args)
        if view.state == "failed":
            await host.remove(view.id)
            raise Unavailable(words[0], view.error, code="exec_failed")
        if detach:
            click.echo(view.id)
            return 0
        started.append(view.id)
        ended = await _followed(host, view.id, reads)
        await host.remove(view.id)
        return _code(ended)

    started: list[str] = []
    try:
        return _on(connection, host, work)
    except (KeyboardInterrupt, LabError):
        for name in started:
            render.note(f"{name} goes on at {host}; 'tshrag process wait {host} {name}'")
        raise


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is no NAME=VALUE", param_hint="--env")
    return name, value


async def _followed(host: HostProcesses, name: str, reads: bool) -> ExecView:
    feeding = asyncio.create_task(_fed(host, name)) if reads else None
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_shown(host, name, "stdout", 0, True))
            group.create_task(_shown(host, name, "stderr", 0, True))
    finally:
        if feeding is not None:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
    return await host.wait(name)


async def _shown(host: HostProcesses, name: str, stream: Stream, offset: int, follow: bool) -> None:
    out = sys.stderr.buffer if stream == "stderr" else sys.stdout.buffer
    async with host.output(name, stream, offset=offset, follow=follow) as channel:
        while (piece := await channel.read()) is not None:
            out.write(piece.data)
            out.flush()


async def _fed(host: HostProcesses, name: str) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=4 * _READ_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with host.input(name) as channel:
        try:
            while data := await reader.read(_READ_BYTES):
                await channel.write(data)
            await channel.finish()
            await channel.flushed()
            await channel.gone()
        except ChannelClosed:
            return


def _code(view: ExecView) -> int:
    """Return the exit code as a shell would have it; 255 where nobody knows it."""
    if view.code is None:
        render.note(f"{view.id} is {view.state}: how it ended is not known")
        return 255
    return view.code if view.code >= 0 else 128 - view.code


@click.group()
def process() -> None:
    """Processes that 'tshrag exec' has started on a lab host; for operators."""


@process.command("list", cls=options.Command, examples=("tshrag process list rack-2",))
@click.argument("host")
@options.readable
@options.in_lab
def list_(connection: Connection, output: str, host: str) -> None:
    """List them, oldest first."""
    views = _on(connection, host, lambda there: there.list())
    render.emit(
        output,
        HostView(processes=views),
        lambda out: _print(out, views),
        [each.id for each in views],
    )


@process.command(cls=options.Command, examples=("tshrag process status rack-2 x0123456789ab",))
@click.argument("host")
@click.argument("name")
@options.readable
@options.in_lab
def status(connection: Connection, output: str, host: str, name: str) -> None:
    """Show one: whether it is at work, how it ended, how much it has said."""
    _emit(output, _on(connection, host, lambda there: there.status(name)))


@process.command(cls=options.Command, examples=("tshrag process wait rack-2 x0123456789ab",))
@click.argument("host")
@click.argument("name")
@options.in_lab
def wait(connection: Connection, host: str, name: str) -> int:
    """Wait for its end; the exit code is its own."""
    return _code(_on(connection, host, lambda there: there.wait(name)))


@process.command(
    cls=options.Command,
    examples=(
        "tshrag process output rack-2 x0123456789ab --follow",
        "tshrag process output rack-2 x0123456789ab --stderr --offset 4096",
    ),
)
@click.argument("host")
@click.argument("name")
@click.option("--stderr", "is_error", is_flag=True, help="That, and not stdout.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Begin behind so many bytes.")
@click.option("--follow", is_flag=True, help="Go on until it ends.")
@options.in_lab
def output(
    connection: Connection, host: str, name: str, is_error: bool, offset: int, follow: bool
) -> None:
    """Print what it said, byte by byte."""
    stream: Stream = "stderr" if is_error else "stdout"

    async def shown(there: HostProcesses) -> None:
        async with there.output(name, stream, offset=offset, follow=follow) as channel:
            while (piece := await channel.read()) is not None:
                sys.stdout.buffer.write(piece.data)
                sys.stdout.buffer.flush()

    _on(connection, host, shown)


@process.command("input", cls=options.Command,
                 examples=("tshrag process input rack-2 x0123456789ab < answers.txt",))  # fmt: skip
@click.argument("host")
@click.argument("name")
@options.in_lab
def input_(connection: Connection, host: str, name: str) -> None:
    """Hand stdin on to it, and its end."""
    _on(connection, host, lambda there: _fed(there, name))


@process.command("signal", cls=options.Command,
                 examples=("tshrag process signal rack-2 x0123456789ab KILL",))  # fmt: skip
@click.argument("host")
@click.argument("name")
@click.argument("which", type=click.Choice(sorted(_SIGNALS), case_sensitive=False), default="TERM")
@options.readable
@options.in_lab
def signal_(connection: Connection, output: str, host: str, name: str, which: str) -> None:
    """Signal it and its children; TERM if not said."""
    number = _SIGNALS[which]
    _emit(output, _on(connection, host, lambda there: there.signal(name, number)))


@process.command(cls=options.Command, examples=("tshrag process remove rack-2 x0123456789ab",))
@click.argument("host")
@click.argument("name")
@options.in_lab
def remove(connection: Connection, host: str, name: str) -> None:
    """Forget one that has ended, with its output."""
    view = _on(connection, host, lambda there: there.remove(name))
    render.note(f"{view.id} is forgotten")


def _on(connection: Connection, host: str, work: Callable[[HostProcesses], Awaitable[T]]) -> T:
    async def there(lab: Client) -> T:
        async with processes_of(lab, host) as processes:
            return await work(processes)

    return ask(connection, there)


def _emit(output: str, view: ExecView) -> None:
    render.emit(output, view, lambda out: _print(out, (view,)), [view.state])


def _print(out: Console, views: Sequence[ExecView]) -> None:
    rows: list[list[render.Cell]] = [
        [
            each.id,
            each.state,
            "-" if each.code is None else str(each.code),
            render.when(each.started_at),
            each.by,
            f"{each.stdout_bytes} / {each.stderr_bytes}",
            render.text(clean(" ".join(each.argv)), 50),
        ]
        for each in views
    ]
    heads = ("process", "state", "code", "started", "by", "stdout / stderr", "command")
    out.print(render.table(heads, rows, right=("code", "stdout / stderr")))
