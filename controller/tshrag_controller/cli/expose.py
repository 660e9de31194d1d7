"""``tshrag expose``: a console as a TCP port of this machine, for any serial tool."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import click

from tshrag_common.channel.console_words import SendBreak, SetLine, Status
from tshrag_common.client import Client
from tshrag_common.errors import Refused
from tshrag_common.rfc2217 import PortState, escaped
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.console_copy import Ended, ending_together, tell
from tshrag_controller.cli.console_seat import Seat, Wishes, seated
from tshrag_controller.cli.context import Connection
from tshrag_controller.cli.rfc2217 import PortServer, ToBoard, ToLine

_CLIENT_BYTES = 1 << 20
"""What a client may lag behind before it is cut off: the others must not wait for it."""


@options.command(
    examples=(
        "tshrag expose rpi4-1 console --tcp 5000               # nc, socat, telnet localhost 5000",
        "tshrag expose rpi4-1 console --tcp 5000 --rfc2217     # pyserial: rfc2217://localhost:5000",
    )
)
@click.argument("dut")
@click.argument("what", type=click.Choice(["console"]))
@click.option("--tcp", "address", required=True, metavar="[HOST:]PORT", help="Listen here.")
@click.option("--rfc2217", is_flag=True, help="With speed, parity, break: rfc2217://.")
@click.option("--watch", is_flag=True, help="Only show; take no lease.")
@click.option("--for", "for_s", type=options.Seconds(), default="2h", help="Lease, renewed.")
@options.in_lab
def expose(
    connection: Connection,
    dut: str,
    what: str,
    address: str,
    rfc2217: bool,
    watch: bool,
    for_s: float,
) -> None:
    """Listen on a port of this machine and be the console of DUT there.

    Whoever can reach the port can type: it is on 127.0.0.1 unless a host is named. Every client
    sees all that the board says. The lease is taken if you do not have it, and given back.
    """
    host, port = _address(address)
    wishes = Wishes(dut=dut, writes=not watch, must_write=not watch, for_s=for_s)
    try:
        ask(connection, lambda lab: exposed(lab, wishes, host, port, rfc2217, render.note))
    except KeyboardInterrupt:
        render.note("closed")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 <= int(port) < 65536:
        raise Refused("--tcp", f"{text!r} is no [HOST:]PORT", code="usage")
    return host.strip("[]") or "127.0.0.1", int(port)


async def exposed(
    lab: Client, wishes: Wishes, host: str, port: int, rfc2217: bool, say: Callable[[str], None]
) -> None:
    """Serve a console on a port until interrupted, or until it is taken away."""
    async with seated(lab, wishes) as seat:
        status = await seat.greeted()
        door = _Door(seat, status, rfc2217)
        try:
            server = await asyncio.start_server(door.serve, host, port)
        except OSError as error:
            raise Refused(f"{host}:{port}", str(error.strerror), code="listen") from None
        told = server.sockets[0].getsockname()
        kind = "rfc2217://" if rfc2217 else "tcp://"
        say(f"console of {wishes.dut}: {kind}{told[0]}:{told[1]}")
        try:
            async with ending_together() as group:
                group.create_task(door.pump())
        finally:
            server.close()
            door.close()


class _Door:
    """The clients of one port."""

    def __init__(self, seat: Seat, status: Status | None, rfc2217: bool) -> None:
        self._seat, self._rfc2217 = seat, rfc2217
        self._state = status.state if status else PortState()
        self._clients: set[asyncio.StreamWriter] = set()

    async def pump(self) -> None:
        """Give every client what the board says."""
        while (said := await self._seat.next()) is not None:
            if not isinstance(said, bytes):
                tell(said, self._seat.me)
                continue
            data = escaped(said) if self._rfc2217 else said
            for client in list(self._clients):
                self._send(client, data)
        raise Ended

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hear one client until it leaves."""
        port = PortServer(self._state) if self._rfc2217 else None
        if port is not None:
            writer.write(port.greeting())
        self._clients.add(writer)
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._hear(data, port, writer)
        self._drop(writer)

    def close(self) -> None:
        for client in list(self._clients):
            self._drop(client)

    async def _hear(
        self, data: bytes, port: PortServer | None, writer: asyncio.StreamWriter
    ) -> None:
        if port is None:
            await self._type(data)
            return
        for heard in port.feed(data):
            if isinstance(heard, ToBoard):
                await self._type(heard.data)
            elif not self._seat.watching:
                await self._order(heard)
        if port.replies:
            writer.write(bytes(port.replies))
            port.replies.clear()

    async def _order(self, heard: ToLine) -> None:
        if heard.what == "break":
            await self._seat.order(SendBreak())
        else:
            self._state = heard.state  # for the clients that come
            await self._seat.order(SetLine(state=heard.state))

    async def _type(self, data: bytes) -> None:
        if not self._seat.watching:
            await self._seat.type(data)

    def _send(self, client: asyncio.StreamWriter, data: bytes) -> None:
        if client.transport.get_write_buffer_size() > _CLIENT_BYTES:
            click.echo("a client was too slow and is cut off", err=True)
            self._drop(client)
            return
        client.write(data)

    def _drop(self, client: asyncio.StreamWriter) -> None:
        self._clients.discard(client)
        client.transport.abort()
