"""Processes on a lab host from afar: start, list, output, stdin, signal, wait, remove.

async with processes_of(lab, "rack") as host:
    view = await host.start(("uname", "-a"))
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal

import msgspec

from tshrag_common.asking import Asking
from tshrag_common.channel.channel import Channel
from tshrag_common.channel.opening import Channels, channels_of
from tshrag_common.channel.wants import (
    AnyWant,
    ExecActWant,
    ExecInputWant,
    ExecOutputWant,
    ExecView,
    ExecWant,
)
from tshrag_common.errors import Unavailable

_VIEW = msgspec.json.Decoder(ExecView)
_NO_ENV: Mapping[str, str] = {}


class HostProcesses:
    """The processes of one host; only operators reach them."""

    def __init__(self, channels: Channels, host: str) -> None:
        self._channels, self._host = channels, host

    async def start(
        self,
        argv: Sequence[str],
        *,
        cwd: str = "",
        env: Mapping[str, str] = _NO_ENV,
        stdin: bool = False,
        secret_args: bool = False,
    ) -> ExecView:
        """Start a process; it goes on without us."""
        return await self._one(
            ExecWant(argv=tuple(argv), cwd=cwd, env=dict(env), stdin=stdin, secret_args=secret_args)
        )

    async def list(self) -> tuple[ExecView, ...]:
        return await self._views(ExecActWant(what="list"))

    async def status(self, name: str) -> ExecView:
        return await self._one(ExecActWant(what="status", id=name))

    async def wait(self, name: str) -> ExecView:
        return await self._one(ExecActWant(what="wait", id=name))

    async def signal(self, name: str, number: int) -> ExecView:
        return await self._one(ExecActWant(what="signal", id=name, signal=number))

    async def remove(self, name: str) -> ExecView:
        return await self._one(ExecActWant(what="remove", id=name))

    def output(
        self,
        name: str,
        stream: Literal["stdout", "stderr"] = "stdout",
        *,
        offset: int = 0,
        follow: bool = False,
    ) -> AbstractAsyncContextManager[Channel]:
        """Open what it said, from an offset; with `follow` up to its end."""
        want = ExecOutputWant(id=name, stream=stream, offset=offset, follow=follow)
        return self._channels.open(want, agent=self._host)

    def input(self, name: str) -> AbstractAsyncContextManager[Channel]:
        """Open its stdin; `finish` is the end of it."""
        return self._channels.open(ExecInputWant(id=name), agent=self._host)

    async def _one(self, want: AnyWant) -> ExecView:
        views = await self._views(want)
        if not views:
            what = "the agent has not said what came of it"
            raise Unavailable(self._host, what, code="channel_lost")
        return views[0]

    async def _views(self, want: AnyWant) -> tuple[ExecView, ...]:
        found: list[ExecView] = []
        async with self._channels.open(want, agent=self._host) as channel:
            while (piece := await channel.read()) is not None:
                found.append(_VIEW.decode(piece.data))
        return tuple(found)


@asynccontextmanager
async def processes_of(lab: Asking, host: str) -> AsyncIterator[HostProcesses]:
    async with channels_of(lab) as channels:
        yield HostProcesses(channels, host)
