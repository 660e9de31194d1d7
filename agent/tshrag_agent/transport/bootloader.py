"""A bootloader on a console: stop its autoboot, give it commands, read what it answers."""

import asyncio
import re
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.boot_way import BootloaderWay
from tshrag_agent.transport.dialogue import Dialogue
from tshrag_agent.transport.exchange import exchange
from tshrag_agent.transport.expect import Literal, Match, Matcher, Regex
from tshrag_common.errors import shown
from tshrag_common.xymodem import Sender

MOST_ANSWER_BYTES = 1 << 20
_KEY_S = 0.25
_SETTLE_S = 0.2
_ANSWER_S = 3.0
_TRIES = 3
_CRC = re.compile(rb"==>\s*([0-9a-fA-F]{8})\b")
_NUMBER = re.compile(rb"^\s*(\d{1,9})\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """What a command of a bootloader said; ``status`` is None where it tells none."""

    output: bytes
    status: int | None


class Bootloader:
    """The prompt of a bootloader, on one talk."""

    def __init__(self, talk: Dialogue, way: BootloaderWay) -> None:
        self._talk, self._way = talk, way
        self._enter = way.enter.encode()

    async def interrupt(self) -> None:
        """Return when the prompt is there; call it before, or as, the board gets its power.

        Without a text to wait for, the key is typed over and over.

        Raises:
            TransportFailed: ``boot_failed``, with what came instead.

        """
        patterns: list[Regex | Literal] = [self._prompt]
        if self._way.interrupt:
            patterns.append(Regex(name="interrupt", source=self._way.interrupt.encode()))
        matcher = Matcher(patterns)
        async with self._limited("the prompt of the bootloader", matcher):
            match: Match | None = None
            while match is None and self._way.interrupt:
                match = await self._talk.expect(matcher, self._way.timeout_s)
            while match is None or match.name != "prompt":
                await self._talk.type(self._way.key.encode())
                match = await self._talk.expect(matcher, _KEY_S)
            await self.settle()

    async def settle(self) -> None:
        """See that it listens: an empty line brings the prompt again, and nothing follows it."""
        for _ in range(_TRIES):
            await self._rest()
            matcher = Matcher([self._prompt])
            await self._talk.type(self._enter)
            if await self._talk.expect(matcher, _ANSWER_S) is not None:
                return
        what = "the bootloader does not answer an empty line with its prompt"
        raise TransportFailed("boot_failed", self._talk.where, what, "see boot.bootloader.prompt")

    async def run(self, command: str, timeout_s: float | None = None) -> Answer:
        """Do one command and return what it said.

        Raises:
            TransportFailed: ``boot_failed``: the prompt did not come back.

        """
        output = await self._answer(command, timeout_s or self._way.timeout_s)
        if not self._way.status:
            return Answer(output, None)
        found = _NUMBER.search(await self._answer(self._way.status, self._way.timeout_s))
        return Answer(output, int(found[1]) if found else None)

    async def prepare(self) -> None:
        """Set the environment of the settings and do their commands.

        Raises:
            TransportFailed: ``boot_failed``: one of them did not hold.

        """
        setting = [
            self._way.setenv.format(name=name, value=value)
            for name, value in self._way.environment.items()
        ]
        for command in (*setting, *self._way.commands):
            answer = await self.run(command)
            if answer.status:
                said = answer.output.strip()[-200:].decode("utf-8", "replace")
                what = f"{shown(command, 80)} ended with {answer.status}: {shown(said, 200)}"
                raise TransportFailed("boot_failed", self._talk.where, what)

    async def load(self, command: str, address: str, data: bytes) -> bool:
        """Bring `data` into its memory by ``loadx`` or ``loady``; tell whether it could be checked.

        Raises:
            TransportFailed: ``transfer_failed``: it did not arrive, or not whole.

        """
        machine = Sender(data, "tshrag" if command == "loady" else "")
        await self._talk.type(f"{command} {address}".encode() + self._enter)
        prompt, last = Matcher([self._prompt]), [b""]

        def through(heard: bytes) -> bytes:
            last[0] = heard
            return heard

        await exchange(self._talk, machine, through)
        async with self._limited("the prompt after the file", prompt):
            if prompt.feed(last[0]) is None:
                await self._talk.expect(prompt, self._way.timeout_s)
        await self.settle()
        answer = await self.run(f"crc32 {address} {len(data):x}")
        found = _CRC.search(answer.output)
        if found is None:
            return False
        if int(found[1], 16) != zlib.crc32(data):
            what = f"{len(data)} bytes at {shown(address)} are not those that were sent"
            raise TransportFailed("transfer_failed", self._talk.where, what, "try once more")
        return True

    @property
    def _prompt(self) -> Regex:
        return Regex(name="prompt", source=self._way.prompt.encode())

    async def _rest(self) -> None:
        """Let it finish what it says."""
        async with self._limited("silence at the prompt", Matcher([self._prompt])):
            while await self._talk.hear(_SETTLE_S) is not None:
                continue

    async def _answer(self, command: str, timeout_s: float) -> bytes:
        matcher, heard = Matcher([self._prompt]), bytearray()
        await self._talk.type(command.encode() + self._enter)
        async with self._limited(f"the prompt after {shown(command, 60)}", matcher, timeout_s):
            while True:
                data = await self._talk.hear(timeout_s)
                heard += data or b""
                match = matcher.feed(data or b"")
                if match is not None:
                    break
                if len(heard) > MOST_ANSWER_BYTES:
                    del heard[: -MOST_ANSWER_BYTES // 2]
        text = bytes(heard[: len(heard) - len(matcher.unread) - len(match.text)])
        echo, line, rest = text.partition(b"\n")
        return rest if line and command.encode() in echo else text

    @asynccontextmanager
    async def _limited(
        self, wanted: str, matcher: Matcher, timeout_s: float | None = None
    ) -> AsyncIterator[None]:
        """Put a deadline on a block that says what was seen instead."""
        limit_s = timeout_s or self._way.timeout_s
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError:
            seen = matcher.before.strip()[-120:].decode("utf-8", "replace")
            what = f"{wanted} did not come in {limit_s:g} s; last seen: {shown(seen, 120)}"
            raise TransportFailed("boot_failed", self._talk.where, what) from None
