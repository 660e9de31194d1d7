"""What people do with processes on this host, over channels.

Who may is decided by the controller (operators), and by the settings of this host.
"""

import asyncio
import os
from pathlib import Path

import msgspec

from tshrag_agent.channels import Channels
from tshrag_agent.remote.follow import woken
from tshrag_agent.remote.processes import Processes
from tshrag_common.channel.channel import Channel
from tshrag_common.channel.wants import (
    ExecActWant,
    ExecInputWant,
    ExecOutputWant,
    ExecView,
    ExecWant,
)
from tshrag_common.commands import ServeChannel
from tshrag_common.errors import PolicyDenied, Refused

_READ_BYTES = 1 << 18


def remote_of(folder: Path, allowed: bool) -> "RemoteServer":
    return RemoteServer(Processes(folder), allowed)


class RemoteServer:
    """Serves the processes of one host."""

    def __init__(self, processes: Processes, allowed: bool) -> None:
        self._processes, self._allowed = processes, allowed

    def open_to(self, channels: Channels) -> None:
        channels.serve(ExecWant, self._start)
        channels.serve(ExecActWant, self._act)
        channels.serve(ExecOutputWant, self._output)
        channels.serve(ExecInputWant, self._input)

    async def _start(self, channel: Channel, command: ServeChannel, want: ExecWant) -> None:
        self._must_be_allowed()
        by = f"{command.org}/{command.person}"
        await _tell(channel, await asyncio.to_thread(self._processes.start, want, by))

    async def _act(self, channel: Channel, command: ServeChannel, want: ExecActWant) -> None:
        self._must_be_allowed()
        if want.what == "list":
            await _tell(channel, *await asyncio.to_thread(self._processes.views))
        elif want.what == "wait":
            await _tell(channel, await self._ended(channel, want.id))
        else:
            await _tell(channel, await asyncio.to_thread(self._done, want))

    def _done(self, want: ExecActWant) -> ExecView:
        if want.what == "signal":
            return self._processes.signal(want.id, want.signal)
        if want.what == "remove":
            return self._processes.remove(want.id)
        return self._processes.view(want.id)

    async def _ended(self, channel: Channel, name: str) -> ExecView:
        async with woken(await asyncio.to_thread(self._processes.room, name)) as wake:
            while True:
                wake.clear()
                view = await asyncio.to_thread(self._processes.view, name)
                if view.state != "running" or channel.is_over:
                    return view
                await wake.wait()

    async def _output(self, channel: Channel, command: ServeChannel, want: ExecOutputWant) -> None:
        """Send a stream from an offset; up to the end of the process where it is followed."""
        self._must_be_allowed()
        offset, is_last = want.offset, not want.follow
        async with woken(await asyncio.to_thread(self._processes.room, want.id)) as wake:
            while not channel.is_over:
                wake.clear()
                read = self._processes.read
                data = await asyncio.to_thread(read, want.id, want.stream, offset, _READ_BYTES)
                offset += len(data)
                if data:
                    await channel.write(data)
                elif is_last:
                    return
                else:  # what it said last is read once more behind its end
                    view = await asyncio.to_thread(self._processes.view, want.id)
                    is_last = view.state != "running"
                    if not is_last:
                        await wake.wait()

    async def _input(self, channel: Channel, command: ServeChannel, want: ExecInputWant) -> None:
        """Hand on what comes; its end is the end of stdin, a connection that breaks is not."""
        self._must_be_allowed()
        view = await asyncio.to_thread(self._processes.view, want.id)
        if view.state != "running":
            raise Refused("exec", f"{want.id} has ended", code="exec_over")
        path = self._processes.room(want.id) / "stdin"
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            while (piece := await channel.read()) is not None:
                await _written(fd, piece.data, want.id)
        finally:
            os.close(fd)
        await asyncio.to_thread(self._processes.close_stdin, want.id)

    def _must_be_allowed(self) -> None:
        if not self._allowed:
            fix = "set exec = true in [agent] of its agent.toml"
            raise PolicyDenied("exec", "this host does not allow it", fix, code="exec_off")


async def _written(fd: int, data: bytes, name: str) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            await _writable(fd)
        except BrokenPipeError:
            raise Refused("exec", f"{name} reads no more", code="exec_over") from None


async def _writable(fd: int) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_writer(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(fd)


async def _tell(channel: Channel, *views: ExecView) -> None:
    """Say each as a word of its own; none is longer than a piece."""
    for view in views:
        await channel.say(msgspec.json.encode(view))
