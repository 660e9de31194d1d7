"""ser2net of Debian as the source of a console: raw TCP, RFC 2217; and what is at its edges."""

import socket
import subprocess
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests.support.debian import need_program
from tests.support.serial_pty import Wire, running, started, wire
from tests.support.ssh_server import free_port
from tests.support.waiting import wait_until
from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.console import SerialConsole
from tshrag_agent.transport.line import LineSettings
from tshrag_common.ids import Fence
from tshrag_common.rfc2217 import PortState

PATIENCE_S = 30.0
FLAGS = termios.PARODD | termios.CSTOPB  # a pty keeps no PARENB and no other size than 8 bits
EVERY_BYTE = bytes(range(256))
CONFIG = """
connection: &board
  accepter: {accepter}127.0.0.1,{port}
  connector: serialdev,{path},115200n81,local
  options:
    kickolduser: true
"""


@contextmanager
def ser2net(folder: Path, path: str, accepter: str) -> Iterator[int]:
    """Serve the line at `path` and give the TCP port."""
    program = need_program("ser2net", package="ser2net")
    port = free_port()
    config = folder / "ser2net.yaml"
    config.write_text(CONFIG.format(accepter=accepter, port=port, path=path))
    command = [program, "-n", "-c", str(config), "-P", str(folder / "ser2net.pid")]
    with subprocess.Popen(command, stdin=-3, stdout=-3, stderr=-3) as process:
        try:
            yield port
        finally:
            process.terminate()
            process.wait(20)


RAW, RFC2217 = "tcp,", "telnet(rfc2217),tcp,"


@pytest.fixture
def device() -> Iterator[Wire]:
    with wire() as made:
        yield made


@asynccontextmanager
async def console_of(settings: LineSettings) -> AsyncIterator[SerialConsole]:
    async with running(SerialConsole("b1", settings)) as console:
        await wait_until(lambda: console.is_open, PATIENCE_S)
        yield console


def heard(console: SerialConsole) -> bytes:
    return b"".join(each.data for each in console.records() if each.direction == "rx")


@pytest.mark.parametrize(("accepter", "scheme"), [(RAW, "socket"), (RFC2217, "rfc2217")])
async def test_every_byte_goes_through_ser2net_both_ways(
    device: Wire, tmp_path: Path, accepter: str, scheme: str
) -> None:
    with ser2net(tmp_path, device.path, accepter) as port:
        async with console_of(LineSettings(url=f"{scheme}://127.0.0.1:{port}")) as console:
            await console.write(EVERY_BYTE, timeout_s=10)
            await wait_until(lambda: device.heard() == EVERY_BYTE, PATIENCE_S)
            device.say(EVERY_BYTE)
            await wait_until(lambda: heard(console) == EVERY_BYTE, PATIENCE_S)


async def test_the_line_behind_ser2net_is_set_as_asked(device: Wire, tmp_path: Path) -> None:
    with ser2net(tmp_path, device.path, RFC2217) as port:
        settings = LineSettings(
            url=f"rfc2217://127.0.0.1:{port}", baud=57600, parity="odd", stop_bits=2
        )
        async with console_of(settings) as console:
            attributes = termios.tcgetattr(device.fd)
            assert attributes[4] == termios.B57600
            assert attributes[2] & FLAGS == FLAGS
            driver = console.drive(Fence(1), "ann")
            await console.configure(driver, PortState(baud=9600, parity="even", flow="xonxoff"))
            attributes = termios.tcgetattr(device.fd)
            assert attributes[4] == termios.B9600
            assert attributes[2] & FLAGS == 0
            assert attributes[0] & termios.IXON
            await driver.send_break(0.01)
            await driver.write(b"on", timeout_s=10)
            await wait_until(lambda: device.heard() == b"on", PATIENCE_S)


async def test_a_ser2net_that_starts_again_is_a_gap(device: Wire, tmp_path: Path) -> None:
    with ser2net(tmp_path, device.path, RAW) as port:
        console = SerialConsole("b1", LineSettings(url=f"socket://127.0.0.1:{port}"))
        async with running(console):
            await wait_until(lambda: console.is_open, PATIENCE_S)
            with socket.create_connection(("127.0.0.1", port)):  # the old user is kicked
                await wait_until(lambda: b"lost: " in notes(console), PATIENCE_S)
            await wait_until(lambda: notes(console).count(b"opened") >= 2, PATIENCE_S)


def notes(console: SerialConsole) -> bytes:
    return b"\n".join(each.data for each in console.records() if each.direction == "event")


async def test_a_raw_port_is_no_rfc2217(device: Wire, tmp_path: Path) -> None:
    with ser2net(tmp_path, device.path, RAW) as port:
        console = SerialConsole("b1", LineSettings(url=f"rfc2217://127.0.0.1:{port}"))
        async with running(console):
            await wait_until(lambda: "it does not speak RFC 2217" in console.trouble, PATIENCE_S)
            with pytest.raises(TransportFailed) as caught:
                await console.opened(0.01)
        assert caught.value.code == "serial_missing"


async def test_a_pty_that_socat_made_is_a_source(tmp_path: Path, device: Wire) -> None:
    socat = need_program("socat", package="socat")
    link = tmp_path / "tty"
    command = [socat, f"PTY,link={link},raw,echo=0", f"{device.path},raw,echo=0"]
    with started(*command):
        await wait_until(link.is_symlink, PATIENCE_S)
        async with console_of(LineSettings(url=str(link))) as console:
            device.say(EVERY_BYTE)
            await wait_until(lambda: heard(console) == EVERY_BYTE, PATIENCE_S)
            await console.write(EVERY_BYTE, timeout_s=10)
            await wait_until(lambda: device.heard() == EVERY_BYTE, PATIENCE_S)
