"""An open serial line: bytes in, bytes out, a break, an end.

The event loop reads the fd of a tty itself, with a short pause when it floods: no thread a port
(``performance.md`` section 7). Raw TCP (``socket://``) is here too; what pyserial opens and sets
is in ``serial.py``.
"""

import asyncio
import os
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, ClassVar, Literal, Protocol, cast
from urllib.parse import urlsplit

import msgspec

from tshrag_agent.transport.base import TransportFailed
from tshrag_common.errors import shown
from tshrag_common.rfc2217 import FlowName, PortState

PAUSE_S = 0.015
"""How long a line that floods is left to gather. All of them are read at the same instants, so
that 64 lines are one wake-up of the loop and not 64."""

_FLOODS_AFTER = 4  # reads in a row, each within PAUSE_S of the one before
_READ_BYTES = 16384
_TURN_BYTES = 65536
_SHORT_BYTES = 2048  # a tty hands out up to 4,095 at once: a read below this has emptied it
_PARITY = {"none": "N", "even": "E", "odd": "O", "mark": "M", "space": "S"}


Argv = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=1000)]


class LineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line as agent.toml describes it. ``dtr`` and ``rts`` are the levels while it is open.

    It has a ``url``, or is the ``command`` that carries its bytes; ``break_text`` is what that
    command takes for a break.
    """

    KINDS: ClassVar[tuple[str, ...]] = ("url", "command")

    url: str = ""
    command: Argv = ()
    break_text: str = ""
    baud: int = 115200
    data_bits: Literal[5, 6, 7, 8] = 8
    parity: Literal["none", "even", "odd", "mark", "space"] = "none"
    stop_bits: Literal[1, 2] = 1
    xonxoff: bool = False
    rtscts: bool = False
    dtr: bool = True
    rts: bool = True

    @property
    def where(self) -> str:
        """Return how people name the line; arguments of a command may be secret."""
        return self.url or f"command {shown(self.command[0], 80)}"

    @property
    def speed(self) -> int:
        """Return its baud rate; 0 where it has none."""
        return 0 if self.command else self.baud

    @property
    def state(self) -> PortState:
        flow: FlowName = "rtscts" if self.rtscts else "xonxoff" if self.xonxoff else "none"
        return PortState(
            baud=self.baud,
            data_bits=self.data_bits,
            parity=self.parity,
            stop_bits=self.stop_bits,
            flow=flow,
            dtr=self.dtr,
            rts=self.rts,
        )

    def having(self, state: PortState) -> "LineSettings":
        """Return the same line set otherwise."""
        names = ("baud", "data_bits", "parity", "stop_bits", "dtr", "rts")
        changed = {name: getattr(state, name) for name in names}
        flow = {"xonxoff": state.flow == "xonxoff", "rtscts": state.flow == "rtscts"}
        return msgspec.structs.replace(self, **changed, **flow)


Received = Callable[[bytes], None]
Lost = Callable[[str], None]


class Line(Protocol):
    """An open line. What arrives is handed to ``received``; its end, once, to ``lost``."""

    async def write(self, data: bytes) -> None:
        """Return when the system has taken all of `data`; the deadline is the caller's."""
        ...

    async def send_break(self, duration_s: float) -> None: ...

    async def configure(self, settings: LineSettings) -> None:
        """Be set as `settings` say; refuse it where the line cannot."""
        ...

    def close(self) -> None:
        """Let go of the line; ``lost`` is not called for it."""
        ...


