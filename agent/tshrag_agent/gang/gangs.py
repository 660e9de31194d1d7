"""The jobs of gangs on this host: each with its mailbox, and a socket where it runs here,
or a wire where it runs on a DUT.

A mailbox is opened before the work of an attempt begins and closed when nothing of it is alive.
The next agent finds those of the attempts that it adopts, and those whose mates have not heard of
their end.
"""

import asyncio
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tshrag_agent.attempts.attempt import Attempt, Steps
from tshrag_agent.gang import book, sync_tool
from tshrag_agent.gang.book import Book
from tshrag_agent.gang.box import Box
from tshrag_agent.gang.desk import Desk
from tshrag_agent.gang.mailbox import Mailbox
from tshrag_agent.gang.post import Post, close
from tshrag_agent.gang.records import Opened
from tshrag_agent.gang.wire import Converses, Wire
from tshrag_agent.reports.metric_socket import is_short
from tshrag_agent.settings import AgentSettings
from tshrag_agent.transport.base import DutTransport
from tshrag_common.bus.connection import Bus
from tshrag_common.clock import Clock
from tshrag_common.errors import Refused
from tshrag_common.gang_messages import Here
from tshrag_common.ids import AgentId, DutId, Fence

logger = logging.getLogger(__name__)

SYNC = "TSHRAG_SYNC"
TOOL = "tshrag-sync"
SUFFIX = ".jsonl"
CLEAR_S = 600.0
"""A step of a job may take its time limit; what serves it outlives it."""

Voice = Literal["none", "socket", "wire"]
"""How a job speaks: not at all, over a socket of its host, over the link to its DUT."""


class Gangs:
    """What attempts of gangs share: mailboxes in the agent's state, what jobs see in its store."""

    def __init__(
        self,
        agent: AgentId,
        settings: AgentSettings,
        clock: Clock,
        bus: Callable[[], Bus | None],
        address: Callable[[DutId | None], str],
    ) -> None:
        self._folder = settings.state / "gangs"
        self._sockets, self._tools = settings.store / "sockets", settings.store / "bin"
        self._post, self._clock, self._address = Post(agent, bus, clock), clock, address
        self._desks: dict[Fence, Desk] = {}
        self.run, self.attend = self._post.run, self._post.attend

    async def load(self, live: set[Fence]) -> None:
        """Take up the mailboxes that an earlier agent has left; `live` are attempts to adopt."""
        await asyncio.to_thread(self._write_tool)
        for path in await asyncio.to_thread(lambda: sorted(self._folder.glob(f"*{SUFFIX}"))):
            mailbox = await asyncio.to_thread(book.read, path)
            if mailbox is None:
                logger.warning("a mailbox cannot be read", extra={"path": os.fspath(path)})
                await asyncio.to_thread(path.unlink)
                continue
            box = Box(mailbox, Book(path), self._clock)
            self._post.add(box)
            if mailbox.own not in live:
                await close(box, "lost")

    async def enter(self, attempt: Attempt, voice: Voice) -> None:
        """Open the mailbox of an attempt; the one of an adopted attempt is there already.

        Raises:
            Refused: its socket cannot be made.
            StorageFull: its file cannot be written.

        """
        start = attempt.start
        box = self._post.boxes.get(start.fence) or await self._opened(attempt, voice)
        path = box.mailbox.opened.socket
        if path:
            desk = Desk(box, attempt.spec.timeout_s, self._post.soon)
            try:
                await asyncio.to_thread(Path(path).unlink, True)
                await desk.open(path)
                await asyncio.to_thread(Path(path).chmod, 0o600)
            except OSError as error:
                raise Refused(path, f"no socket: {error}", code="sync_socket") from error
            self._desks[start.fence] = desk

    async def leave(self, attempt: Attempt) -> None:
        """Close a mailbox: the mates are told how the attempt has ended."""
        desk = self._desks.pop(attempt.start.fence, None)
        if desk is not None:
            await desk.close()
        box = self._post.boxes.get(attempt.start.fence)
        if box is not None:
            await close(box, attempt.record.outcome)
            if box.mailbox.opened.socket:
                await asyncio.to_thread(Path(box.mailbox.opened.socket).unlink, True)
        self._post.soon()

    def joined(self, fence: Fence, env: dict[str, str]) -> dict[str, str]:
        """Return an environment with what a job of a gang finds in it beside."""
        box = self._post.boxes.get(fence)
        if box is None or not box.mailbox.opened.socket:
            return env
        path = f"{self._tools}:{env.get('PATH', '')}"
        return {**env, "PATH": path, SYNC: box.mailbox.opened.socket}

    def wire(self, attempt: Attempt, transport: DutTransport, folder: str) -> Wire | None:
        """Return what serves a job on its DUT, in a folder there; None: it cannot speak."""
        box = self._post.boxes.get(attempt.start.fence)
        if box is None or not isinstance(transport, Converses):
            return None
        limit_s = attempt.spec.timeout_s
        desk = Desk(box, limit_s, self._post.soon)
        return Wire(desk.answered, transport, folder, limit_s + CLEAR_S)

    async def is_deaf(self, attempt: Attempt) -> None:
        """Tell the mates that a job has no ``tshrag-sync`` after all."""
        box = self._post.boxes.get(attempt.start.fence)
        if box is not None:
            address = await asyncio.to_thread(self._address, attempt.start.dut)
            await box.do(lambda mailbox: mailbox.tell(Here(address=address, can_speak=False)))
            self._post.soon()

    async def _opened(self, attempt: Attempt, voice: Voice) -> Box:
        start, can_speak = attempt.start, voice != "none"
        socket = await asyncio.to_thread(self._socket, start.fence) if voice == "socket" else ""
        opened = Opened(own=start.fence, mates=start.mates, can_speak=can_speak, socket=socket)
        path = self._folder / f"{start.fence}{SUFFIX}"
        await asyncio.to_thread(self._folder.mkdir, 0o700, True, True)
        box = Box(Mailbox(opened), Book(path), self._clock)
        await box.book.write([opened])
        address = await asyncio.to_thread(self._address, start.dut)
        await box.do(lambda mailbox: mailbox.tell(Here(address=address, can_speak=can_speak)))
        self._post.add(box)
        return box

    def _socket(self, fence: Fence) -> str:
        """Return a path that is short enough for a UNIX socket."""
        self._sockets.mkdir(parents=True, exist_ok=True)
        path = self._sockets / f"{fence}.sync"
        if not is_short(path):
            path = Path(tempfile.mkdtemp(prefix="tshrag-s-")) / "sync"
        return os.fspath(path)

    def _write_tool(self) -> None:
        """Put ``tshrag-sync`` where jobs find it: this Python without its site starts fast."""
        self._tools.mkdir(parents=True, exist_ok=True)
        tool, fresh = self._tools / TOOL, self._tools / f".{TOOL}"
        python, script = shlex.quote(sys.executable), shlex.quote(sync_tool.__file__)
        fresh.write_text(f'#!/bin/sh\nexec {python} -I -S {script} "$@"\n')
        fresh.chmod(0o755)
        fresh.replace(tool)


class Joining:
    """The steps of an attempt of a gang, between the opening and the closing of its mailbox."""

    def __init__(self, attempt: Attempt, steps: Steps, gangs: Gangs, voice: Voice) -> None:
        self._attempt, self._steps, self._gangs, self._voice = attempt, steps, gangs, voice

    async def work(self) -> None:
        await self._gangs.enter(self._attempt, self._voice)
        await self._steps.work()

    async def clean_up(self) -> None:
        try:
            await self._steps.clean_up()
        finally:
            await self._gangs.leave(self._attempt)
