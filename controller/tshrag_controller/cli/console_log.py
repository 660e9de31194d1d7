"""The record of consoles, for people and programs: what was said, who typed, what was seen."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import datetime

import click
from rich.console import Console

from tshrag_common.client import Client
from tshrag_common.console_log import ConsoleRecord, unpacked
from tshrag_common.console_requests import (
    ConsoleAnswer,
    GetConsole,
    GrepConsole,
    ListSigns,
)
from tshrag_common.errors import Refused
from tshrag_common.times import duration_s
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import all_jobs, ask, run_named
from tshrag_controller.cli.context import Connection
from tshrag_controller.reports.text import clean, clean_lines, safe_json_line

Given = Mapping[str, object]
FOLLOW_S = 0.5
TAIL_BYTES = 64 << 10
LONGEST_KEYS = 400


def read_record(connection: Connection, output: str, dut: str, given: Given) -> None:
    """Show the record of a console, lines that a pattern finds, or signs."""
    if not dut and not given["everywhere"]:
        raise Refused("console", "which board?", "name one, or say --all", code="dut")
    if given["pattern"]:
        ask(connection, lambda lab: _grep(lab, output, dut, given))
    elif given["signs"]:
        ask(connection, lambda lab: _signs(lab, output, dut, given))
    elif not dut:
        raise Refused("--log", "one board at a time", "name it", code="dut")
    else:
        try:
            ask(connection, lambda lab: _log(lab, output, dut, given))
        except KeyboardInterrupt:
            sys.exit(130)


async def _log(lab: Client, output: str, dut: str, given: Given) -> None:
    since, until = await _times(lab, dut, given)
    writer = _writer(output, bool(given["raw"]), bool(given["plain"]))
    request = GetConsole(
        dut=dut, since=since, until=until, tail_bytes=0 if since or until else TAIL_BYTES
    )
    async for record in _records(lab, request, bool(given["follows"])):
        writer.write(record)
    writer.end()


async def _records(lab: Client, asked: GetConsole, follows: bool) -> AsyncIterator[ConsoleRecord]:
    while True:
        answer: ConsoleAnswer = await lab.console(asked)
        for record in unpacked(answer.block) if answer.block else ():
            yield record
        if answer.cursor:
            asked = GetConsole(
                dut=asked.dut, since=asked.since, until=asked.until, cursor=answer.cursor
            )
        if not answer.more:
            if not follows:
                return
            await asyncio.sleep(FOLLOW_S)


async def _times(lab: Client, dut: str, given: Given) -> tuple[int, int]:
    since, until = moment(given["since"]), moment(given["until"])
    if not given["run"]:
        return since, until
    run = await run_named(lab, str(given["run"]))
    had = [
        (attempt.assigned_at, attempt.ended_at)
        for job in await all_jobs(lab, run)
        for attempt in job.attempts
        if not dut or attempt.dut == dut
    ]
    if not had:
        raise Refused(run, f"it has never had {dut}", "see 'tshrag status'", code="not_there")
    open_ended = any(not end for _, end in had)
    return min(begin for begin, _ in had), 0 if open_ended else max(end for _, end in had)


def moment(text: object) -> int:
    """Return the instant that ``10m`` (ago) or ISO text means; 0 for none."""
    if not text:
        return 0
    word = str(text)
    if word[-1:] in "smhd" and word[:-1].replace(".", "", 1).isdecimal():
        now = round(datetime.now().timestamp() * 1e6)
        return max(0, now - round(duration_s(word, "since", least_s=0) * 1e6))
    return options.Moment().convert(word, None, None)


def _writer(output: str, raw: bool, plain: bool) -> "_Raw | _Plain | _Json | _Timed":
    if output == "json":
        return _Json()
    if raw:
        return _Raw()
    return _Plain() if plain else _Timed()


class _Raw:
    """The bytes of the board, as they came."""

    def write(self, record: ConsoleRecord) -> None:
        if record.direction == "rx":
            sys.stdout.buffer.write(record.data)

    def end(self) -> None:
        sys.stdout.buffer.flush()


class _Plain:
    """The text of the board, harmless on a terminal."""

    def __init__(self) -> None:
        self._rest = b""

    def write(self, record: ConsoleRecord) -> None:
        if record.direction != "rx":
            return
        *lines, self._rest = (self._rest + record.data).split(b"\n")
        for line in lines:
            click.echo(_text(line))

    def end(self) -> None:
        if self._rest:
            click.echo(_text(self._rest))


class _Json:
    """One JSON object a record and line; bytes as text with escapes."""

    def write(self, record: ConsoleRecord) -> None:
        import msgspec

        said = {
            "at": record.at,
            "direction": record.direction,
            "text": record.data.decode("utf-8", "backslashreplace"),
        }
        if record.author:
            said["author"] = record.author
        click.echo(safe_json_line(msgspec.json.encode(said)))

    def end(self) -> None:
        """Nothing is left."""


class _Timed:
    """Lines with the instant at which they began; what was typed and what happened between.

    Keys come one by one, and the board's echo between them: they are shown as the lines that they
    make, each with who typed it.
    """

    def __init__(self) -> None:
        self._rest, self._began = b"", 0
        self._keys: ConsoleRecord | None = None

    def write(self, record: ConsoleRecord) -> None:
        if record.direction == "rx":
            self._said(record)
        elif record.direction == "tx":
            self._typed(record)
        else:
            by = f" ({clean(record.author)})" if record.author else ""
            self._line(record.at, f"-- {clean(record.data.decode('utf-8', 'replace'))}", by)

    def end(self) -> None:
        self._end_keys()
        if self._rest:
            self._line(self._began, _text(self._rest))
            self._rest = b""

    def _said(self, record: ConsoleRecord) -> None:
        if not self._rest:
            self._began = record.at
        *lines, self._rest = (self._rest + record.data).split(b"\n")
        for line in lines:
            self._line(self._began, _text(line))
            self._began = record.at

    def _typed(self, record: ConsoleRecord) -> None:
        keys = self._keys
        if keys is not None and keys.author != record.author:
            self._end_keys()
            keys = None
        if keys is not None:
            record = ConsoleRecord(keys.at, "tx", keys.data + record.data, record.author)
        self._keys = record
        if record.data.endswith((b"\r", b"\n")) or len(record.data) > LONGEST_KEYS:
            self._end_keys()

    def _end_keys(self) -> None:
        keys, self._keys = self._keys, None
        if keys is not None:
            text = clean(keys.data.decode("utf-8", "backslashreplace"))
            self._line(keys.at, f">> {text}", f" ({clean(keys.author)})")

    def _line(self, at: int, text: str, more: str = "") -> None:
        click.echo(f"{stamp(at)}  {text}{more}")


def stamp(at: int) -> str:
    """Return an instant for people, local time, to the microsecond."""
    return datetime.fromtimestamp(at / 1e6).strftime("%m-%d %H:%M:%S.%f")


def _text(line: bytes) -> str:
    return clean_lines(line.rstrip(b"\r").decode("utf-8", "backslashreplace"))


async def _grep(lab: Client, output: str, dut: str, given: Given) -> None:
    since, until = await _times(lab, dut, given)
    asked = GrepConsole(
        pattern=str(given["pattern"]),
        duts=(dut,) if dut else (),
        since=since,
        until=until,
        ignore_case=bool(given["ignore_case"]),
    )
    answer = await lab.console_grep(asked)

    def table(out: Console) -> None:
        for line in answer.lines:
            click.echo(f"{stamp(line.at)}  {line.dut}: {clean(line.text)}")

    render.emit(output, answer, table, sorted({line.dut for line in answer.lines}))
    if answer.late:
        render.note("the time was over before all was searched; narrow it by --since, or one board")
    elif answer.more:
        render.note("there are more; narrow it by --since or a longer pattern")
    if not answer.lines:
        sys.exit(1)


async def _signs(lab: Client, output: str, dut: str, given: Given) -> None:
    answer = await lab.signs(ListSigns(dut=dut, since=moment(given["since"])))

    def table(out: Console) -> None:
        rows: list[list[render.Cell]] = [
            [stamp(each.seen_at), each.dut, each.sign, str(each.boot), render.text(each.text)]
            for each in answer.signs
        ]
        out.print(render.table(("seen", "board", "sign", "boot", "line"), rows, right=("boot",)))

    render.emit(output, answer, table, (each.dut for each in answer.signs))
