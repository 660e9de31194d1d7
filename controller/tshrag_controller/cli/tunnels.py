"""SSH and ports of boards: a pipe for OpenSSH, a listening port, the entries of ssh_config."""

import asyncio
import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from tshrag_common.board_client import BoardClient, Via, boards_of
from tshrag_common.channel.channel import Channel, ChannelClosed
from tshrag_common.channel.wants import SshFacts
from tshrag_common.client import Client
from tshrag_common.errors import LabError, Refused
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.context import Connection
from tshrag_controller.reports.text import clean, clean_lines

READ_BYTES = 64 << 10
_SSH_VALUED = "BbcDEeFIiJLlmOoPpQRSWw"
"""The options of OpenSSH's client that have a value."""
_VIA: Mapping[str, Via] = {"auto": "auto", "tcp": "tcp", "ssh": "ssh"}


@options.command(
    examples=(
        "tshrag forward pi-7 22 --stdio              # ProxyCommand tshrag forward %h 22 --stdio",
        "tshrag forward pi-7 1234 --local 1234       # then: gdb -ex 'target remote :1234'",
        "tshrag forward pi-7 8080 --via ssh          # what listens on 127.0.0.1 of the board",
    )
)
@click.argument("dut")
@click.argument("port", type=click.IntRange(1, 65535))
@click.option("--stdio", is_flag=True, help="One connection: stdin and stdout.")
@click.option("--local", type=click.IntRange(0, 65535), default=0, help="Listen here; 0: any port.")
@click.option("--via", type=click.Choice(tuple(_VIA)), default="auto", help="How it is reached.")
@options.in_lab
def forward(connection: Connection, dut: str, port: int, stdio: bool, local: int, via: str) -> None:
    """Reach a TCP port of a board from here; takes its lease. Port 22 is its SSH server."""

    async def work(lab: Client) -> None:
        async with boards_of(lab) as boards:
            if stdio:
                async with boards.forward(dut, port, _VIA[via]) as channel:
                    await over_stdio(channel)
            else:
                await listen(boards, dut, port, _VIA[via], local)

    with contextlib.suppress(KeyboardInterrupt):
        ask(connection, work)


