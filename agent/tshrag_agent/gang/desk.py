"""The socket of one job of a gang: ``tshrag-sync`` asks here, a line of JSON each way.

    {"do": "barrier", "call": "9f..", "name": "ready", "roles": ["near", "far"], "timeout_s": 30}
    {"ok": true}      or      {"code": "sync_timeout", "message": "barrier ready: far has not come"}

``call`` names a call: asked again after its connection broke, with the same name, it gets the same
answer and does nothing twice. Nothing waits longer than the job may take.
"""

import asyncio
import binascii
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from tshrag_agent.gang.box import Box
from tshrag_agent.gang.mailbox import Mailbox, MailboxFull, Received
from tshrag_common.errors import DeadlineExceeded, ErrorReport, LabError, Refused
from tshrag_common.gang_messages import MAX_VALUE_BYTES, Name, Note, Role

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 160 << 10
MAX_CONNECTIONS = 32
_LOOK_S = 1.0

Call = Annotated[str, Meta(min_length=1, max_length=64)]
R = TypeVar("R")


class Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``tshrag-sync`` asks; ``value`` is base64."""

    do: Literal["barrier", "send", "recv", "wait", "roles"]
    call: Call
    name: Name = "-"
    roles: tuple[Role, ...] = ()
    value: str = ""
    timeout_s: Annotated[float, Meta(ge=0)] | None = None


class Message(msgspec.Struct, frozen=True):
    """A message as it is handed out; ``value`` is base64."""

    role: str
    value: str


class RoleRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who is who."""

    role: str
    job: str
    host: str
    dut: str = ""
    address: str = ""
    state: str = ""  # self, starting, here, deaf: it runs on its DUT, or how it ended


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What comes back where all is well."""

    ok: bool
    messages: tuple[Message, ...] = ()
    roles: tuple[RoleRow, ...] = ()


_ASKS = msgspec.json.Decoder(Ask)
_ENCODER = msgspec.json.Encoder()


class Desk:
    """Serves the calls of one job; `limit_s` bounds every one of them."""

    def __init__(self, box: Box, limit_s: float, sent: Callable[[], None]) -> None:
        self._box, self._limit_s, self._sent = box, limit_s, sent
        self._server: asyncio.Server | None = None
        self._open = set[asyncio.StreamWriter]()

    async def open(self, path: str) -> None:
        """Listen at `path`; for the owner of the agent only, as everything of a job."""
        self._server = await asyncio.start_unix_server(self._serve, path, limit=MAX_LINE_BYTES)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.transport.abort()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._open.add(writer)
        try:
            while line := await reader.readline():
                writer.write(await self.answered(line) + b"\n")
                await writer.drain()
        except (OSError, ValueError):  # it has gone, or its line is too long
            logger.debug("a call of a job was cut off")
        finally:
            self._open.discard(writer)
            writer.close()

    async def answered(self, line: bytes) -> bytes:
        """Return the answer to a call, both as JSON."""
        return _ENCODER.encode(await self._answered(line))

    async def _answered(self, line: bytes) -> Answer | ErrorReport:
        try:
            ask = _ASKS.decode(line)
            await self._box.keep_pace()
            return await self._answer(ask)
        except msgspec.DecodeError as error:
            return ErrorReport(code="sync_call", message=str(error))
        except LabError as error:
            return error.report()
        except Exception:  # a bug of ours ends this call and nothing else
            logger.exception("a call of a job failed")
            return ErrorReport(code="internal", message="a bug of ours; the agent's log has it")

    async def _answer(self, ask: Ask) -> Answer:
        match ask.do:
            case "barrier":
                await self._barrier(ask)
                return Answer(ok=True)
            case "send":
                await self._send(ask)
                return Answer(ok=True)
            case "recv" | "wait":
                taken = await self._receive(ask)
                found = (Message(each.role, _base64(each.value)) for each in taken)
                return Answer(ok=True, messages=tuple(found))
            case "roles":
                return Answer(ok=True, roles=tuple(_rows(self._box.mailbox)))

    async def _barrier(self, ask: Ask) -> None:
        box = self._box.mailbox
        roles = _in_order(box, {box.role, *(ask.roles or box.others)})

        async def look() -> bool | None:
            try:
                if await self._box.do(lambda box: box.come(ask.call, ask.name, roles)):
                    self._sent()
            except MailboxFull:
                return None
            ended = self._box.ended
            met = await self._box.do(lambda box: box.met(ask.call, ask.name, ended))
            return None if met is None else True

        def late() -> str:
            return f"barrier {ask.name}: {', '.join(box.absent(ask.name))} has not come"

        await self._wait(ask, look, late)

    async def _send(self, ask: Ask) -> None:
        box = self._box.mailbox
        note = Note(key=ask.name, value=_bytes(ask.value))
        roles = box.others if ask.roles == ("all",) else ask.roles
        if not roles:
            raise Refused("", "to nobody", "name a role, or all", code="sync_role")

        async def look() -> bool | None:
            try:
                await self._box.do(lambda box: box.send(ask.call, roles, note))
            except MailboxFull:
                return None
            self._sent()
            return True

        await self._wait(ask, look, lambda: f"message {ask.name}: too many are on their way")

    async def _receive(self, ask: Ask) -> tuple[Received, ...]:
        box = self._box.mailbox
        roles = ask.roles or box.others

        async def look() -> tuple[Received, ...] | None:
            ended = self._box.ended
            taken = await self._box.do(
                lambda box: box.take(ask.call, ask.name, roles, ended, ask.do == "wait")
            )
            return None if taken is None else box.given(ask.call)

        def late() -> str:
            return f"message {ask.name}: none has come from {', '.join(roles)}"

        return await self._wait(ask, look, late)

    async def _wait(
        self, ask: Ask, look: Callable[[], Awaitable[R | None]], late: Callable[[], str]
    ) -> R:
        """Look until there is an answer, at every change; at most as long as was asked for."""
        asked_s = self._limit_s if ask.timeout_s is None else ask.timeout_s
        ends = asyncio.get_running_loop().time() + min(asked_s, self._limit_s)
        while True:
            change = self._box.next_change()
            found = await look()
            if found is not None:
                return found
            left_s = ends - asyncio.get_running_loop().time()
            if left_s <= 0:
                raise DeadlineExceeded("", late(), "see what it does", code="sync_timeout")
            if self._box.has_ending:
                left_s = min(left_s, _LOOK_S)
            try:
                async with asyncio.timeout(left_s):
                    await change.wait()
            except TimeoutError:
                pass


def _in_order(box: Mailbox, roles: set[str]) -> tuple[str, ...]:
    """Return roles in one order, that of the plan; what is none stays, and is refused later."""
    known = [mate.role for mate in box.opened.mates]
    return tuple(sorted(roles, key=lambda role: (known.index(role) if role in known else -1, role)))


def _rows(box: Mailbox) -> list[RoleRow]:
    rows: list[RoleRow] = []
    for mate in box.opened.mates:
        line = box.lines.get(mate.fence)
        here = line.here if line is not None else box.here
        state = _state(line.over, here is not None, box.is_deaf(mate.role)) if line else "self"
        address = here.address if here is not None else ""
        rows.append(RoleRow(mate.role, mate.job, mate.agent, mate.dut or "", address, state))
    return rows


def _state(over: str, has_begun: bool, is_deaf: bool) -> str:
    if over:
        return over
    return "deaf" if is_deaf else "here" if has_begun else "starting"


def _base64(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode()


def _bytes(text: str) -> bytes:
    try:
        value = binascii.a2b_base64(text)
    except binascii.Error as error:
        raise Refused("", f"value: {error}", "send it as base64", code="sync_call") from None
    if len(value) > MAX_VALUE_BYTES:
        what = f"a message of {len(value)} bytes; at most {MAX_VALUE_BYTES}"
        raise Refused("", what, "send a path, or less", code="sync_size")
    return value
