"""A DUT that is this host: the same wrapper, the same fence, the same lease, over pipes.

An agent that is killed leaves nothing: its end of the pipe goes with it.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import cast

from tshrag_agent.transport.base import (
    Completed,
    DutProbe,
    OutputSink,
    ProcReading,
    ShellCommand,
    TransportFailed,
)
from tshrag_agent.transport.board_time import ClockReading
from tshrag_agent.transport.session import LINGER_S
from tshrag_agent.transport.streams import LISTENS_HERE, ByteReader, ByteWriter, tcp
from tshrag_agent.transport.tree import copy_tree, size_of
from tshrag_agent.transport.ways import LocalWay
from tshrag_agent.transport.wrapper import GuardedShell
from tshrag_common.ids import DutId, Fence

_KEPT_ENV = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "TZ")


class LocalTransport:
    """Programs and files of this host, as those of a DUT."""

    def __init__(self, dut: DutId, way: LocalWay) -> None:
        self._dut = dut
        self._shell = GuardedShell(dut, _LocalLink(), way.guard)

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
        await self._copy(source, Path(target), None, timeout_s)

    async def download(
        self, source: str, target: Path, *, most_bytes: int, timeout_s: float
    ) -> int:
        await self._copy(Path(source), target, most_bytes, timeout_s)
        return await asyncio.to_thread(size_of, target)

    async def probe(self, *, timeout_s: float) -> DutProbe:
        return await self._shell.probe(timeout_s=timeout_s)

    async def read_proc(self, *, timeout_s: float) -> ProcReading:
        return await self._shell.read_proc(timeout_s=timeout_s)

    async def read_clock(self, *, timeout_s: float) -> ClockReading | None:
        return await self._shell.read_clock(timeout_s=timeout_s)

    def dial(self, port: int) -> AbstractAsyncContextManager[tuple[ByteReader, ByteWriter]]:
        return tcp(self._dut, "127.0.0.1", port, LISTENS_HERE)

    async def end(self, fence: Fence) -> None:
        await self._shell.end(fence)

    async def close(self) -> None:
        await self._shell.close()

    async def _copy(
        self, source: Path, target: Path, most_bytes: int | None, timeout_s: float
    ) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.to_thread(copy_tree, source, target, most_bytes)
        except (OSError, ValueError, TimeoutError) as error:
            what = f"{source} was not copied: {error or 'too slow'}"
            raise TransportFailed("transfer_failed", str(self._dut), what) from error


class _LocalLink:
    """Starts shells on this host, in their own session, without the agent's environment."""

    where = "this host"

    async def connect(self) -> int:
        return 0

    async def start(self, command: str, on_output: OutputSink) -> "_LocalChannel":
        loop = asyncio.get_running_loop()
        _, channel = await loop.subprocess_exec(
            lambda: _LocalChannel(on_output),
            *("/bin/sh", "-c", command),
            start_new_session=True,
            cwd=Path.home(),
            env={name: os.environ[name] for name in _KEPT_ENV if name in os.environ},
        )
        return channel


class _LocalChannel(asyncio.SubprocessProtocol):
    """A shell of this host behind three pipes."""

    def __init__(self, on_output: OutputSink) -> None:
        self.status: int | None = None
        self._on_output = on_output
        self._over = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._stdin: asyncio.WriteTransport | None = None
        self._process: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # by their protocol: those of uvloop are no subclasses
        self._process = cast(asyncio.SubprocessTransport, transport)
        self._stdin = cast(asyncio.WriteTransport, self._process.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if not self._over.is_set():
            self._on_output("stdout" if fd == 1 else "stderr", data)

    def process_exited(self) -> None:
        # what got away may hold its streams open for ever
        asyncio.get_running_loop().call_later(LINGER_S, self.abort)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        code = self._process.get_returncode() if self._process else None
        if self._process is not None:
            self._process.close()
        self.status = code if code is not None and code >= 0 else None
        self._writable.set()
        self._over.set()

    async def write(self, data: bytes) -> None:
        if self._stdin is None or self._stdin.is_closing():
            return
        self._stdin.write(data)
        await self._writable.wait()

    def finish(self) -> None:
        if self._stdin is not None:
            self._stdin.close()

    async def closed(self) -> None:
        await self._over.wait()

    def abort(self) -> None:
        self.finish()
        self._writable.set()
        self._over.set()
