"""An interactive console: keys to the board, its bytes to the screen, orders by the escape key."""

import asyncio
import sys
from pathlib import Path

from tshrag_common.channel.console_words import (
    AskStatus,
    Failed,
    Happened,
    Power,
    SendBreak,
    SetBaud,
    Status,
    Told,
)
from tshrag_common.client import Client
from tshrag_common.errors import LabError
from tshrag_controller.cli.console_check import QUIET_S, FileCheck, sums_of
from tshrag_controller.cli.console_keys import (
    HELP,
    Answered,
    Asked,
    Key,
    Keys,
    Order,
    Ordered,
    Typed,
    key_name,
)
from tshrag_controller.cli.console_modem import FileSend
from tshrag_controller.cli.console_seat import Seat, Wishes, seated
from tshrag_controller.cli.terminal import raw_terminal, show, stdout_fd, typed, window_size
from tshrag_controller.reports.text import clean, instant, size

SEND_MOST_BYTES = 64 << 20
RECENT_BYTES = 1024
_SURE = "power-cycle the board? type yes"


class _Left(Exception):
    """The person leaves."""


async def interactive(lab: Client, wishes: Wishes, escape: int) -> None:
    """Sit at the console until the person leaves.

    Raises:
        LabError: the console was taken away.

    """
    async with seated(lab, wishes) as seat:
        screen = Screen(seat, wishes.dut, escape)
        fd = sys.stdin.fileno()
        await screen.greet()
        failure: LabError | None = None
        try:
            with raw_terminal(fd):
                async with asyncio.TaskGroup() as group:
                    group.create_task(screen.show_all())
                    group.create_task(screen.hear(fd))
        except* _Left:
            pass
        except* LabError as failed:
            failure = first_of(failed)
        sys.stdout.write("\r\n")
        sys.stdout.flush()
        if failure is not None:
            raise failure


