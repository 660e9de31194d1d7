"""From whatever a console shows to a shell that answers.

Silence is answered with a newline; a login prompt with the user; a shell is recognised only by
its answer to a question (``marks.py``), never by what its prompt looks like.
"""

import asyncio
import secrets
from pathlib import Path
from typing import Annotated

import msgspec

from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.dialogue import Dialogue
from tshrag_agent.transport.expect import Literal, Match, Matcher, Regex
from tshrag_agent.transport.marks import RECORD
from tshrag_common.errors import shown

_SETTLE_S = 0.25
_LOGINS_MOST = 3
_PROMPT_ENDS = (b"#", b"$", b">", b"%")  # worth asking soon; any other after silence_s

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]


class Login(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to get in, as agent.toml says it. Prompts are regexes (``expect.py`` says which).

    ``shell_prompt`` is not needed; with it a shell is asked at once, not after ``silence_s``.
    The timeout covers a boot, too.
    """

    user: str = "root"
    password_file: str = ""
    login_prompt: str = "login: ?"
    password_prompt: str = "[Pp]assword: ?"
    refusal: str = "Login incorrect|incorrect password|[Aa]uthentication failure|Permission denied"
    shell_prompt: str = ""
    enter: str = "\r"
    silence_s: Seconds = 2.0
    timeout_s: Seconds = 60.0


async def read_password(login: Login, where: str) -> str:
    """Return the password of `login`, empty where there is none.

    Raises:
        TransportFailed: console_login: the file cannot be read.

    """
    path = login.password_file
    if not path:
        return ""
    try:
        return (await asyncio.to_thread(Path(path).read_text)).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        what = f"the password file {path} cannot be read: {error}"
        raise TransportFailed("console_login", where, what) from None


async def log_in(talk: Dialogue, login: Login, password: str) -> None:
    """Return when a shell answers on the console of `talk`.

    Raises:
        TransportFailed: console_login, with what was seen instead.

    """
    attempt = _Attempt(talk, login, password)
    try:
        async with asyncio.timeout(login.timeout_s):
            await attempt.reach_shell()
    except TimeoutError:
        seen = attempt.matcher.before.strip()[-120:].decode("utf-8", "replace")
        what = f"no shell within {login.timeout_s:g} s; last seen: {shown(seen, 120)}"
        fix = "see power, baud rate and the prompts in [login]"
        raise TransportFailed("console_login", talk.where, what, fix) from None


class _Attempt:
    """One try to get in."""

    def __init__(self, talk: Dialogue, login: Login, password: str) -> None:
        self._talk, self._login, self._password = talk, login, password
        self._enter = login.enter.encode()
        self._nonce = secrets.token_hex(8)
        self._silences = self._users = 0
        self._password_given = False
        patterns: list[Regex | Literal] = [
            Literal(name="answer", text=RECORD + self._nonce.encode() + RECORD),
            Regex(name="refusal", source=login.refusal.encode()),
            Regex(name="login", source=login.login_prompt.encode()),
            Regex(name="password", source=login.password_prompt.encode()),
        ]
        if login.shell_prompt:
            patterns.append(Regex(name="shell", source=login.shell_prompt.encode()))
        self.matcher = Matcher(patterns)

    async def reach_shell(self) -> None:
        silence_s = _SETTLE_S  # at first only see whether something is on its way
        while True:
            match = await self._talk.expect(self.matcher, silence_s)
            if match is None:
                await self._on_silence()
            elif match.name == "answer":
                return
            else:
                await self._on_prompt(match)
            at_prompt = self._talk.tail.rstrip().endswith(_PROMPT_ENDS)
            silence_s = _SETTLE_S if at_prompt else self._login.silence_s

    async def _on_prompt(self, match: Match) -> None:
        if match.name == "shell":
            await self._ask()
        elif match.name == "password":
            await self._on_password()
        elif match.name == "login":
            await self._on_login()
        elif self._password_given or self._users:
            raise self._refused("the DUT says " + shown(match.text.decode("utf-8", "replace")))

    async def _on_login(self) -> None:
        if not await self._is_prompt():
            return  # "Last login: …" of a greeting, or the kernel has talked into it
        if self._password_given:
            raise self._refused("the login prompt came back")
        if self._users >= _LOGINS_MOST:
            raise self._refused(f"the login prompt came {self._users + 1} times")
        self._users += 1
        await self._talk.type(self._login.user.encode() + self._enter)

    async def _on_password(self) -> None:
        if not self._users:
            await self._talk.type(self._enter)  # somebody else's user: not for our password
            return
        if not self._password:
            raise self._refused("a password is asked for, and none is set")
        self._password_given = True
        await self._settled()  # login says its prompt first and switches the echo off then
        await self._talk.type(self._password.encode() + self._enter, hidden=True)

    async def _settled(self) -> None:
        while (heard := await self._talk.hear(_SETTLE_S)) is not None:
            self.matcher.add(heard)

    async def _is_prompt(self) -> bool:
        """Tell whether the DUT waits behind the prompt; what comes instead is searched, too."""
        while not self.matcher.unread.strip():
            heard = await self._talk.hear(_SETTLE_S)
            if heard is None:
                return True
            self.matcher.add(heard)
        return False

    async def _on_silence(self) -> None:
        r"""Wake what sleeps: a newline, a question where a prompt may stand, Ctrl-C, Ctrl-\."""
        self._silences += 1
        if self._talk.tail.strip() and (self._silences > 1 or self._users):
            await self._ask()
        elif self._silences % 4 == 3:
            await self._talk.type(b"\x03")
        elif self._silences % 4 == 0:
            await self._talk.type(b"\x1c")
        else:
            await self._talk.type(self._enter)

    async def _ask(self) -> None:
        self._talk.tail = b""  # so that the next silence tries something else
        await self._talk.type(f"printf '\\036%s\\036\\n' {self._nonce}".encode() + self._enter)

    def _refused(self, what: str) -> TransportFailed:
        where = f"user {shown(self._login.user)}"
        fix = "see user and password_file in [login]"
        return TransportFailed("console_login", self._talk.where, f"{where}: {what}", fix)
