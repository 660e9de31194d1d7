"""A DUT as a state machine: what state it is in, and how it is brought to another.

States and moves are known to ``strategy.py``; here the acts of a move are done, on the console
under the fence of who asked, with the power switch and with commands of this host.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tshrag_agent.boards import strategy
from tshrag_agent.boards.guard import DutFailed, Hear, death_of, guarded
from tshrag_agent.boards.strategy import BOOTLOADER, LOGIN, OFF, SHELL, UNKNOWN, Graph, Means
from tshrag_agent.transport.base import DutTransport, PowerSwitch, TransportFailed
from tshrag_agent.transport.boot_way import Act, BootWay, Move
from tshrag_agent.transport.bootloader import Bootloader
from tshrag_agent.transport.console import SerialConsole
from tshrag_agent.transport.console_records import Watcher
from tshrag_agent.transport.dialogue import Dialogue
from tshrag_agent.transport.expect import Literal, Matcher, Regex
from tshrag_agent.transport.host_command import run_command
from tshrag_agent.transport.login import log_in, read_password
from tshrag_agent.transport.marks import RECORD
from tshrag_agent.transport.serial_shell import SerialTransport
from tshrag_agent.transport.serial_way import SerialWay
from tshrag_common.errors import LabError, shown
from tshrag_common.ids import DutId, Fence

logger = logging.getLogger(__name__)

OPEN_S = 10.0
_QUIET_S = 1.5
_ANSWER_S = 2.0
_PROBE_S = 10.0
_AGAIN_S = 1.0


@dataclass(frozen=True)
class Parts:
    """What a board is made of."""

    dut: DutId
    way: BootWay
    power: PowerSwitch
    can_power: bool
    console: SerialConsole | None = None
    serial: SerialTransport | None = None
    serial_way: SerialWay | None = None
    reach: Callable[[], DutTransport] | None = None  # a way to a shell that is no console


class Board:
    """One DUT; one thing at a time, whoever asks."""

    def __init__(self, parts: Parts, moves: tuple[Move, ...] | None = None) -> None:
        self.parts = parts
        shell = parts.serial is not None or parts.reach is not None
        self.means = Means(power=parts.can_power, console=parts.console is not None, shell=shell)
        self.graph: Graph = strategy.graph(
            strategy.moves_of(parts.way, self.means) if moves is None else moves
        )
        self.death = death_of(parts.way.death)
        self._turn = asyncio.Lock()
        self._watcher: Watcher | None = None
        self._user = ""
        self.pending = b""
        """What a talk has heard and not used yet."""

    @property
    def where(self) -> str:
        return self.parts.dut

    def used_by(self, user: str) -> None:
        """Say who has the board from now on: what was said to another is not heard any more."""
        if user != self._user:
            self._user = user
            self._listen_anew()

    def _listen_anew(self) -> None:
        self.pending = b""
        if self._watcher is not None:
            self._watcher.close()
        console = self.parts.console
        self._watcher = console.follow() if console is not None else None

    @asynccontextmanager
    async def talk(self, fence: Fence, *, on: bool = False) -> AsyncIterator[Dialogue]:
        """Give the console; with `on`, all that it said since the last talk of the same user.

        Raises:
            TransportFailed: no_console, serial_*.
            StaleFence: somebody else has it.

        """
        parts = self.parts
        if parts.console is None or parts.serial is None or parts.serial_way is None:
            raise TransportFailed("no_console", self.where, "it has no console", "add [dut.serial]")
        async with parts.serial.alone(fence) as driver:
            watcher = self._watcher if on else None
            with Dialogue(parts.console, driver, parts.serial_way.pace, watcher) as talk:
                yield talk

    async def to(self, goal: str, fence: Fence, hear: Hear, *, fresh: bool = False) -> list[str]:
        """Bring the board to `goal` and return the states it went through.

        A try that fails begins anew without power, where the board has a switch for that.

        Raises:
            DutFailed: it did not come there: ``boot_failed``, ``console_death``.
            Refused: there is no such state, or no way to it.
            TransportFailed: power or console failed.

        """
        strategy.route(self.graph, OFF if self.means.power else UNKNOWN, goal, self.where)
        async with self._turn:
            for left in reversed(range(self.parts.way.tries if self.means.power else 1)):
                try:
                    async with asyncio.timeout(self.parts.way.timeout_s):
                        return await self._travel(goal, fence, hear, fresh)
                except (DutFailed, TransportFailed, TimeoutError) as error:
                    failure = self._failure(error, goal)
                    if not left:
                        raise failure from None
                    logger.info("a boot failed", extra={"dut": self.where, "why": failure.line})
                    hear(f"\r\n[tshrag: {failure.line}; once more]\r\n".encode())
                    fresh = True
        raise AssertionError("the last try returns or raises")

    async def look(self, fence: Fence) -> str:
        """Return the state that the board is in, as far as it can be seen from outside."""
        if self.means.power and await self.parts.power.status() == "off":
            return OFF
        if self.parts.console is None:
            return SHELL if await self._is_reached() else UNKNOWN
        try:
            await self.parts.console.opened(OPEN_S)
        except TransportFailed:
            return UNKNOWN
        async with self.talk(fence) as talk:
            return await self._seen(talk)

    def _failure(self, error: LabError | TimeoutError, goal: str) -> LabError:
        if isinstance(error, TimeoutError):
            what = f"{goal} was not reached in {self.parts.way.timeout_s:g} s"
            return DutFailed(self.where, what, "see boot.timeout_s", code="boot_failed")
        if isinstance(error, TransportFailed) and error.code in ("boot_failed", "console_login"):
            return DutFailed(self.where, error.what, error.fix, code="boot_failed")
        return error

    async def _travel(self, goal: str, fence: Fence, hear: Hear, fresh: bool) -> list[str]:
        power, console = self.parts.power, self.parts.console
        if fresh and self.means.power:
            await power.off()
        here = await guarded(console, self.look(fence), hear=hear)
        way = [here]
        for move in strategy.route(self.graph, here, goal, self.where):
            work = self._make(move, fence, hear)
            await guarded(console, work, hear=hear, death=self.death)
            way.append(move.to)
        self._listen_anew()
        return way

    async def _make(self, move: Move, fence: Fence, hear: Hear) -> None:
        if self.parts.console is None:
            for act in move.acts:
                await self._act_blind(act, hear)
            return
        async with self.talk(fence) as talk:
            for act in move.acts:
                await self._act(act, talk, hear)

    async def _act(self, act: Act, talk: Dialogue, hear: Hear) -> None:
        loader = self.parts.way.bootloader
        match act.kind:
            case "interrupt" | "prepare" | "bootloader" if loader is None:
                raise TransportFailed("boot_failed", self.where, "it has no [dut.boot.bootloader]")
            case "interrupt" if loader is not None:
                await Bootloader(talk, loader).interrupt()
            case "prepare" if loader is not None:
                await Bootloader(talk, loader).prepare()
            case "bootloader" if loader is not None:
                await Bootloader(talk, loader).run(act.bootloader or "")
            case "login":
                await self._log_in(talk)
            case "send":
                await talk.type((act.send or "").encode())
            case "expect":
                await self._expect(talk, act.expect or "")
            case _:
                await self._act_blind(act, hear)

    async def _act_blind(self, act: Act, hear: Hear) -> None:
        """Do what needs no console."""
        match act.kind:
            case "power":
                switch: dict[str, Callable[[], Awaitable[None]]] = {
                    "on": self.parts.power.on,
                    "off": self.parts.power.off,
                    "cycle": self.parts.power.cycle,
                }
                await switch[act.power or "cycle"]()
            case "wait_s":
                await asyncio.sleep(act.wait_s or 0.0)
            case "command":
                await run_command(act.command or (), self.where, self.parts.way.timeout_s, hear)
            case "login":
                await self._reached()
            case kind:
                what = f"{kind} needs a console"
                raise TransportFailed("no_console", self.where, what, "add [dut.serial]")

    async def _expect(self, talk: Dialogue, source: str) -> None:
        matcher = Matcher([Regex(name="expected", source=source.encode())])
        if await talk.expect(matcher, self.parts.way.timeout_s) is None:
            what = f"{shown(source)} has not come"
            raise TransportFailed("boot_failed", self.where, what)

    async def _log_in(self, talk: Dialogue) -> None:
        """Wait for a sign that the system is up, typing nothing: a newline stops a bootloader."""
        way = self.parts.serial_way
        if way is None:
            return await self._reached()
        signs = [Regex(name="login", source=way.login.login_prompt.encode())]
        signs += [Regex(name="up", source=self.parts.way.up.encode())] if self.parts.way.up else []
        await talk.expect(Matcher(signs), self.parts.way.quiet_s)
        return await log_in(talk, way.login, await read_password(way.login, self.where))

    async def _reached(self) -> None:
        """Wait until the other way to a shell leads to it."""
        ends = time.monotonic() + self.parts.way.timeout_s
        while not await self._is_reached():
            if time.monotonic() > ends:
                what = f"it is not reached within {self.parts.way.timeout_s:g} s"
                raise TransportFailed("boot_failed", self.where, what)
            await asyncio.sleep(_AGAIN_S)

    async def _is_reached(self) -> bool:
        if self.parts.reach is None:
            return False
        try:
            await self.parts.reach().probe(timeout_s=_PROBE_S)
        except TransportFailed as error:
            if error.quarantines:
                raise
            return False
        return True

    async def _seen(self, talk: Dialogue) -> str:
        """Listen until it is silent, then wake it: who answers?"""
        nonce = secrets.token_hex(8)
        patterns = self._signs(nonce)
        match = await talk.expect(Matcher(patterns), _QUIET_S)
        question = f"printf '\\036%s\\036\\n' {nonce}"
        for typed in ("", question, question):
            matcher = Matcher(patterns)
            if match is not None and await talk.hear(0.3) is not None:
                match = None  # it goes on talking: that was no prompt
            if match is not None:
                break
            await talk.type(typed.encode() + b"\r")
            match = await talk.expect(matcher, _ANSWER_S)
        if match is None:
            return UNKNOWN
        return match.name

    def _signs(self, nonce: str) -> list[Regex | Literal]:
        loader, way = self.parts.way.bootloader, self.parts.serial_way
        signs: list[Regex | Literal] = [Literal(name=SHELL, text=RECORD + nonce.encode() + RECORD)]
        if loader is not None:
            signs.append(Regex(name=BOOTLOADER, source=loader.prompt.encode()))
        if way is not None:
            signs.append(Regex(name=LOGIN, source=way.login.login_prompt.encode()))
        return signs