class Port(Protocol):
    """What a tty line needs of the object that opened it."""

    break_condition: bool

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class FdLine:
    """A tty, read by the event loop."""

    def __init__(self, port: Port, url: str, received: Received, lost: Lost) -> None:
        self._port, self._url, self._received, self._lost = port, url, received, lost
        self._loop = asyncio.get_running_loop()
        self._fd = port.fileno()
        self._open = True
        self._reads_in_a_row = 0
        self._read_at = 0.0
        self._resume: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._loop.add_reader(self._fd, self._readable)

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        self._wake()
        while rest:
            if not self._open:
                raise TransportFailed("serial_lost", self._url, "the line is closed")
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                self._end(reason_of(error))
                raise TransportFailed("serial_lost", self._url, reason_of(error)) from None

    async def send_break(self, duration_s: float) -> None:
        self._port.break_condition = True
        try:
            await asyncio.sleep(duration_s)
        finally:
            if self._open:
                self._port.break_condition = False

    async def configure(self, settings: LineSettings) -> None:
        try:
            put(self._port, settings)
            steady(self._fd)  # pyserial has set everything anew
        except (OSError, ValueError, termios.error) as error:
            what = f"it cannot be set so: {error}"
            raise TransportFailed("serial_lost", self._url, what) from None

    def drain(self) -> None:
        """Take now what the system has for us."""
        if self._open:
            self._take(short_bytes=1)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        if self._resume:
            self._resume.cancel()
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        if self._waiting and not self._waiting.done():
            self._waiting.set_result(None)
        with suppress(termios.error, OSError):  # the device may have gone: nothing to flush
            termios.tcflush(self._fd, termios.TCOFLUSH)  # or close waits for a stopped peer
        self._port.close()

    def _readable(self) -> None:
        if not self._take() or not self._open:
            return
        now = self._loop.time()
        self._reads_in_a_row = self._reads_in_a_row + 1 if now - self._read_at < PAUSE_S else 0
        self._read_at = now
        if self._reads_in_a_row >= _FLOODS_AFTER:
            self._loop.remove_reader(self._fd)
            self._resume = self._loop.call_at(next_sip(now), self._sip)

    def _sip(self) -> None:
        """Read what a flood has gathered; listen again once it is over."""
        if self._take() and self._open:
            self._resume = self._loop.call_at(next_sip(self._loop.time()), self._sip)
        else:
            self._wake()

    def _take(self, short_bytes: int = _SHORT_BYTES) -> int:
        """Hand on what there is, until a read is short of `short_bytes`; return how much it was."""
        taken, size = 0, short_bytes
        while size >= short_bytes and taken < _TURN_BYTES and self._open:
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                self._end(reason_of(error))
                break
            if not data:
                self._end("the device has hung up")
                break
            size = len(data)
            taken += size
            self._received(data)  # which may close the line
        return taken

    def _wake(self) -> None:
        """Read at once and on: answers to what is typed are a talk, not a flood."""
        self._reads_in_a_row = 0
        if self._resume and self._open:
            self._resume.cancel()
            self._resume = None
            self._loop.add_reader(self._fd, self._readable)

    async def _writable(self) -> None:
        self._waiting = waiting = self._loop.create_future()
        self._loop.add_writer(self._fd, resolve, waiting)
        try:
            await waiting
        finally:
            if self._open:
                self._loop.remove_writer(self._fd)

    def _end(self, reason: str) -> None:
        if self._open:
            self.close()
            self._lost(reason)


class TcpLine(asyncio.Protocol):
    """A raw TCP port that carries a serial line."""

    def __init__(self, url: str, received: Received, lost: Lost) -> None:
        self._url, self._received, self._lost = url, received, lost
        self._open = True
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        self._received(data)

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._may_write.set()
        if self._open:
            self._open = False
            self._lost(str(exc) if exc else "the other side has closed the connection")

    async def write(self, data: bytes) -> None:
        if not self._open or self._transport is None:
            raise TransportFailed("serial_lost", self._url, "the connection is closed")
        self._transport.write(data)
        await self._may_write.wait()

    def send(self, data: bytes) -> None:
        """Write a few bytes without waiting; a connection that is over takes none."""
        if self._open and self._transport is not None:
            self._transport.write(data)

    async def send_break(self, duration_s: float) -> None:
        what = f"raw TCP carries no break (of {duration_s:g} s)"
        raise TransportFailed("serial_lost", self._url, what, "use rfc2217://")

    async def configure(self, settings: LineSettings) -> None:
        what = f"raw TCP has no speed to set ({settings.baud})"
        raise TransportFailed("serial_lost", self._url, what, "use rfc2217://")

    def close(self) -> None:
        self._open = False
        if self._transport:
            self._transport.abort()


async def open_tcp(settings: LineSettings, received: Received, lost: Lost) -> TcpLine:
    parts = urlsplit(settings.url)
    try:
        _transport, line = await asyncio.get_running_loop().create_connection(
            lambda: TcpLine(settings.url, received, lost), parts.hostname or "", parts.port or 0
        )
    except (OSError, ValueError) as error:
        raise TransportFailed("serial_missing", settings.url, str(error)) from None
    return line


def put(port: object, settings: LineSettings) -> None:
    """Set what differs: a pty, for one, has no DTR, and says so when that is set."""
    wanted = {
        "baudrate": settings.baud,
        "bytesize": settings.data_bits,
        "parity": _PARITY[settings.parity],
        "stopbits": settings.stop_bits,
        "xonxoff": settings.xonxoff,
        "rtscts": settings.rtscts,
        "dtr": settings.dtr,
        "rts": settings.rts,
    }
    for name, value in wanted.items():
        if getattr(port, name) != value:
            setattr(port, name, value)


def next_sip(now: float) -> float:
    """Return the next instant at which lines that flood are read."""
    return (now // PAUSE_S + 1) * PAUSE_S


def steady(fd: int) -> None:
    """Set what pyserial leaves to chance."""
    attributes = termios.tcgetattr(fd)
    attributes[2] &= ~termios.HUPCL  # closing must not drop DTR: many boards reset on it
    attributes[6][termios.VMIN] = 1  # so that "nothing there" and "hung up" read differently
    termios.tcsetattr(fd, termios.TCSANOW, attributes)


def resolve(waiting: asyncio.Future[None]) -> None:
    """Let whoever waits go on, once."""
    if not waiting.done():
        waiting.set_result(None)


def reason_of(error: OSError) -> str:
    return error.strerror or str(error)