async def over_stdio(channel: Channel) -> None:
    """Carry stdin and stdout, each to its own end."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=4 * READ_BYTES)
    try:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        transport, protocol = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, sys.stdout
        )
    except ValueError:
        what = "stdin and stdout must be pipes, sockets or a terminal"
        raise Refused("--stdio", what, "put '| cat' behind it", code="stdio") from None
    await carry(channel, reader, asyncio.StreamWriter(transport, protocol, None, loop))


async def listen(boards: BoardClient, dut: str, port: int, via: Via, local: int) -> None:
    """Give each connection to a local port a channel of its own, for ever."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with boards.forward(dut, port, via) as channel:
                await carry(channel, reader, writer)
        except LabError as error:
            click.echo(clean_lines(error.line), err=True)
        except (OSError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(serve, "127.0.0.1", local, limit=4 * READ_BYTES)
    except OSError as error:
        where = f"127.0.0.1:{local}"
        what = (error.strerror or str(error)).lower()
        raise Refused(where, what, "name another --local", code="port") from None
    async with server:
        number = server.sockets[0].getsockname()[1]
        render.note(f"127.0.0.1:{number} is port {port} of {dut}, until Ctrl-C")
        await server.serve_forever()


async def carry(
    channel: Channel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Carry bytes both ways; over when the far side has ended, and what it said is out."""
    sending = asyncio.create_task(_send(channel, reader), name="to the board")
    try:
        while (piece := await channel.read()) is not None:
            writer.write(piece.data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()
        with contextlib.suppress(ChannelClosed):  # the far side has ended: the rest is not wanted
            await sending
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _send(channel: Channel, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(READ_BYTES):
        await channel.write(data)
    await channel.finish()
    await channel.flushed()


@options.command(
    examples=(
        "tshrag ssh pi-7",
        "tshrag ssh pi-7 uname -a",
        "tshrag ssh pi-7 -- -L 8080:localhost:80     # what begins with '-' goes to ssh",
        "tshrag ssh pi-7 -- -t top                   # and a command behind it to the board",
    )
)
@click.argument("dut")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.option("--user", default="", help="Log in as somebody else.")
@options.in_lab
def ssh(connection: Connection, dut: str, words: Sequence[str], user: str) -> None:
    """Log in to a board with OpenSSH, through the lab; takes its lease.

    Your own keys are used, as always; the host key is the one that is pinned in the lab.
    """
    if shutil.which("ssh") is None:
        raise Refused("ssh", "OpenSSH is not here", "install openssh-client", code="file")
    facts = ask(connection, lambda lab: _facts(lab, dut))
    lines = _entry(connection, dut, facts, user or facts.user, known_hosts({dut: facts}))
    own, command = split_options(words)
    sys.stdout.flush()
    os.execvp("ssh", ["ssh", "-F", "none", *(f"-o{line}" for line in lines), *own, dut, *command])


def split_options(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return what is for ssh itself, and the command behind that."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        word = words[at]
        at += 1
        if word == "--":
            return words[: at - 1], words[at:]
        valued = next((n for n, letter in enumerate(word) if letter in _SSH_VALUED), 0)
        at += bool(valued) and valued == len(word) - 1  # its value is the next word
    return words[:at], words[at:]


async def _facts(lab: Client, dut: str) -> SshFacts:
    async with boards_of(lab) as boards:
        return await boards.ssh_facts(dut)


@options.command(
    "ssh-config",
    examples=(
        "tshrag ssh-config > ~/.ssh/tshrag.conf      # 'Include tshrag.conf' in ~/.ssh/config",
        "tshrag ssh-config pi-7 > lab.conf && scp -F lab.conf image.bin pi-7:",
    ),
)
@click.argument("duts", nargs=-1)
@options.in_lab
def ssh_config(connection: Connection, duts: Sequence[str]) -> None:
    """Print the ssh_config entries of boards (all that have SSH), with their pinned keys.

    The keys go to a file of yours beside; write the entries anew when a board got a new key.
    """
    found = ask(connection, lambda lab: _all_facts(lab, duts))
    path = known_hosts(found)
    for dut, facts in found.items():
        click.echo(f"Host {dut}")
        for line in _entry(connection, dut, facts, facts.user, path):
            click.echo("    " + line.replace("=", " ", 1))
        click.echo()


async def _all_facts(lab: Client, duts: Sequence[str]) -> dict[str, SshFacts]:
    known = [row.dut for row in (await lab.duts()).duts]
    names = duts or [dut.id for dut in known if "ssh" in dut.transports]
    async with boards_of(lab) as boards:
        return {name: await boards.ssh_facts(name) for name in names}


def known_hosts(found: Mapping[str, SshFacts]) -> Path:
    """Write the pinned keys of `found` beside those that are known; return the file."""
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    path = Path(home).expanduser() / "tshrag" / "known_hosts"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = path.read_text().splitlines() if path.exists() else []
    lines = [line for line in kept if _host_of(line) not in found]
    for dut, facts in found.items():
        for key in facts.host_keys:
            marker, _, rest = key.partition(" ") if key.startswith("@") else ("", "", key)
            lines.append(clean(" ".join(filter(None, (marker, dut, rest)))))
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text("".join(f"{line}\n" for line in lines))
    fresh.replace(path)
    return path


def _host_of(line: str) -> str:
    words = line.split()
    return words[1] if words[:1] and words[0].startswith("@") else (words or [""])[0]


def _entry(
    connection: Connection, dut: str, facts: SshFacts, user: str, known: Path
) -> tuple[str, ...]:
    return (
        f"ProxyCommand={_proxy(connection)}",
        f"HostKeyAlias={dut}",
        f'UserKnownHostsFile="{known}"',
        "GlobalKnownHostsFile=none",
        "StrictHostKeyChecking=yes",
        f"User={clean(user)}",
    )


def _proxy(connection: Connection) -> str:
    """Return the words that lead here again, into the same lab."""
    words = [sys.executable, "-m", "tshrag_controller.cli.app", "forward", "%h", "22", "--stdio"]
    if connection.url.origin.startswith("--"):
        words += ["--url", connection.url.value]
    if connection.creds.origin.startswith("--"):
        words += ["--creds", str(Path(connection.creds.value).expanduser().absolute())]
    return " ".join(
        word if word.startswith("%") else shlex.quote(word).replace("%", "%%") for word in words
    )
