r"""A shell on a console: logged in, taught a few functions (``console.sh``), asked questions.

Nothing here depends on a prompt, on echo being off or on the line being clean; a line that loses
bytes is typed more slowly.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.console import Driver, Pace, SerialConsole
from tshrag_agent.transport.dialogue import Dialogue
from tshrag_agent.transport.expect import Literal, Matcher, Regex
from tshrag_agent.transport.login import Login, log_in, read_password
from tshrag_agent.transport.marks import RECORD, Cut, pieces, question, status_of
from tshrag_agent.transport.reboots import RebootSigns
from tshrag_common.cksum import cksum

TEACHING = Path(__file__).with_name("console.sh")
OPEN_S = 5.0
ANSWER_S = 5.0
MOST_ANSWER_BYTES = 1 << 20

_QUIET = (
    "unset HISTFILE PROMPT_COMMAND;PS1='# ';PS2=;TERM=dumb;export TERM;"
    "stty -echo -opost -tostop 2>/dev/null;printf 'x\\n'"
)
_CHECK = ';printf %b "$_ts_t"|cksum;_ts_t=$(printf %b. "$_ts_t");_ts_t=${_ts_t%.}'
_AWAKE_S = 2.0
_BEGIN_S = 15.0
_TICK_S = 0.5
_LOOK_S = 2.0
_SLOWER = (Pace(chunk_bytes=16, delay_s=0.01), Pace(chunk_bytes=1, delay_s=0.005))
_KEYS = (b"\x03", b"\x1c", b"\x1a")  # interrupt, quit, suspend

Output = Callable[[bytes], None]


class Garbled(Exception):
    """What was typed has not arrived as it was typed; known inside of this room only."""


class RemoteShell:
    """The shell of one console. One operation at a time: its owner sees to that."""

    def __init__(self, console: SerialConsole, login: Login, pace: Pace) -> None:
        self._console, self._login = console, login
        self._paces = (pace, *_SLOWER)
        self._pace = 0
        self._taught = False
        self._crlf = False
        self.driver: Driver | None = None
        self.logins = 0
        """How often a shell was reached anew: what an older one knew is gone."""

    @property
    def where(self) -> str:
        return self._console.name

    def talk(self) -> Dialogue:
        if self.driver is None:
            raise TransportFailed("serial_lost", self.where, "nobody drives the console")
        return Dialogue(self._console, self.driver, self._paces[self._pace])

    async def ready(self) -> None:
        """Return when the shell answers; log in where it does not.

        Raises:
            TransportFailed: serial_*, console_login.

        """
        await self._console.opened(OPEN_S)
        if self._taught and await self._is_awake():
            return
        self._taught = False
        while not self._taught:
            try:
                await self._reach()
                self._taught = True
            except (Garbled, TimeoutError):
                self.slow_down("the shell does not take what is typed")

    async def ask(
        self, text: str, *, timeout_s: float = ANSWER_S, most_bytes: int = MOST_ANSWER_BYTES
    ) -> tuple[int, bytes]:
        """Do `text`, one line of shell, and return (status, output).

        Raises:
            TimeoutError: no answer; the shell may be anywhere.

        """
        nonce = secrets.token_hex(8)
        cut, heard = Cut(nonce, crlf=self._crlf), bytearray()
        with self.talk() as talk:
            async with asyncio.timeout(timeout_s):
                await self.type_line(talk, question(nonce, text))
                while cut.end is None:
                    heard += cut.feed(await talk.hear(timeout_s) or b"")
                    if len(heard) > most_bytes:
                        raise self._too_much(most_bytes)
        return status_of(cut.end)[0], bytes(heard)

    async def perform(
        self, script: bytes, *, timeout_s: float = ANSWER_S, most_bytes: int = MOST_ANSWER_BYTES
    ) -> tuple[int, bytes]:
        """Do a script of ours, of any length, in the shell itself."""
        await self.keep(script)
        return await self.ask('eval "$_ts_t"', timeout_s=timeout_s, most_bytes=most_bytes)

    async def keep(self, script: bytes) -> None:
        """Bring `script` into the variable ``_ts_t`` of the shell, whole."""
        while True:
            try:
                return await self._keep(script)
            except (Garbled, TimeoutError):
                self.slow_down("a script does not arrive whole")
            if not await self.regain():
                what = "the shell has not come back after a garbled line"
                raise TransportFailed("transfer_failed", self.where, what)

    async def go(self, mark: str, grace_s: float, output: Output) -> tuple[int, tuple[int, ...]]:
        """Start what was kept, hand its output on, return (status, pids that stay alive).

        Raises:
            TransportFailed: serial_lost, dut_rebooted.

        """
        nonce = secrets.token_hex(8)
        cut = Cut(nonce, crlf=self._crlf)
        signs = RebootSigns(self._login.login_prompt, self._login.silence_s)
        with self.talk() as talk:
            await self.type_line(talk, f"_ts_go {nonce} '{mark}' {round(grace_s)}".encode())
            heard_at = began_at = time.monotonic()
            while cut.end is None:
                data = await talk.hear(_TICK_S)
                if data is not None:
                    heard_at = time.monotonic()
                    signs.feed(data)
                    _hand_on(output, cut.feed(data))
                elif signs.look_due(time.monotonic() - heard_at):
                    if await self._has_rebooted(talk, signs.banner, cut, output):
                        raise self._rebooted()
                elif not cut.began and time.monotonic() - began_at > _BEGIN_S:
                    raise self._not_begun()
        return status_of(cut.end)

    async def regain(self) -> bool:
        r"""Get the shell back from whatever holds it: Ctrl-C, Ctrl-\, Ctrl-Z."""
        for key in _KEYS:
            with self.talk() as talk:
                await talk.type(key)
                await talk.hear(0.2)
            if await self._is_awake():
                return True
        self.forget()
        return False

    def slow_down(self, what: str) -> None:
        """Type at the next slower pace from now on; raise `what` where there is none."""
        if self._pace + 1 >= len(self._paces):
            fix = "see the baud rate and flow control of the line"
            raise TransportFailed("transfer_failed", self.where, what, fix) from None
        self._pace += 1

    def forget(self) -> None:
        """Take the shell for lost: the next operation logs in again."""
        self._taught = False

    async def restore(self) -> None:
        """Leave a terminal that a person can use."""
        if not self._taught or not self._console.is_open:
            return
        self._taught = False
        try:
            await self.ask("stty echo opost 2>/dev/null", timeout_s=_AWAKE_S)
        except (TimeoutError, TransportFailed):
            return  # the shell is lost, and so is what was set

    async def type_line(self, talk: Dialogue, line: bytes) -> None:
        await talk.type(line + self._login.enter.encode())

    async def _reach(self) -> None:
        self._crlf = False
        password = await read_password(self._login, self.where)
        with self.talk() as talk:
            await log_in(talk, self._login, password)
        self.logins += 1
        _, answer = await self.ask(_QUIET)
        self._crlf = answer.endswith(b"\r\n")
        await self._keep(await asyncio.to_thread(_teaching))
        status, _ = await self.ask('eval "$_ts_t"')
        if status:
            raise TransportFailed("no_shell", self.where, "what answers is no POSIX shell")

    async def _keep(self, script: bytes) -> None:
        length, parts = 0, pieces(script) or [""]
        for number, piece in enumerate(parts):
            length += len(piece)
            before, last = "$_ts_t" if number else "", number == len(parts) - 1
            text = f"_ts_t={before}'{piece}';printf '%s ' ${{#_ts_t}}{_CHECK if last else ''}"
            _, said = await self.ask(text)
            numbers = [int(word) for word in said.split() if word.isdigit()]
            if numbers[:1] != [length]:
                raise Garbled
        if len(numbers) == 3 and numbers[1:] != [cksum(script), len(script)]:
            raise Garbled  # a shell without cksum says words instead: the length must do

    async def _is_awake(self) -> bool:
        try:
            await self.ask(":", timeout_s=_AWAKE_S)
        except TimeoutError:
            return False
        return True

    async def _has_rebooted(self, talk: Dialogue, banner: bool, cut: Cut, output: Output) -> bool:
        """Look behind the signs: who answers a newline, and is the shell free though it works?"""
        nonce = secrets.token_hex(8)
        answer = Literal(name="answer", text=RECORD + nonce.encode() + RECORD)
        login = Regex(name="login", source=self._login.login_prompt.encode())
        lines = [b"", f"printf '\\036%s\\036\\n' {nonce}".encode()] if banner else [b""]
        matcher = Matcher([answer, login])
        for line in lines:
            await self.type_line(talk, line)
            ends = time.monotonic() + _LOOK_S
            while cut.end is None and time.monotonic() < ends:
                data = await talk.hear(_LOOK_S) or b""
                _hand_on(output, cut.feed(data))
                if cut.end is None and matcher.feed(data):
                    return True
        return False

    def _rebooted(self) -> TransportFailed:
        self.forget()
        what = "the DUT has booted again while a command was running"
        return TransportFailed("dut_rebooted", self.where, what, "see its console log for why")

    def _not_begun(self) -> TransportFailed:
        self.forget()
        what = f"the shell has not begun a command within {_BEGIN_S:g} s"
        return TransportFailed("console_login", self.where, what)

    def _too_much(self, most_bytes: int) -> TransportFailed:
        self.forget()
        what = f"an answer is longer than {most_bytes} bytes"
        return TransportFailed("transfer_failed", self.where, what)


def _hand_on(output: Output, data: bytes) -> None:
    if data:
        output(data)


def _teaching() -> bytes:
    """Return ``console.sh`` without what only people read."""
    lines = [line.partition(b" # ")[0].strip() for line in TEACHING.read_bytes().splitlines()]
    return b"\n".join(line for line in lines if line and line[:1] != b"#")
