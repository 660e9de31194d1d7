"""One connection to the shepherd, and how a shepherd is started.

What is asked in one turn of the event loop travels in one message; while answers are awaited,
what comes next gathers for a moment.
"""

import asyncio
import itertools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from tshrag_agent.shepherd import protocol
from tshrag_common.errors import DeadlineExceeded, Unavailable

logger = logging.getLogger(__name__)

_LINGER_S = 0.001
_FORK_S = 15.0
_PACKAGES = str(Path(__file__).resolve().parents[2])
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from tshrag_agent.shepherd.main import main; "
_BOOT += "main(*sys.argv[2:])"


class ShepherdLost(Unavailable):
    """The connection to the shepherd broke; what became of the question is not known."""

    code = "shepherd_lost"


class Link(asyncio.Protocol):
    """One connection: batches questions, hands out answers and exits."""

    def __init__(self, note_exit: Callable[[dict[str, Any]], None]) -> None:
        self._note_exit = note_exit
        self._loop = asyncio.get_running_loop()
        self._frames = protocol.Frames()
        self._numbers = itertools.count(1)
        self._asked: list[tuple[int, str, dict[str, Any]]] = []
        self._timer: asyncio.Handle | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._transport: asyncio.Transport | None = None
        self.hello: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data):
                self._take(message)
        except (protocol.BadFrame, KeyError, TypeError, ValueError) as error:
            logger.error("the shepherd speaks another language", extra={"error": str(error)})
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(lost())
        self._waiting.clear()
        if not self.hello.done():
            self.hello.set_exception(lost())
            self.hello.exception()  # seen: nobody may wait for it any more
        self.closed.set()

    async def ask(self, verb: str, asked: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Ask one thing; return its answer, which may be an ``error``."""
        if self._transport is None:
            raise lost()
        number = next(self._numbers)
        future = self._waiting[number] = self._loop.create_future()
        self._asked.append((number, verb, asked))
        self._soon()
        try:
            async with asyncio.timeout(timeout_s):
                answer: dict[str, Any] = await future
        except TimeoutError:
            what = f"no answer to {verb} within {timeout_s:g} s"
            raise DeadlineExceeded("shepherd", what) from None
        finally:
            self._waiting.pop(number, None)
        return answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _soon(self) -> None:
        if self._timer is None:
            busy = len(self._waiting) > len(self._asked)
            later = self._loop.call_later
            self._timer = later(_LINGER_S, self._send) if busy else self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._timer = None
        if self._transport is not None and self._asked:
            asked, self._asked = self._asked, []
            self._transport.write(protocol.frame({"ops": asked}))

    def _take(self, message: dict[str, Any]) -> None:
        if "hello" in message and not self.hello.done():
            self.hello.set_result(message["hello"])
        for number, answer in message.get("answers", ()):
            future = self._waiting.get(number)
            if future and not future.done():
                future.set_result(answer)
        for said in message.get("exits", ()):
            self._note_exit(said)


async def dial(folder: Path, note_exit: Callable[[dict[str, Any]], None]) -> Link:
    """Connect to the shepherd of `folder`; an OSError where nobody listens."""
    loop = asyncio.get_running_loop()
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        address = protocol.socket_address(str(folder), folder_fd)
        _, link = await loop.create_unix_connection(lambda: Link(note_exit), address)
    finally:
        os.close(folder_fd)
    return link


def lost() -> ShepherdLost:
    return ShepherdLost("shepherd", "the connection broke", "ask again: it is being restored")


def start_shepherd(folder: Path, options: dict[str, Any]) -> None:
    """Start a shepherd for the state folder; it leaves by itself where one serves already."""
    records = folder / "shepherd"
    records.mkdir(mode=0o700, exist_ok=True)
    python = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, _PACKAGES]
    with (records / "shepherd.log").open("ab") as log:
        # It forks and leaves its child behind, which is nobody's to wait for.
        subprocess.run(
            [*python, str(folder), json.dumps(options)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            timeout=_FORK_S,
            check=False,
        )
