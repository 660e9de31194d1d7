"""``tshrag-sync`` on a DUT: its calls come over the link of the attempt, and go back over it.

A small post on the DUT (`dut_post.sh`) carries them between pipes there and a session of the SSH
link that is there already: nothing is opened to anybody, and a board with nothing but busybox has
what it needs. A link that breaks ends the attempt anyway, so nothing has to be taken up again.
"""

import asyncio
import contextlib
import io
import json
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from tshrag_agent.gang import sync_tool
from tshrag_agent.gang.desk import MAX_CONNECTIONS
from tshrag_agent.transport.base import OutputSink, Stream
from tshrag_agent.transport.session import Channel
from tshrag_common.errors import LabError

logger = logging.getLogger(__name__)

READY_S = 20.0
"""Without its post for so long, a job has no ``tshrag-sync``."""
MAX_ASK_BYTES = 300 << 10  # a message of 64 KiB in hex, and the words of the call
_POST = Path(__file__).with_name("dut_post.sh")
_TOOL = Path(__file__).with_name("dut_tool.sh")
_BEGIN = 'exec /bin/sh -c \'IFS= read -r s; eval "$(printf %b "$s")"\''
_WITH_PATH = 'PATH=$0:$PATH; export PATH; exec "$@"'
_ASK = re.compile(rb"([0-9]{1,10}) ([0-9a-f]+) ([0-9a-f]*|-)")


Answered = Callable[[bytes], Awaitable[bytes]]
"""Answers a call, as `Desk` does."""


@runtime_checkable
class Converses(Protocol):
    """A transport over which a program can be spoken to while another one executes."""

    def converse(
        self, command: str, on_output: OutputSink, timeout_s: float
    ) -> AbstractAsyncContextManager[Channel]: ...


class Reply(NamedTuple):
    """What the program on the DUT prints and returns."""

    code: int
    out: bytes = b""
    err: str = ""


class Wire:
    """Serves the calls of one job on its DUT, for as long as a step of it executes."""

    def __init__(
        self, answered: Answered, transport: Converses, folder: str, limit_s: float
    ) -> None:
        self._answered, self._transport = answered, transport
        self._base, self._limit_s = folder, limit_s
        self._number = 0
        self._ready = asyncio.Event()
        self._rest = bytearray()
        self._lines = asyncio.Queue[bytes | None](MAX_CONNECTIONS)
        self.fault = ""

    @property
    def folder(self) -> str:
        return f"{self._base}.{self._number}"

    async def ready(self) -> bool:
        """Wait for the post; false: the DUT cannot have one, and `fault` says why."""
        try:
            async with asyncio.timeout(READY_S):
                await self._ready.wait()
        except TimeoutError:
            self.fault = f"no answer within {READY_S:g} s"
        return not self.fault

    def dressed(self, argv: Sequence[str]) -> tuple[str, ...]:
        """Return a command line that finds ``tshrag-sync`` on the DUT."""
        return ("/bin/sh", "-c", _WITH_PATH, f"{self.folder}/bin", *argv)

    def begin(self) -> None:
        """Forget the step before; what `serve` does from now on is for the next one."""
        self._number += 1
        self._ready, self._lines = asyncio.Event(), asyncio.Queue(MAX_CONNECTIONS)
        self.fault, self._rest = "", bytearray()

    async def serve(self) -> None:
        """Answer what is asked there, until cancelled; what fails is a `fault`, not an error."""
        post, tool = await asyncio.to_thread(lambda: (_POST.read_bytes(), _TOOL.read_bytes()))
        head = b"\n".join((escaped(post), self.folder.encode(), escaped(tool), b""))
        room = asyncio.Semaphore(MAX_CONNECTIONS)
        try:
            async with (
                self._transport.converse(_BEGIN, self._hear, self._limit_s) as far,
                asyncio.TaskGroup() as group,
            ):
                await far.write(head)
                group.create_task(self._watch(far), name="sync link")
                while (line := await self._lines.get()) is not None:
                    await room.acquire()  # calls may wait for long, and a board may flood us
                    call = group.create_task(self._serve(far, line), name="sync call")
                    call.add_done_callback(lambda _: room.release())
        except LabError as error:
            self._fail(error.line)

    def _fail(self, what: str) -> None:
        if not self._ready.is_set():
            self.fault = what
            self._ready.set()

    async def _watch(self, far: Channel) -> None:
        await far.closed()
        self._fail("its shell ended at once")
        await self._lines.put(None)

    def _hear(self, stream: Stream, data: bytes) -> None:
        if stream == "stderr":
            logger.debug(
                "the post of a gang says", extra={"text": data[:200].decode("utf-8", "replace")}
            )
            return
        self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            self._take(bytes(line))
        if len(self._rest) > MAX_ASK_BYTES:
            self._rest.clear()  # it is no call of ours

    def _take(self, line: bytes) -> None:
        if line == b"ready":
            self._ready.set()
        elif line.startswith(b"lacks "):
            self._fail(f"the DUT {line.decode('utf-8', 'replace')}")
        else:
            with contextlib.suppress(asyncio.QueueFull):  # who asks so much waits for ever
                self._lines.put_nowait(line)

    async def _serve(self, far: Channel, line: bytes) -> None:
        found = _ASK.fullmatch(line)
        if found is None:
            return
        call, words, body = found.groups()
        try:
            argv = bytes.fromhex(words.decode()).decode("utf-8", "surrogateescape")
            value = None if body == b"-" else bytes.fromhex(body.decode())
            reply = await self._reply(argv.split("\0")[:-1], value)
        except ValueError as error:
            reply = Reply(sync_tool.USAGE, err=sync_tool.line_of("usage", error))
        err = reply.err.encode("utf-8", "replace")
        told = b" ".join((call, b"%d" % reply.code, b"=" + escaped(reply.out), b"=" + escaped(err)))
        await far.write(told + b"\n")

    async def _reply(self, argv: Sequence[str], value: bytes | None) -> Reply:
        """Do what a command line says; files of the DUT come as `value`, none of ours is read."""
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                args = sync_tool.parser().parse_args(argv)
        except SystemExit as end:
            code = int(end.code or 0)
            return Reply(code, err=said.getvalue()) if code else Reply(0, said.getvalue().encode())
        if args.do == "send" and value is None:
            value = args.value.encode("utf-8", "surrogateescape")
        if value is not None and len(value) > sync_tool.VALUE_BYTES:
            raise ValueError(f"a message holds at most {sync_tool.VALUE_BYTES} bytes; send less")
        ask = sync_tool.ask_of(args, value or b"")
        if args.timeout is not None:
            ask["timeout_s"] = args.timeout
        answer = json.loads(await self._answered(json.dumps(ask).encode()))
        code = sync_tool.code_of(answer)
        if code:
            return Reply(code, err=sync_tool.line_of(answer["code"], answer["message"]))
        return Reply(code, sync_tool.shown(args, answer))


def escaped(data: bytes) -> bytes:
    """Return bytes as one word that ``printf %b`` of any shell turns into them again."""
    plain = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_./:")
    return b"".join(bytes((each,)) if each in plain else b"\\0%03o" % each for each in data)
