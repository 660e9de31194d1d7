import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.serial_pty import Wire, board, running, wire
from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.console import HOUSEKEEPING, SerialConsole
from tshrag_agent.transport.dialogue import Dialogue
from tshrag_agent.transport.line import LineSettings
from tshrag_agent.transport.login import Login, log_in

LOGIN = Login(silence_s=0.3, timeout_s=15.0)
BRIEF = Login(silence_s=0.3, timeout_s=2.5)


@asynccontextmanager
async def talk_on(path: str) -> AsyncIterator[Dialogue]:
    async with running(SerialConsole("b1", LineSettings(url=path))) as console:
        await console.opened(5.0)
        with Dialogue(console, console.drive(HOUSEKEEPING, "agent")) as talk:
            yield talk


async def refusal(talk: Dialogue, login: Login, password: str = "") -> str:
    with pytest.raises(TransportFailed) as caught:
        await log_in(talk, login, password)
    assert caught.value.code == "console_login"
    return str(caught.value)


async def test_user_and_password_are_given_at_their_prompts(tmp_path: Path) -> None:
    with board(tmp_path, "--user", "ann", "--password", "pw") as path:
        async with talk_on(path) as talk:
            await log_in(talk, Login(user="ann", silence_s=0.3, timeout_s=15), "pw")


async def test_a_board_without_a_password_is_entered_too(tmp_path: Path) -> None:
    with board(tmp_path) as path:
        async with talk_on(path) as talk:
            await log_in(talk, LOGIN, "")


async def test_who_is_already_logged_in_is_recognised(tmp_path: Path) -> None:
    with board(tmp_path, "--password", "pw") as path:
        async with talk_on(path) as talk:
            await log_in(talk, LOGIN, "pw")
        async with talk_on(path) as talk:
            await log_in(talk, LOGIN, "")


async def test_a_shell_that_is_held_by_a_program_is_taken_back(tmp_path: Path) -> None:
    with board(tmp_path, "--password", "pw") as path:
        async with talk_on(path) as talk:
            await log_in(talk, LOGIN, "pw")
            await talk.type(b"stty -echo; sleep 300\r")
        async with talk_on(path) as talk:
            await log_in(talk, LOGIN, "")


async def test_a_wrong_password_is_said_clearly(tmp_path: Path) -> None:
    with board(tmp_path, "--password", "right") as path:
        async with talk_on(path) as talk:
            said = await refusal(talk, LOGIN, "wrong")
    assert said == (
        "b1: user 'root': the DUT says 'Login incorrect'; see user and password_file in [login]"
    )


async def test_a_password_that_nobody_set_is_said_clearly(tmp_path: Path) -> None:
    with board(tmp_path, "--password", "right") as path:
        async with talk_on(path) as talk:
            assert "a password is asked for, and none is set" in await refusal(talk, LOGIN)


async def test_a_board_that_says_nothing_is_not_waited_for_for_ever() -> None:
    with wire() as device:
        async with talk_on(device.path) as talk:
            said = await refusal(talk, BRIEF)
            assert "no shell within 2.5 s; last seen: ''" in said
        assert device.heard().startswith(b"\r")


async def test_garbage_of_a_wrong_baud_rate_is_no_login() -> None:
    noise = random.Random(7)
    with wire() as device:
        async with talk_on(device.path) as talk, answering(device, lambda _: noise.randbytes(40)):
            said = await refusal(talk, BRIEF)
    assert "baud rate" in said and said.isascii()


async def test_a_greeting_that_names_the_last_login_is_no_prompt() -> None:
    steps = {
        b"root\r": b"root\r\nPassword: ",
        b"pw\r": b"\r\nLast login: Mon Nov 16 on ttyS0\r\n$ ",
    }

    def answer(typed: bytes) -> bytes:
        if b"printf" in typed:
            return b"\x1e" + typed.split()[-1] + b"\x1e\r\n$ "
        return steps.get(typed, b"\r\nboard login: ")

    with wire() as device:
        async with talk_on(device.path) as talk, answering(device, answer):
            await log_in(talk, LOGIN, "pw")


async def test_somebody_elses_password_prompt_does_not_get_our_password() -> None:
    def answer(typed: bytes) -> bytes:
        return b"Password: " if device.heard() == b"\r" else b"?"

    with wire() as device:
        async with talk_on(device.path) as talk, answering(device, answer):
            await refusal(talk, BRIEF, "our secret")
        assert b"our secret" not in device.heard()


@asynccontextmanager
async def answering(device: Wire, answer: Callable[[bytes], bytes]) -> AsyncIterator[None]:
    """Be a device that answers each line with what `answer` makes of it."""

    async def serve() -> None:
        seen = 0
        while True:
            typed = device.heard()[seen:]
            seen += len(typed)
            if typed:
                device.say(answer(typed))
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve())
        yield
        task.cancel()
