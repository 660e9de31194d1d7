import asyncio
import os
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.debian import need_program
from tests.support.serial_pty import started, wire
from tests.support.waiting import wait_until
from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.line import Line, LineSettings
from tshrag_agent.transport.serial import open_line

HOLDER = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
print("held", flush=True)
sys.stdin.read()
"""


class Ears:
    def __init__(self) -> None:
        self.data = bytearray()
        self.reasons = list[str]()

    def has(self, count: int) -> bool:
        return len(self.data) >= count

    async def open(self, url: str, baud: int = 115200) -> Line:
        return await open_line(
            LineSettings(url=url, baud=baud), self.data.extend, self.reasons.append
        )


@pytest.fixture
async def ears() -> AsyncIterator[Ears]:
    yield Ears()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_bytes_go_both_ways_on_either_loop(loop: str) -> None:
    async def talk() -> None:
        ears = Ears()
        with wire() as device:
            line = await ears.open(device.path)
            device.say(b"\x00\xff\r\nhello\x03\x04\x11\x13")
            await wait_until(lambda: bytes(ears.data) == b"\x00\xff\r\nhello\x03\x04\x11\x13")
            await line.write(b"all\x03\x04\x11\x13\x7f\n")
            await wait_until(lambda: device.heard() == b"all\x03\x04\x11\x13\x7f\n")
            line.close()

    if loop == "uvloop":
        import uvloop

        uvloop.run(talk())
    else:
        asyncio.run(talk())


async def test_closing_the_line_leaves_the_modem_lines_alone(ears: Ears) -> None:
    with wire() as device:
        line = await ears.open(device.path, baud=57600)
        attributes = termios.tcgetattr(device.fd)
        assert not attributes[2] & termios.HUPCL
        assert attributes[4] == termios.B57600
        line.close()
        assert ears.reasons == []


async def test_a_device_that_is_not_there_is_said_to_be_missing(ears: Ears, tmp_path: Path) -> None:
    for path in (tmp_path / "ttyUSB9", Path(__file__)):
        with pytest.raises(TransportFailed) as caught:
            await ears.open(str(path))
        assert caught.value.code == "serial_missing"
        assert str(path) in caught.value.line


async def test_the_holder_of_a_busy_port_is_named(ears: Ears) -> None:
    with wire() as device:
        command = [sys.executable, "-c", HOLDER, device.path]
        with started(*command) as holder:
            assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
            with pytest.raises(TransportFailed, match=rf"pid {holder.pid} python") as caught:
                await ears.open(device.path)
            assert caught.value.code == "serial_busy"


async def test_two_of_our_own_cannot_have_one_port(ears: Ears) -> None:
    with wire() as device:
        line = await ears.open(device.path)
        with pytest.raises(TransportFailed) as caught:
            await ears.open(device.path)
        assert caught.value.code == "serial_busy"
        line.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to become somebody else")
def test_a_forbidden_port_names_the_group_to_join() -> None:
    with wire() as device:
        Path(device.path).chmod(0o600)
        program = (
            "import asyncio, concurrent.futures.thread, os, sys\n"
            "from tshrag_agent.transport.line import LineSettings\n"
            "from tshrag_agent.transport.serial import open_line\n"
            "os.setgid(65534), os.setuid(65534)\n"
            "line = open_line(LineSettings(url=sys.argv[1]), print, print)\n"
            "try: asyncio.run(line)\n"
            "except Exception as error: print(error.line)\n"
        )
        said = subprocess.run(
            [sys.executable, "-c", program, device.path], capture_output=True, text=True, timeout=30
        )
        assert said.stdout.startswith(f"serial_perm: {device.path}: ")
        assert "add user to " in said.stdout


async def test_a_device_that_goes_away_ends_the_line_once(ears: Ears) -> None:
    with wire() as device:
        line = await ears.open(device.path)
        device.say(b"last words")
        await wait_until(lambda: ears.data == b"last words")
        device.unplug()
        await wait_until(lambda: ears.reasons)
        with pytest.raises(TransportFailed) as caught:
            await line.write(b"x")
        assert caught.value.code == "serial_lost"
        assert len(ears.reasons) == 1


async def test_a_flood_arrives_whole_and_the_loop_stays_free(ears: Ears) -> None:
    with wire() as device:
        line = await ears.open(device.path)
        rest, turns = memoryview(bytes(range(256)) * 8192), 0
        while rest:
            rest = rest[device.say(bytes(rest[:8192])) :]
            turns += 1
            await asyncio.sleep(0)
        await wait_until(lambda: len(ears.data) == 256 * 8192, within_s=30)
        assert bytes(ears.data) == bytes(range(256)) * 8192
        line.close()


async def test_a_key_ends_the_rest_of_a_line_that_flooded(
    ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its echo would wait for the next sip."""
    monkeypatch.setattr("tshrag_agent.transport.line.PAUSE_S", 1e6)  # a rest that never ends
    with wire() as device:
        line = await ears.open(device.path)
        for number in range(1, 5):
            device.say(b"x")
            await wait_until(partial(ears.has, number), within_s=30)
        device.say(b"echo")
        await line.write(b"k")
        await wait_until(lambda: bytes(ears.data) == b"xxxxecho", within_s=30)
        line.close()


