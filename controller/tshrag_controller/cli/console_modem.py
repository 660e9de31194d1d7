"""A file that a person sends by XMODEM or YMODEM from an interactive console."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from tshrag_common.xymodem import ASK, FILL, NAK, REST_S, Sender
from tshrag_controller.reports.text import size

_SHELL = re.compile(rb"[ -BD-~]{2}")
"""Text behind the last block: rx has left, and its last ACK was lost with its terminal's buffer."""

Type = Callable[[bytes], Awaitable[None]]


class FileSend:
    """One file on its way; what the board says meanwhile is the protocol's, not the screen's."""

    def __init__(self, name: str, data: bytes, how: str, send: Type) -> None:
        self._name, self._how, self._type = name, how, send
        self.there = Path(name).name if how == "YMODEM" else ""
        """What it is called on the board; empty: that is the board's choice."""
        self._machine = Sender(data, self.there)
        self._data = data
        self._behind = b""

    @property
    def silence_s(self) -> float:
        return self._machine.silence_s

    @property
    def unread(self) -> bytes:
        """Return what the board said behind the end of the file."""
        return self._machine.unread or self._behind

    @property
    def arrived(self) -> bytes | None:
        """Return what the board has got, with what XMODEM fills up; None: nothing whole."""
        if self._machine.state != "done":
            return None
        return self._data + (b"" if self.there else FILL * self._machine.filled_bytes)

    async def hear(self, data: bytes) -> str:
        """Answer what the board says; return what to tell the person, empty while it goes on."""
        answer = self._machine.feed(data)
        if self._machine.state == "going" and self._machine.is_through and _SHELL.search(data):
            self._machine.hang_up()
            self._behind, answer = data, b""
        if answer and data[-1] in (ASK, NAK):
            await asyncio.sleep(REST_S)
        return await self._answer(answer)

    async def silence(self) -> str:
        return await self._answer(self._machine.silence())

    async def stop(self) -> str:
        return await self._answer(self._machine.cancel())

    async def _answer(self, answer: bytes) -> str:
        if answer:
            await self._type(answer)
        match self._machine.state:
            case "going":
                return ""
            case "done":
                return f"sent {self._name} by {self._how}: {size(len(self._data))}"
            case _:
                done = size(self._machine.done_bytes)
                return f"{self._name} was not sent, after {done}: {self._machine.why}"
