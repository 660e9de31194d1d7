"""The sockets of an attempt that take samples: ``$TSHRAG_METRICS`` and ``$TSHRAG_METRICS.stream``.

A UNIX path is either for datagrams or for streams, so there are two: datagrams at the path itself
(what StatsD clients send), lines at the path with ``.stream`` behind it. A load that writes faster
than the agent reads, or than the lab stores, waits in its own ``send``: nothing piles up here. Both
sockets are read by the event loop; a path must be short (107 bytes), so a deep job directory gets
its sockets in a folder of their own.
"""

import asyncio
import contextlib
import logging
import os
import socket
import tempfile
from pathlib import Path
from typing import cast

from tshrag_agent.attempts.metric_gate import MetricGate
from tshrag_agent.attempts.metric_lines import LINE_CAP
from tshrag_agent.attempts.metric_protocols import MetricProtocols
from tshrag_agent.journal.pressure import LOOK_S, Pressure
from tshrag_common.clock import Clock
from tshrag_common.errors import Refused

logger = logging.getLogger(__name__)

NAME = "metrics.sock"
STREAM = ".stream"
MAX_PATH_BYTES = 107 - len(STREAM)
MAX_CONNECTIONS = 32
DATAGRAM_BYTES = 64 * 1024
_AT_ONCE = 128  # datagrams before others have their turn
_ACCEPT_TURNS = 3  # of the loop, for whoever waits to be accepted
_ROUNDS = 64  # of them at the end: more than any kernel queues


def link_of(path: Path) -> Path:
    """Return where the symbolic link to a socket lies that jobs are given under other names."""
    return path.with_name(path.name + ".link")


def is_short(path: Path) -> bool:
    """Tell whether both sockets at `path` can be reached: the system takes 107 bytes."""
    return len(os.fsencode(path)) <= MAX_PATH_BYTES


