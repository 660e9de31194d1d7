"""What a step says to a console and waits for, and what it asks a bootloader."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence

from tshrag_agent.boards.board import Board
from tshrag_agent.boards.guard import DutFailed, Hear, death_of
from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.bootloader import Bootloader
from tshrag_agent.transport.dialogue import Dialogue
from tshrag_agent.transport.expect import Literal, Match, Matcher, Regex
from tshrag_common.actions import Expect, Send, Upload
from tshrag_common.errors import shown
from tshrag_common.ids import Fence

_ADDRESS = re.compile(r"(?:0x)?[0-9a-fA-F]{1,16}|\$\{?\w{1,64}\}?")
ENTER = "\r"
_DEATH = "death: "


async def send(board: Board, fence: Fence, what: Send) -> None:
    """Type a text, or send a break; what the DUT answers is heard by the next expect."""
    async with board.talk(fence, on=True) as talk:
        if what.brk:
            await talk.send_break()
        if what.text or what.enter:
            await talk.type((what.text + (ENTER if what.enter else "")).encode())


async def expect(board: Board, fence: Fence, what: Expect, hear: Hear) -> Match:
    """Wait for one of several texts, in what the DUT has said since the last match.

    Raises:
        DutFailed: ``console_expect``: none came in time; ``console_death``.

    """
    matcher = Matcher([*_patterns(what), *death_of(board.parts.way.death)])
    async with board.talk(fence, on=True) as talk:
        match = await _matched(board, talk, matcher, what.within, hear)
    if match is None:
        wanted = " or ".join(shown(each, 60) for each in (*what.text, *what.regex))
        seen = shown(matcher.before[-200:].decode("utf-8", "replace").strip(), 200)
        said = f"{wanted} did not come in {what.within:g} s; last seen: {seen}"
        raise DutFailed(board.where, said, code="console_expect")
    if not match.name.startswith(("text ", "regex ")):
        said = f"the console said {shown(match.text.decode('utf-8', 'replace'))}"
        raise DutFailed(board.where, said, code="console_death")
    return match


async def bootloader(board: Board, fence: Fence, commands: Sequence[str]) -> None:
    """Do commands at the prompt of the bootloader; each must hold.

    Raises:
        DutFailed: ``bootloader``: one did not, or the prompt is not there.

    """
    async with _at_prompt(board, fence) as prompt:
        for command in commands:
            answer = await prompt.run(command)
            if answer.status:
                said = f"{shown(command)} ended with {answer.status}"
                raise DutFailed(board.where, said, code="bootloader")


async def load(board: Board, fence: Fence, what: Upload, data: bytes, hear: Hear) -> None:
    """Bring a file into the memory of the bootloader.

    Raises:
        DutFailed: ``bootloader``: it is not an address, or the prompt is not there.
        TransportFailed: ``transfer_failed``.

    """
    if not _ADDRESS.fullmatch(what.to):
        said = f"{shown(what.to)} is no address, as 0x40200000 or $loadaddr"
        raise DutFailed(board.where, said, code="bootloader")
    async with _at_prompt(board, fence) as prompt:
        checked = await prompt.load(what.via, what.to, data)
    how = "crc32 is right" if checked else "not checked: the bootloader has no crc32"
    hear(f"\r\n[tshrag: {len(data)} bytes at {what.to}; {how}]\r\n".encode())


@contextlib.asynccontextmanager
async def _at_prompt(board: Board, fence: Fence) -> AsyncIterator[Bootloader]:
    way = board.parts.way.bootloader
    if way is None:
        fix = "add [dut.boot.bootloader]"
        raise TransportFailed("boot_failed", board.where, "no bootloader is set up", fix)
    async with board.talk(fence) as talk:
        prompt = Bootloader(talk, way)
        try:
            await prompt.settle()
            yield prompt
        except TransportFailed as error:
            if error.code != "boot_failed":
                raise
            fix = "boot it to the bootloader first"
            raise DutFailed(board.where, error.what, fix, code="bootloader") from None


def _patterns(what: Expect) -> list[Literal | Regex]:
    made: list[Literal | Regex] = [
        Literal(name=f"text {text}", text=text.encode()) for text in what.text
    ]
    made += [Regex(name=f"regex {text}", source=text.encode()) for text in what.regex]
    return [*made, *(Regex(name=_DEATH + text, source=text.encode()) for text in what.death)]


async def _matched(
    board: Board, talk: Dialogue, matcher: Matcher, within_s: float, hear: Hear
) -> Match | None:
    """Search what waits from before, then what comes; keep what is behind the match."""
    match = matcher.feed(board.pending)
    board.pending = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while match is None:
                data = await talk.hear(within_s) or b""
                hear(data)
                match = matcher.feed(data)
    board.pending = matcher.unread if match is not None else b""
    return match