class Screen:
    """What is shown and what is typed."""

    def __init__(self, seat: Seat, dut: str, escape: int) -> None:
        self._seat, self._dut = seat, dut
        self._keys, self._escape = Keys(escape), key_name(escape)
        self._out = stdout_fd()
        self._file: FileSend | None = None
        self._check: FileCheck | None = None
        self._said = b""  # the last of it, before a file

    async def greet(self) -> None:
        """Say where one is, before the terminal is raw."""
        status = await self._seat.greeted()
        help_is = f"{self._escape} ? for help, {self._escape} q to leave"
        if self._seat.watching:
            right = f"you watch: {self._seat.watching}"
        else:
            right = f"you write, until {instant(self._seat.until)}"
        await self._note(f"console of {self._dut} on {self._seat.agent}; {right}; {help_is}")
        if status is not None and status.trouble:
            await self._note(f"the line is not open: {status.trouble}")

    async def show_all(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._patience_s):
                    said = await self._seat.next()
            except TimeoutError:
                await self._silence()
                continue
            if said is None:
                raise _Left
            if not isinstance(said, bytes):
                await self._tell(said)
            elif self._file is not None:
                await self._end_file(await self._file.hear(said))
            else:
                await self._show(said)

    @property
    def _patience_s(self) -> float | None:
        if self._file is not None:
            return self._file.silence_s
        return QUIET_S if self._check is not None else None

    async def _silence(self) -> None:
        if self._file is not None:
            await self._end_file(await self._file.silence())
        elif self._check is not None:
            if command := self._check.silence():
                await self._seat.type(command)
            await self._end_check()

    async def _show(self, said: bytes) -> None:
        await show(self._out, said)
        self._said = (self._said + said)[-RECENT_BYTES:]
        if self._check is not None:
            self._check.hear(said)
            await self._end_check()

    async def _end_file(self, told: str) -> None:
        """Give the screen back where a file has come to its end; see whether it is the same."""
        if not told or self._file is None:
            return
        file, self._file = self._file, None
        await self._note(told)
        if (data := file.arrived) is not None:
            sums = await asyncio.to_thread(sums_of, data)
            self._check = FileCheck(file.there, sums, self._said)
        await self._show(file.unread)

    async def _end_check(self) -> None:
        if self._check is not None and self._check.told:
            told, self._check = self._check.told, None
            await self._note(told)

    async def hear(self, fd: int) -> None:
        async for data in typed(fd):
            for key in self._keys.feed(data):
                await self._do(key)
        raise _Left

    async def _do(self, key: Key) -> None:
        match key:
            case Typed() if self._file is not None:
                await self._end_file(await self._file.stop())
            case Typed(data=data):
                if self._check is not None:
                    self._check.give_up("you type")
                    await self._end_check()
                if self._seat.watching:
                    await self._note(f"you only watch: {self._seat.watching}")
                else:
                    await self._seat.type(data)
            case Asked(what=what, text=text):
                await show(self._out, f"\r\x1b[K[{what}: {clean(text)}".encode())
            case Answered(what=what, text=text):
                await show(self._out, b"\r\n")
                await self._answer(what, text.strip())
            case Ordered(order=order):
                await self._obey(order)

    async def _obey(self, order: Order) -> None:
        match order:
            case "quit":
                raise _Left
            case "power":
                await self._do(self._keys.ask(_SURE))
            case "break" | "status":
                await self._seat.order(SendBreak() if order == "break" else AskStatus())
            case "size":
                columns, rows = window_size()
                await self._seat.type(f"stty rows {rows} columns {columns}\r".encode())
            case "cancelled":
                await show(self._out, b"\r\n")
            case "help" | "unknown":
                await self._note(*(f"{self._escape} {line}" for line in HELP))

    async def _answer(self, what: str, text: str) -> None:
        if what == _SURE:
            if text == "yes":
                await self._seat.order(Power(what="cycle"))
            else:
                await self._note("not done")
        elif what == "baud rate":
            await self._set_baud(text)
        elif text:
            await self._send(text, what.rpartition(" by ")[2] if " by " in what else "")

    async def _set_baud(self, text: str) -> None:
        if text.isdecimal() and 50 <= int(text) <= 20_000_000:
            await self._seat.order(SetBaud(baud=int(text)))
        else:
            await self._note("a baud rate is a number, as 115200")

    async def _send(self, name: str, how: str) -> None:
        try:
            data = await asyncio.to_thread(_content, name)
        except OSError as error:
            await self._note(f"{name}: {error.strerror}")
            return
        if self._seat.watching:
            await self._note(f"you only watch: {self._seat.watching}")
            return
        if how:
            await self._note(f"sending {name} by {how}; any key stops it")
            self._file = FileSend(name, data, how, self._seat.type)
            return
        await self._seat.type(data)
        await self._note(f"sent {name}: {size(len(data))}")

    async def _tell(self, told: Told) -> None:
        match told:
            case Failed(line=line):
                await self._note(line)
            case Status():
                await self._note(*status_lines(told))
            case Happened():
                if line := happened_line(told, self._seat.me):
                    await self._note(line)

    async def _note(self, *lines: str) -> None:
        said = "".join(f"[tshrag: {clean(line)}]\r\n" for line in lines)
        await show(self._out, f"\r\n{said}".encode())


def status_lines(status: Status) -> list[str]:
    """Return how a console is, for people."""
    speed = f", {status.baud} baud" if status.baud else ""
    return [
        f"{status.line}{speed}; {status.trouble or 'open'}",
        f"writer: {status.writer or 'nobody'}; watchers: {status.watchers}",
        f"from the board {size(status.rx_bytes)}, to it {size(status.tx_bytes)}; "
        f"boots seen: {status.boots}; last sign: {status.last_sign or 'none'}",
    ]


def happened_line(told: Happened, me: str) -> str:
    """Return what happened, for people; nothing where one has done it oneself."""
    if told.author == me:
        return ""
    if told.text.startswith("driver "):
        return f"{told.author} writes now"
    if told.text.startswith("released "):
        return f"{told.author} writes no more"
    return f"{told.text} ({told.author})" if told.author else told.text


def first_of(group: BaseExceptionGroup[LabError]) -> LabError:
    inner = group.exceptions[0]
    return first_of(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _content(name: str) -> bytes:
    with Path(name).expanduser().open("rb") as file:
        return file.read(SEND_MOST_BYTES)