class MetricSocket:
    """Both sockets of one attempt: `open`, and `close` when its processes are gone."""

    def __init__(
        self,
        folder: Path,
        gate: MetricGate,
        clock: Clock,
        pressure: Pressure,
        *,
        mode: int = 0o600,
    ) -> None:
        self.path = folder / NAME  # for $TSHRAG_METRICS; final after `open`
        self._gate, self._clock, self._mode = gate, clock, mode
        self._reader = MetricProtocols(gate)
        self._made: Path | None = None  # a folder of our own, where `folder` is too long a path
        self._datagrams: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._streams = _Streams(pressure)
        self._sent_bytes = 0  # in datagrams

    async def open(self) -> None:
        """Bind both sockets; an older socket at the path is replaced.

        Raises:
            Refused: no path is short enough, or the folder cannot be written.

        """
        try:
            await self._bind()
        except OSError as error:
            await self.close()
            raise Refused(os.fspath(self.path), f"no metrics socket: {error}") from error

    def lend(self, gate: MetricGate) -> None:
        """Serve another attempt; nobody of the one before is alive."""
        self._gate, self._reader = gate, MetricProtocols(gate)
        self._sent_bytes, self._streams.at_end = 0, False

    async def rest(self, within_s: float = 1.0) -> None:
        """Take what was sent, for at most `within_s`; the sockets stay for another attempt."""
        self._streams.hear_all()
        for _ in range(_ACCEPT_TURNS):
            await asyncio.sleep(0)
        if not self._streams.quiet.is_set():
            await self._hear_out(within_s)
            for stream in list(self._streams):
                stream.cut()
        for _ in range(_ROUNDS):
            if not self._read_datagrams():
                break

    async def _bind(self) -> None:
        await asyncio.to_thread(self._prepare)
        datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._datagrams = datagrams
        datagrams.bind(os.fspath(self.path))
        loop = asyncio.get_running_loop()
        loop.add_reader(datagrams.fileno(), self._hear_datagrams)
        stream = os.fspath(self._paths()[1])
        self._server = await loop.create_unix_server(self._accept, stream)
        await asyncio.to_thread(self._open_to_load)

    async def close(self, within_s: float = 1.0) -> None:
        """Take what was sent, for at most `within_s`; then remove the sockets."""
        self._streams.hear_all()
        if self._server is not None:
            await self._hear_out(within_s)
        for _ in range(_ROUNDS):
            if not self._read_datagrams():
                break
        self.let_go()
        await asyncio.to_thread(self._clear)

    def let_go(self) -> None:
        """Close both sockets, and leave their names: the next agent binds them anew."""
        if self._server is not None:
            self._server.close()
            for stream in list(self._streams):
                stream.cut()
            self._server = None
        if self._datagrams is not None:
            asyncio.get_running_loop().remove_reader(self._datagrams.fileno())
            self._datagrams.close()
            self._datagrams = None

    async def _hear_out(self, within_s: float) -> None:
        """Wait until nobody is connected; whoever waits to be accepted gets a turn first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await asyncio.sleep(0.01)
                await self._streams.quiet.wait()

    def _hear_datagrams(self) -> None:
        """Take what waits; who has sent much waits where the lab does not keep up."""
        self._read_datagrams()
        if self._datagrams is not None and self._streams.holds(self._sent_bytes):
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._datagrams.fileno())
            loop.call_later(LOOK_S, self._listen_again)

    def _listen_again(self) -> None:
        if self._datagrams is None:
            return
        loop = asyncio.get_running_loop()
        if self._streams.holds(self._sent_bytes):
            loop.call_later(LOOK_S, self._listen_again)
        else:
            loop.add_reader(self._datagrams.fileno(), self._hear_datagrams)

    def _read_datagrams(self) -> bool:
        """Take what waits; return whether there may be more."""
        if self._datagrams is None:
            return False
        now = self._clock.now()
        for _ in range(_AT_ONCE):
            try:
                data, _, flags, _ = self._datagrams.recvmsg(DATAGRAM_BYTES)
            except BlockingIOError:
                return False
            except OSError as error:
                logger.warning("metrics socket not read", extra={"error": str(error)})
                return False
            self._sent_bytes += len(data)
            if flags & socket.MSG_TRUNC:
                self._gate.refuse("socket", f"metric_line: a datagram > {DATAGRAM_BYTES} bytes")
            else:
                self._reader.feed(data, now)
        return True

    def _accept(self) -> "_Stream":
        return _Stream(self._reader, self._gate, self._clock, self._streams)

    def _prepare(self) -> None:
        """Find a path that is short enough, and clear it."""
        if not is_short(self.path):
            self._made = Path(tempfile.mkdtemp(prefix="tshrag-m-"))
            if self._mode & 0o077:
                self._made.chmod(0o711)
            self.path = self._made / NAME
        self._unlink()

    def _open_to_load(self) -> None:
        for path in self._paths():
            path.chmod(self._mode)

    def _clear(self) -> None:
        self._unlink()
        if self._made is not None:
            self._made.rmdir()
            self._made = None

    def _unlink(self) -> None:
        for path in self._paths():
            path.unlink(missing_ok=True)
            link_of(path).unlink(missing_ok=True)

    def _paths(self) -> tuple[Path, Path]:
        return self.path, self.path.with_name(self.path.name + STREAM)


class _Streams(set["_Stream"]):
    """The open connections; `quiet` is set while there is none."""

    def __init__(self, pressure: Pressure) -> None:
        super().__init__()
        self.quiet = asyncio.Event()
        self.quiet.set()
        self._pressure = pressure
        self.at_end = False  # who wrote is gone: what it has sent is taken

    def holds(self, sent_bytes: int) -> bool:
        return not self.at_end and self._pressure.holds(sent_bytes)

    def hear_all(self) -> None:
        """Hold nobody any more."""
        self.at_end = True
        for stream in self:
            stream.listen()


class _Stream(asyncio.Protocol):
    """One connection; a line ends with a line feed, the last one with the connection."""

    def __init__(
        self, reader: MetricProtocols, gate: MetricGate, clock: Clock, streams: "_Streams"
    ) -> None:
        self._reader, self._gate, self._clock, self._streams = reader, gate, clock, streams
        self._transport: asyncio.Transport | None = None
        self._tail = b""
        self._in_long = False
        self._sent_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self._streams.add(self)
        self._streams.quiet.clear()
        if len(self._streams) > MAX_CONNECTIONS:
            self._gate.refuse("socket", f"metric_line: more than {MAX_CONNECTIONS} connections")
            self.cut()

    def data_received(self, data: bytes) -> None:
        *lines, self._tail = (self._tail + data).split(b"\n")
        now = self._clock.now()
        for line in lines:
            if self._in_long:
                self._in_long = False
            elif line.rstrip(b"\r"):
                self._reader.line(line, now)
        if len(self._tail) > LINE_CAP:
            if not self._in_long:
                self._reader.line(self._tail, now)  # counts it as too long
            self._in_long, self._tail = True, b""
        self._sent_bytes += len(data)
        if self._transport is not None and self._streams.holds(self._sent_bytes):
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(LOOK_S, self.listen)

    def listen(self) -> None:
        """Go on where nothing speaks against it; else look again."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._streams.holds(self._sent_bytes):
            asyncio.get_running_loop().call_later(LOOK_S, self.listen)
        else:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._tail and not self._in_long:
            self._reader.line(self._tail, self._clock.now())
        self._tail = b""
        self._streams.discard(self)
        if not self._streams:
            self._streams.quiet.set()

    def cut(self) -> None:
        """End the connection at once; what it has not said to the end of a line is lost."""
        if self._transport is not None:
            self._transport.abort()
