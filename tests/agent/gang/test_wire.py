"""What a DUT asks for a job of a gang, and what its shell makes of the answer."""

import asyncio
import base64
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from tests.support.debian import need_program
from tests.support.waiting import wait_until
from tshrag_agent.gang.desk import MAX_CONNECTIONS
from tshrag_agent.gang.wire import MAX_ASK_BYTES, Answered, Wire, escaped
from tshrag_agent.transport.base import OutputSink


@settings(max_examples=15)
@example(bytes(range(256)))
@given(st.binary(max_size=300))
def test_a_shell_makes_the_very_bytes_of_an_escaped_word(data: bytes) -> None:
    busybox = need_program("busybox", "busybox")
    for shell in (("sh",), ("bash",), (busybox, "ash")):
        line = escaped(data)
        script = b'IFS= read -r word; printf %b "$word"'
        done = subprocess.run([*shell, "-c", script], input=line + b"\n", capture_output=True)
        assert done.stdout == data, shell


class Board:
    """A far end: what is typed to it, and what it says."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.heard: list[bytes] = []
        self._over = asyncio.Event()
        self.say: OutputSink = lambda _stream, _data: None

    @contextlib.asynccontextmanager
    async def converse(
        self, command: str, on_output: OutputSink, timeout_s: float
    ) -> AsyncIterator["Board"]:
        assert command.startswith("exec /bin/sh")
        self.say = on_output
        yield self

    async def write(self, data: bytes) -> None:
        self.heard.append(data)

    def finish(self) -> None:
        self._over.set()

    async def closed(self) -> None:
        await self._over.wait()

    def abort(self) -> None:
        self._over.set()


def a_call(number: int, *words: str, body: bytes | None = None) -> bytes:
    argv = b"".join(word.encode() + b"\0" for word in words).hex()
    return f"{number} {argv} {'-' if body is None else body.hex()}\n".encode()


@contextlib.asynccontextmanager
async def served(answered: Answered) -> AsyncIterator[tuple[Board, Wire]]:
    """Give a board, and the wire that has begun to serve it."""
    board = Board()
    wire = Wire(answered, board, "/tmp/x", 60.0)
    wire.begin()
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(wire.serve())
        await wait_until(lambda: board.heard, 20)
        yield board, wire
        serving.cancel()


async def asked(*lines: bytes) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return what the desk was asked, and what went back, when a board says these lines."""
    calls = list[dict[str, Any]]()

    async def answered(line: bytes) -> bytes:
        calls.append(json.loads(line))
        return b'{"ok":true}'

    async with served(answered) as (board, wire):
        board.say("stdout", b"rea")
        board.say("stdout", b"dy\n")
        assert await wire.ready()
        for line in lines:
            board.say("stdout", line)
        last = lines[-1].split()[0] + b" "
        await wait_until(lambda: any(each.startswith(last) for each in board.heard), 20)
    return calls, board.heard[1:]


async def test_a_call_comes_with_its_words_and_its_value() -> None:
    calls, back = await asked(a_call(7, "send", "far", "k", "@file", body=b"a\0b"))
    (call,) = calls
    assert base64.b64decode(call.pop("value")) == b"a\0b"
    assert call.pop("call")
    assert call == {"do": "send", "name": "k", "roles": ["far"]}
    assert back == [b"7 0 = =\n"]


async def test_no_file_of_the_agent_is_read_for_a_board() -> None:
    calls, _ = await asked(a_call(7, "send", "far", "k", "@/etc/passwd"))
    assert base64.b64decode(calls[0]["value"]) == b"@/etc/passwd"


@pytest.mark.parametrize(
    "noise",
    [b"../../x 00 -\n", b"7 zz -\n", b"7\n", b"\xff\n", b"7 0 -\n", b"x" * (MAX_ASK_BYTES + 1)],
)
async def test_what_is_no_call_is_let_go_or_refused_and_the_next_one_counts(noise: bytes) -> None:
    calls, back = await asked(noise, b"\n", a_call(8, "barrier", "up", "--timeout", "3s"))
    assert [(call["do"], call["name"], call["timeout_s"]) for call in calls] == [
        ("barrier", "up", 3)
    ]
    assert b"8 0 = =\n" in back
    assert all(each.startswith((b"8 0 ", b"7 2 ")) for each in back)


async def test_words_that_make_no_sense_are_answered_as_the_program_does() -> None:
    calls, back = await asked(a_call(9, "fly"))
    assert calls == []
    assert back[0].startswith(b"9 2 = =")


async def test_a_board_that_lacks_a_program_has_no_voice_and_says_why() -> None:
    async def answered(line: bytes) -> bytes:
        raise AssertionError(line)

    async with served(answered) as (board, wire):
        board.say("stdout", b"lacks mkfifo\n")
        assert not await wire.ready()
    assert wire.fault == "the DUT lacks mkfifo"


async def test_a_flood_of_calls_that_wait_does_not_pile_up_in_the_agent() -> None:
    go_on = asyncio.Event()
    waiting = most = 0

    async def answered(line: bytes) -> bytes:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await go_on.wait()
        waiting -= 1
        return b'{"ok":true}'

    async with served(answered) as (board, _):
        for number in range(20 * MAX_CONNECTIONS):
            board.say("stdout", a_call(number, "barrier", "up"))
            await asyncio.sleep(0)
        await wait_until(lambda: waiting == MAX_CONNECTIONS, 20)
        assert most == MAX_CONNECTIONS
        go_on.set()
        await wait_until(lambda: len(board.heard) > MAX_CONNECTIONS and not waiting, 20)
        board.say("stdout", a_call(9999, "barrier", "up"))
        await wait_until(lambda: any(each.startswith(b"9999 0 ") for each in board.heard), 20)
    assert most == MAX_CONNECTIONS
