"""A DUT over SSH: one connection, many channels, every command under the wrapper.

A link that is silent for three keepalives is lost and made anew when it is needed; the DUT
notices by its own lease (``wrap.sh``), whatever its SSH server does with a lost connection.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path, PurePosixPath

import asyncssh

from tshrag_agent.transport import transfer, tree
from tshrag_agent.transport.base import (
    Completed,
    DutProbe,
    OutputSink,
    ProcReading,
    ShellCommand,
    TransportCode,
    TransportFailed,
)
from tshrag_agent.transport.board_time import ClockReading
from tshrag_agent.transport.session import LINGER_S, Channel
from tshrag_agent.transport.ssh_connect import connected, reason
from tshrag_agent.transport.streams import ByteReader, ByteWriter
from tshrag_agent.transport.ways import SshWay
from tshrag_agent.transport.wrapper import GuardedShell
from tshrag_common.ids import DutId, Fence

_PASSING: tuple[TransportCode, ...] = ("dut_unreachable", "ssh_refused")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 15.0
_START_S = 15.0
_SETTLE_S = 0.05  # a lost connection refuses channels a moment before it says that it is closed
_CHUNK_BYTES = 1 << 20


class SshTransport:
    """Programs and files of a DUT that answers SSH."""

    def __init__(self, dut: DutId, way: SshWay) -> None:
        self._link = _SshLink(dut, way)
        self._shell = GuardedShell(dut, self._link, way.guard)

    @property
    def is_exclusive(self) -> bool:
        return False

    async def execute(
        self,
        command: Sequence[str] | ShellCommand,
        *,
        env: Mapping[str, str],
        cwd: str,
        timeout_s: float,
        fence: Fence,
        on_output: OutputSink,
    ) -> Completed:
        return await self._shell.execute(
            command, env=env, cwd=cwd, timeout_s=timeout_s, fence=fence, on_output=on_output
        )

    async def upload(self, source: Path, target: str, *, timeout_s: float) -> None:
        """Copy by SFTP, or as a tar stream where the DUT has no SFTP server; see the sums."""
        async with self._shell.within(timeout_s):
            await self._link.connect()
            if not await self._link.put(source, target):
                await transfer.upload_packed(self._shell, source, target, timeout_s)
            await transfer.verify(self._shell, source, target, timeout_s)

    async def download(
        self, source: str, target: Path, *, most_bytes: int, timeout_s: float
    ) -> int:
        return await transfer.download_packed(self._shell, source, target, most_bytes, timeout_s)

    async def probe(self, *, timeout_s: float) -> DutProbe:
        return await self._shell.probe(timeout_s=timeout_s)

    async def read_proc(self, *, timeout_s: float) -> ProcReading:
        return await self._shell.read_proc(timeout_s=timeout_s)

    async def read_clock(self, *, timeout_s: float) -> ClockReading | None:
        return await self._shell.read_clock(timeout_s=timeout_s)

    def dial(self, port: int) -> AbstractAsyncContextManager[tuple[ByteReader, ByteWriter]]:
        """Connect to a port of 127.0.0.1 on the DUT, over the link that there is."""
        return self._link.dial(port)

    def converse(
        self, command: str, on_output: OutputSink, timeout_s: float
    ) -> AbstractAsyncContextManager[Channel]:
        """Start `command` beside what executes, to be spoken to; it is let go of at the end."""
        return self._shell.channel(command, on_output, timeout_s)

    async def end(self, fence: Fence) -> None:
        await self._shell.end(fence)

    async def close(self) -> None:
        await self._shell.close()
        await self._link.close()


class _SshLink:
    """The one connection to a DUT, made when it is needed, and again when it was lost."""

    def __init__(self, dut: DutId, way: SshWay) -> None:
        self.where = way.where
        self._dut, self._way = dut, way
        self._made: list[asyncssh.SSHClientConnection] = []  # through jump hosts: the last counts
        self._number = 0
        self._opening = asyncio.Lock()
        self._pause_s, self._retry_at = _FIRST_PAUSE_S, 0.0
        self._has_sftp = True

    async def connect(self) -> int:
        async with self._opening:
            if not self._made or self._made[-1].is_closed():
                self._drop()
                self._made = await self._patiently()
                self._number += 1
            return self._number

    async def start(self, command: str, on_output: OutputSink) -> "_SshChannel":
        try:
            return await self._start(command, on_output)
        except (asyncssh.Error, OSError) as error:  # OSError: also TimeoutError
            await asyncio.sleep(_SETTLE_S)
            if not self._made or not self._made[-1].is_closed():
                what = f"no session can be started: {reason(error)}"
                fix = "see its power and network, and MaxSessions of its sshd"
                raise TransportFailed("dut_unreachable", self._place, what, fix) from error
        await self.connect()  # the link was dead already, and only now we know: nothing was started
        try:
            return await self._start(command, on_output)
        except (asyncssh.Error, OSError) as error:
            what = f"the link was lost at once: {reason(error)}"
            raise TransportFailed("dut_unreachable", self._place, what, "see its sshd") from error

    async def _start(self, command: str, on_output: OutputSink) -> "_SshChannel":
        channel = _SshChannel(on_output)
        async with asyncio.timeout(_START_S):
            await self._made[-1].create_session(lambda: channel, command, encoding=None)
        return channel

    @asynccontextmanager
    async def dial(self, port: int) -> AsyncIterator[tuple[ByteReader, ByteWriter]]:
        await self.connect()
        try:
            link = self._made[-1]
            reader, writer = await link.open_connection("127.0.0.1", port, encoding=None)
        except (asyncssh.Error, OSError) as error:
            fix = "see that something listens there, and that its sshd forwards"
            where = f"{self._place} port {port}"
            raise TransportFailed("port_closed", where, reason(error), fix) from error
        try:
            yield reader, writer
        finally:
            writer.channel.abort()

    async def put(self, source: Path, target: str) -> bool:
        """Copy by SFTP; False where the DUT has none."""
        if not self._has_sftp:
            return False
        try:
            sftp = await self._made[-1].start_sftp_client()
        except asyncssh.Error:
            self._has_sftp = False
            return False
        try:
            entries = await asyncio.to_thread(lambda: list(tree.walk(source)))
            async with sftp:
                await _put_all(sftp, entries, target)
        except (asyncssh.Error, OSError, ValueError) as error:
            what = f"{source.name!a} did not arrive at {target!a}: {reason(error)}"
            fix = "see space and rights on the DUT"
            raise TransportFailed("transfer_failed", self._place, what, fix) from error
        return True

    async def close(self) -> None:
        made, self._made = self._made, []
        for connection in reversed(made):
            connection.close()
        try:
            async with asyncio.timeout(2.0):
                for connection in reversed(made):
                    await connection.wait_closed()
        except TimeoutError:
            for connection in made:
                connection.abort()

    @property
    def _place(self) -> str:
        return f"{self._dut} ({self.where})"

    def _drop(self) -> None:
        made, self._made = self._made, []
        for connection in reversed(made):
            connection.abort()

    async def _patiently(self) -> list[asyncssh.SSHClientConnection]:
        """Connect; a DUT that answered before may be rebooting, so it gets some patience."""
        ends = time.monotonic() + (self._way.patience_s if self._number else 0.0)
        while True:
            await asyncio.sleep(max(0.0, self._retry_at - time.monotonic()))
            try:
                made = await connected(self._dut, self._way)
            except TransportFailed as error:
                self._retry_at = time.monotonic() + self._pause_s
                self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
                if error.code not in _PASSING or self._retry_at > ends:
                    raise
            else:
                self._pause_s, self._retry_at, self._has_sftp = _FIRST_PAUSE_S, 0.0, True
                return made


class _SshChannel(asyncssh.SSHClientSession[bytes]):
    """One program on the DUT."""

    def __init__(self, on_output: OutputSink) -> None:
        self.status: int | None = None
        self._on_output = on_output
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._over = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if not self._over.is_set():
            is_error = datatype == asyncssh.EXTENDED_DATA_STDERR
            self._on_output("stderr" if is_error else "stdout", data)

    def exit_status_received(self, status: int) -> None:
        self.status = status
        # what got away may hold its streams open for ever
        asyncio.get_running_loop().call_later(LINGER_S, self.abort)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        self._over.set()

    async def write(self, data: bytes) -> None:
        if self._channel is None or self._channel.is_closing() or self._over.is_set():
            return
        try:
            self._channel.write(data)
        except (OSError, asyncssh.Error):  # it went away just now; `closed` tells
            return
        await self._writable.wait()

    def finish(self) -> None:
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write_eof()

    async def closed(self) -> None:
        await self._over.wait()

    def abort(self) -> None:
        if self._channel is not None:
            self._channel.abort()
        self._writable.set()
        self._over.set()


async def _put_all(
    sftp: asyncssh.SFTPClient, entries: list[tuple[str, Path, os.stat_result]], target: str
) -> None:
    folders: list[tuple[str, int]] = []
    for name, path, found in entries:
        place = f"{target}/{name}" if name else target
        mode = found.st_mode & 0o777
        if tree.is_folder(found):
            await sftp.makedirs(place, exist_ok=True)
            folders.append((place, mode))
            continue
        if not name:
            await sftp.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
        await _put_file(sftp, path, place)
        await sftp.chmod(place, mode)
    for place, mode in reversed(folders):
        await sftp.chmod(place, mode)


async def _put_file(sftp: asyncssh.SFTPClient, path: Path, place: str) -> None:
    with await asyncio.to_thread(path.open, "rb") as file:
        async with sftp.open(place, "wb") as out:
            offset = 0
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                await out.write(chunk, offset)
                offset += len(chunk)