async def test_a_device_that_reads_nothing_holds_up_only_the_writer(ears: Ears) -> None:
    with wire() as device:
        line = await ears.open(device.path)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await line.write(b"x" * 1_000_000)
        device.say(b"still heard")
        await wait_until(lambda: ears.data == b"still heard")
        line.close()


async def test_a_line_works_on_after_a_break(ears: Ears) -> None:
    with wire() as device:  # a pty shows no break: that one comes is seen on a virtual board
        line = await ears.open(device.path)
        await line.send_break(0.01)
        await line.write(b"behind it")
        await wait_until(lambda: device.heard() == b"behind it")
        line.close()


async def test_a_raw_tcp_port_is_a_line(ears: Ears) -> None:
    socat = need_program("socat", package="socat")
    with wire() as device:
        command = [socat, "-d", "-d", "TCP-LISTEN:0,bind=127.0.0.1", f"{device.path},raw,echo=0"]
        with started(*command) as process:
            line = await ears.open(f"socket://127.0.0.1:{listening_port(process)}")
            await line.write(b"over tcp")
            await wait_until(lambda: device.heard() == b"over tcp")
            device.say(b"and back")
            await wait_until(lambda: ears.data == b"and back")
            process.terminate()
            await wait_until(lambda: ears.reasons)
            with pytest.raises(TransportFailed):
                await line.write(b"x")


def listening_port(process: "subprocess.Popen[bytes]") -> int:
    assert process.stderr is not None
    for said in process.stderr:
        if b"listening on" in said:
            return int(said.rsplit(b":", 1)[1])
    raise AssertionError("socat does not listen")


async def test_nobody_at_a_tcp_port_is_missing(ears: Ears) -> None:
    for url in ("socket://127.0.0.1:1", "rfc2217://127.0.0.1:1", "socket://127.0.0.1:no"):
        with pytest.raises(TransportFailed) as caught:
            await ears.open(url)
        assert caught.value.code == "serial_missing"


RFC2217 = """
import socket, sys, threading, serial
from serial import rfc2217
port = serial.serial_for_url("loop://", timeout=0.05)  # a pty has no modem lines
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
client, _ = server.accept()
class Wire:
    def write(self, data): client.sendall(data)
manager = rfc2217.PortManager(port, Wire())
def up():
    while True:
        data = port.read(port.in_waiting or 1)
        if data: client.sendall(b"".join(manager.escape(data)))
threading.Thread(target=up, daemon=True).start()
while data := client.recv(1024):
    port.write(b"".join(manager.filter(data)))
"""


@pytest.mark.filterwarnings(
    "ignore:set:DeprecationWarning"
)  # pyserial's own; there is no newer one
async def test_an_rfc2217_port_is_a_line(ears: Ears) -> None:
    with started(sys.executable, "-c", RFC2217) as process:
        assert process.stdout is not None
        line = await ears.open(f"rfc2217://127.0.0.1:{int(process.stdout.readline())}")
        await line.write(b"there and back \xff\x00")
        await wait_until(lambda: ears.data == b"there and back \xff\x00")
        await line.send_break(0.01)
        process.terminate()
        await wait_until(lambda: ears.reasons)
        with pytest.raises(TransportFailed):
            await line.write(b"x")


def test_raw_tcp_works_on_the_loop_of_the_agent_too() -> None:
    """The transports of uvloop are no subclasses of those of asyncio."""
    import uvloop

    async def talk() -> None:
        ears = Ears()
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            line = await ears.open(f"socket://127.0.0.1:{port}")
            await line.write(b"hello")
            await wait_until(lambda: ears.data == b"hello")
            line.close()

    uvloop.run(talk())


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()
