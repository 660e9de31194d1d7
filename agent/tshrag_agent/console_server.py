"""Consoles for people: any number watch, one writes, and every byte typed needs the lease.

The fence of a channel is looked at before each write and each byte shown: the end of a lease, or
a new holder of another org, ends the channel. Detaching ends nothing on the line.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec.structs import replace

from tshrag_agent.leases import Leases
from tshrag_agent.transport.base import PowerSwitch, TransportFailed
from tshrag_agent.transport.console import Driver, Pace, SerialConsole
from tshrag_agent.transport.console_records import Record, Watcher
from tshrag_common.channel.channel import Channel
from tshrag_common.channel.console_words import (
    AskStatus,
    Failed,
    Happened,
    Order,
    Power,
    SendBreak,
    SetBaud,
    SetLine,
    SetPace,
    Status,
    Told,
    order_of,
    spoken,
)
from tshrag_common.channel.wants import ConsoleWant
from tshrag_common.commands import ServeChannel
from tshrag_common.errors import ErrorReport, LabError, NotFound, PolicyDenied
from tshrag_common.escapes import shown_again
from tshrag_common.ids import DutId, Fence, OrgId

TYPE_S = 20.0
SCROLLBACK_MOST = 256 << 10
_BATCH_BYTES = 32 << 10


class Signed(Protocol):
    """What a console has been seen to say of its DUT."""

    @property
    def boot(self) -> int: ...

    @property
    def last(self) -> str: ...


class _Detached(Exception):
    """Ends the two halves of an attached console."""


class ConsoleServer:
    """Serves the consoles of one agent."""

    def __init__(
        self,
        consoles: Mapping[DutId, SerialConsole],
        leases: Leases,
        *,
        holder: Callable[[DutId], OrgId | None],
        signs: Callable[[DutId], Signed | None],
        power: Callable[[DutId], PowerSwitch],
    ) -> None:
        self._consoles, self._leases, self._holder = consoles, leases, holder
        self._signs, self._power = signs, power
        self._attached: dict[Channel, ServeChannel] = {}
        leases.on_end(self._on_end)

    async def serve(self, channel: Channel, command: ServeChannel, want: ConsoleWant) -> None:
        """Show the console until the person leaves, or may not any more.

        Raises:
            LabError: there is no such console, or another org has the DUT.

        """
        dut = command.dut
        console = self._consoles.get(dut) if dut is not None else None
        if dut is None or console is None:
            raise NotFound("console", str(dut), self._consoles)
        self._attached[channel] = command
        try:
            await _Attached(self, channel, command, console, want).live()
        finally:
            del self._attached[channel]
            self._release(console, command)

    def check(self, command: ServeChannel, dut: DutId) -> None:
        """Raise where this person may not see the console now."""
        if command.fence:
            self._leases.check(dut, command.fence)
            return
        hold = self._leases.of(dut)
        org = hold.org if hold else self._holder(dut)
        me = f"{command.org}/{command.person}"
        if org in (None, command.org) or (hold and {me, command.org} & {*hold.shared}):
            return
        raise PolicyDenied(f"dut {dut}", "another org has it", code="not_holder")

    def check_write(self, command: ServeChannel, dut: DutId) -> None:
        if not command.fence:
            fix = f"tshrag lease take {dut}"
            raise PolicyDenied(f"dut {dut}", "writing takes its lease", fix, code="no_lease")
        self._leases.check(dut, command.fence)
        self._leases.use(dut)

    def status(self, dut: DutId, console: SerialConsole) -> Status:
        signs = self._signs(dut)
        return Status(
            line=console.settings.where,
            baud=console.settings.speed,
            trouble=console.trouble,
            writer=console.driver.author if console.driver else "",
            watchers=console.watchers,
            rx_bytes=console.rx_bytes,
            tx_bytes=console.tx_bytes,
            boots=signs.boot if signs else 0,
            last_sign=signs.last if signs else "",
            state=console.settings.state,
        )

    async def switch(self, dut: DutId, what: str) -> None:
        switch = self._power(dut)
        match what:
            case "on":
                await switch.on()
            case "off":
                await switch.off()
            case _:
                await switch.cycle()

    def _on_end(self, dut: DutId, fence: Fence, why: str) -> None:
        for channel, command in self._attached.items():
            if command.dut == dut and command.fence == fence:
                message = f"{dut}: the lease is over: {why}"
                channel.close(ErrorReport(code="lease_over", message=message))

    def _release(self, console: SerialConsole, command: ServeChannel) -> None:
        """Give up the right to write, unless the same person has the console open elsewhere."""
        driver = console.driver
        if driver is None or driver.fence != command.fence or driver.author != author_of(command):
            return
        others = (
            each
            for each in self._attached.values()
            if (each.dut, each.fence) == (command.dut, command.fence)
            and author_of(each) == driver.author
        )
        if next(others, None) is None:
            driver.release()


class _Attached:
    """One person at one console."""

    def __init__(
        self,
        server: ConsoleServer,
        channel: Channel,
        command: ServeChannel,
        console: SerialConsole,
        want: ConsoleWant,
    ) -> None:
        self._server, self._channel, self._command = server, channel, command
        self._console, self._want = console, want
        self._dut = command.dut or DutId("")
        self._pace: Pace | None = None
        self._told_dropped = 0

    async def live(self) -> None:
        self._server.check(self._command, self._dut)
        watcher = self._console.follow()
        failure: LabError | None = None
        try:
            await self._greet()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear(), name="console keys")
                group.create_task(self._show(watcher), name="console bytes")
        except* _Detached:
            pass
        except* LabError as failed:
            failure = _first(failed)
        finally:
            watcher.close()
        if failure is not None:
            raise failure

    async def _greet(self) -> None:
        await self._tell(self._server.status(self._dut, self._console))
        most = min(self._want.scrollback_bytes, SCROLLBACK_MOST)
        if most > 0:
            tail = self._console.ring.tail(most)
            await self._channel.write(tail if self._want.exact else shown_again(tail))

    async def _show(self, watcher: Watcher) -> None:
        while True:
            records = [await watcher.next()]
            size = len(records[0].data)
            while watcher.waiting and size < _BATCH_BYTES:
                records.append(await watcher.next())
                size += len(records[-1].data)
            self._server.check(self._command, self._dut)
            await self._show_records(records)
            if watcher.dropped_bytes > self._told_dropped:
                cut = watcher.dropped_bytes - self._told_dropped
                self._told_dropped = watcher.dropped_bytes
                text = f"{cut} bytes were not shown: the way to you is too slow; the log has them"
                await self._tell(Happened(at=records[-1].at, text=text))

    async def _show_records(self, records: list[Record]) -> None:
        waiting: list[bytes] = []
        for record in records:
            if record.direction == "rx":
                waiting.append(record.data)
            elif record.direction == "event":
                if waiting:
                    await self._channel.write(b"".join(waiting))
                    waiting.clear()
                text = record.data.decode("utf-8", "replace")
                await self._tell(Happened(at=record.at, text=text, author=record.author))
        if waiting:
            await self._channel.write(b"".join(waiting))

    async def _hear(self) -> None:
        while (piece := await self._channel.read()) is not None:
            try:
                if piece.kind == "word":
                    await self._obey(order_of(piece.data))
                else:
                    await self._driver().write(piece.data, timeout_s=TYPE_S, pace=self._pace)
            except TransportFailed as failed:  # the line may come back
                await self._tell(Failed(line=failed.line))
        await self._channel.gone()  # who types no more may still watch
        raise _Detached

    async def _obey(self, order: Order) -> None:
        match order:
            case AskStatus():
                await self._tell(self._server.status(self._dut, self._console))
            case SetPace(chunk_bytes=chunk, delay_s=delay_s):
                self._pace = Pace(chunk_bytes=chunk, delay_s=delay_s)
            case SendBreak(duration_s=duration_s):
                await self._driver().send_break(duration_s)
            case SetBaud(baud=baud):
                state = replace(self._console.settings.state, baud=baud)
                await self._console.configure(self._driver(), state)
            case SetLine(state=state):
                await self._console.configure(self._driver(), state)
            case Power(what=what):
                driver = self._driver()
                self._console.note(f"power {what}", driver.author)
                await self._server.switch(self._dut, what)

    def _driver(self) -> Driver:
        """Return the right to write; raise where it is somebody else's by now."""
        self._server.check_write(self._command, self._dut)
        command = self._command
        take, self._want = self._want.take, _without_take(self._want)
        return self._console.drive(command.fence, author_of(command), take=take)

    async def _tell(self, told: Told) -> None:
        await self._channel.say(spoken(told))


def _first(group: BaseExceptionGroup[LabError]) -> LabError:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def author_of(command: ServeChannel) -> str:
    return f"{command.org}/{command.person}"


def _without_take(want: ConsoleWant) -> ConsoleWant:
    return replace(want, take=False)
