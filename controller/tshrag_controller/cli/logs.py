"""Output of jobs: escaped on a terminal, as it is into a pipe."""

import asyncio
import codecs
import re
import sys
from collections.abc import Callable
from typing import Literal

import click

from tshrag_common import requests as r
from tshrag_common.client import Client
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask, job_named
from tshrag_controller.cli.context import Connection
from tshrag_controller.reports.text import clean_lines

Stream = Literal["stdout", "stderr", "console"]

FOLLOW_S = 0.25
_SGR = re.compile(r"(\x1b\[[0-9;:]{0,64}m)")
_HALF = re.compile(r"\x1b(\[[0-9;:]{0,64})?$")


@options.command(
    examples=(
        "tshrag logs last:2",
        "tshrag logs last:2 -f --stderr",
        "tshrag logs last:2 --tail 4KiB",
        "tshrag logs last:2 > job.log        # the bytes as they are",
    )
)
@click.argument("job")
@click.option("--stderr", "stream", flag_value="stderr", help="What it wrote to stderr.")
@click.option("--console", "stream", flag_value="console", help="The serial console.")
@click.option("-f", "--follow", "follows", is_flag=True, help="Go on until the job has ended.")
@click.option("--attempt", type=click.IntRange(1), help="Of this attempt; else the newest.")
@click.option("--tail", metavar="SIZE", help="Only the last so many bytes, as 4KiB.")
@click.option("--raw", is_flag=True, help="The bytes as they are, on a terminal too.")
@click.option("--colour", "--color", is_flag=True, help="Let colours of the output through.")
@options.in_lab
def logs(
    connection: Connection,
    job: str,
    stream: Stream | None,
    follows: bool,
    attempt: int | None,
    tail: str | None,
    raw: bool,
    colour: bool,
) -> None:
    """Show the output of a JOB.

    On a terminal every control character is shown as text, so that no output can move the cursor
    or touch the clipboard; --raw and pipes get the bytes.
    """
    from tshrag_common.units import quantity

    last = int(quantity(tail, "tail").value) if tail else 0
    asked = r.GetLogs(job="", stream=stream or "stdout", attempt=attempt or 0)
    is_raw = raw or not sys.stdout.isatty()
    write, end = _writer(is_raw, colour)
    try:
        ask(connection, lambda lab: _copy(lab, job, asked, last, follows, write))
    except KeyboardInterrupt:
        render.note("the job goes on")
        sys.exit(130)
    finally:
        end()


async def _copy(
    lab: Client,
    name: str,
    asked: r.GetLogs,
    last: int,
    follows: bool,
    write: Callable[[bytes], None],
) -> None:
    """Write the stream piece by piece; with `follows` until the attempt is over."""
    job = await job_named(lab, name)
    attempt, offset = asked.attempt, -1 if last else 0
    limit = last or asked.limit
    while True:
        answer = await lab.logs(
            r.GetLogs(job=job, stream=asked.stream, attempt=attempt, offset=offset, limit=limit)
        )
        if attempt and answer.attempt != attempt:
            offset = 0
        attempt, offset, limit = answer.attempt, answer.next, asked.limit
        write(answer.data)
        if answer.next < answer.total:
            continue
        if answer.complete or not follows:
            return
        await asyncio.sleep(FOLLOW_S)  # output is stored, not published: nothing to wait for


Writer = tuple[Callable[[bytes], None], Callable[[], None]]
"""What takes pieces, and what ends it."""


def _writer(raw: bool, colour: bool) -> Writer:
    return _raw_writer() if raw else _safe_writer(colour)


def _raw_writer() -> Writer:
    out = sys.stdout.buffer

    def write(data: bytes) -> None:
        out.write(data)
        out.flush()

    return write, lambda: None


def _safe_writer(colour: bool) -> Writer:
    cleaner = Cleaner(colour)

    def write(data: bytes) -> None:
        click.echo(cleaner.take(data), nl=False, color=True)

    def end() -> None:
        click.echo(cleaner.end(), nl=False, color=True)

    return write, end


class Cleaner:
    """Makes harmless text of output that comes in pieces, cut anywhere."""

    def __init__(self, colour: bool) -> None:
        self._colour = colour
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""
        self._newline = True

    def take(self, data: bytes) -> str:
        """Return what can be shown of `data` and of what was held before."""
        return self._shown(self._held + self._decoder.decode(data), at_end=False)

    def end(self) -> str:
        """Return the rest, on a line that is ended, in the colours that were there before."""
        rest = self._shown(self._held + self._decoder.decode(b"", final=True), at_end=True)
        after = "" if self._newline else "\n"
        return rest + ("\x1b[0m" if self._colour else "") + after

    def _shown(self, text: str, at_end: bool) -> str:
        self._held = ""
        half = _HALF.search(text) if self._colour else None
        keep = half.start() if half else len(text) - text.endswith("\r")
        if not at_end and keep < len(text):
            text, self._held = text[:keep], text[keep:]
        if text:
            self._newline = text.endswith("\n")
        if not self._colour:
            return clean_lines(text)
        parts = _SGR.split(text)
        return "".join(
            part if number % 2 else clean_lines(part) for number, part in enumerate(parts)
        )
