"""A console whose bytes come from a command of this host."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.debian import need_program
from tests.support.serial_pty import running, started
from tests.support.waiting import wait_until
from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.console import RETRY_FIRST_S, SerialConsole, after_loss
from tshrag_agent.transport.line import Line, LineSettings
from tshrag_agent.transport.serial import open_line
from tshrag_common.ids import Fence

PATIENCE_S = 30.0
EVERY_BYTE = bytes(range(256))


class Ears:
    def __init__(self) -> None:
        self.data = bytearray()
        self.reasons = list[str]()

    async def open(self, *command: str, break_text: str = "") -> Line:
        settings = LineSettings(command=command, break_text=break_text)
        return await open_line(settings, self.data.extend, self.reasons.append)


@pytest.fixture
async def ears() -> AsyncIterator[Ears]:
    yield Ears()


def script(folder: Path, text: str) -> str:
    path = folder / "source"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def pids(ears: Ears, count: int) -> list[int]:
    """Return the numbers that a script has said, one a line."""
    await wait_until(lambda: ears.data.count(b"\n") >= count, PATIENCE_S)
    return [int(word) for word in ears.data.split()[:count]]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_every_byte_goes_through_a_command_on_either_loop(loop: str) -> None:
    async def talk() -> None:
        ears = Ears()
        line = await ears.open("cat")
        await line.write(EVERY_BYTE)
        await wait_until(lambda: bytes(ears.data) == EVERY_BYTE, PATIENCE_S)
        line.close()
        assert ears.reasons == []

    if loop == "uvloop":
        import uvloop

        uvloop.run(talk())
    else:
        asyncio.run(talk())


async def test_its_last_words_are_heard_and_its_complaint_is_the_reason(
    ears: Ears, tmp_path: Path
) -> None:
    await ears.open(script(tmp_path, "echo last words; echo 'BMC is away' >&2; exit 3\n"))
    await wait_until(lambda: ears.reasons, PATIENCE_S)
    assert ears.reasons == ["'source' ended with 3: 'BMC is away'"]
    assert bytes(ears.data) == b"last words\n"


async def test_a_command_that_is_not_there_is_missing_and_tells_no_secret(ears: Ears) -> None:
    with pytest.raises(TransportFailed, match="no-such-tool") as caught:
        await ears.open("no-such-tool", "-P", "secret")
    assert caught.value.code == "serial_missing"
    assert "secret" not in caught.value.line


async def test_closing_ends_the_whole_tree_also_one_that_will_not(
    ears: Ears, tmp_path: Path
) -> None:
    stubborn = (
        "trap '' HUP TERM\nsh -c 'trap \"\" HUP TERM; echo $$; sleep 600; :' &\necho $$\nwait\n"
    )
    line = await ears.open(script(tmp_path, stubborn))
    found = await pids(ears, 2)
    line.close()
    await wait_until(lambda: not any(map(is_alive, found)), PATIENCE_S)
    assert ears.reasons == []


async def test_a_command_that_ended_leaves_no_child_behind(ears: Ears, tmp_path: Path) -> None:
    await ears.open(script(tmp_path, "sleep 600 & echo $!\nexit 0\n"))
    found = await pids(ears, 1)
    await wait_until(lambda: ears.reasons, PATIENCE_S)
    await wait_until(lambda: not any(map(is_alive, found)), PATIENCE_S)


async def test_one_that_closes_its_terminal_is_ended_and_lost(ears: Ears, tmp_path: Path) -> None:
    text = "trap '' HUP TERM\necho $$\nexec <&- >&-\nwhile :; do sleep 1; done\n"
    await ears.open(script(tmp_path, text))
    found = await pids(ears, 1)
    await wait_until(lambda: ears.reasons, PATIENCE_S)
    assert not is_alive(found[0])


OWNER = """
import asyncio, sys
from tshrag_agent.transport.line import LineSettings
from tshrag_agent.transport.serial import open_line
async def own():
    def received(data):
        sys.stdout.buffer.write(data); sys.stdout.buffer.flush()
    await open_line(LineSettings(command=tuple(sys.argv[1:])), received, print)
    await asyncio.sleep(600)
asyncio.run(own())
"""


async def test_a_killed_agent_takes_the_command_and_its_children_along(tmp_path: Path) -> None:
    source = script(tmp_path, "sleep 600 &\necho $! $$\nwait\n")
    with started(sys.executable, "-c", OWNER, source) as owner:
        assert owner.stdout is not None
        found = [int(word) for word in owner.stdout.readline().split()]
        assert all(map(is_alive, found))
        owner.send_signal(signal.SIGKILL)
        await wait_until(lambda: not any(map(is_alive, found)), PATIENCE_S)


async def test_a_break_is_what_the_command_takes_for_one(ears: Ears) -> None:
    line = await ears.open("cat", break_text="~B")
    await line.send_break(0.1)
    await wait_until(lambda: bytes(ears.data) == b"~B", PATIENCE_S)
    line.close()
    bare = await ears.open("cat")
    for refused in (
        bare.send_break(0.1),
        bare.configure(LineSettings(command=("cat",), baud=9600)),
    ):
        with pytest.raises(TransportFailed, match="a command"):
            await refused
    bare.close()


async def test_a_console_starts_its_command_again_and_marks_the_gap(tmp_path: Path) -> None:
    source = script(tmp_path, "echo hello; read -r word; echo got $word; exit 1\n")
    async with running(SerialConsole("b1", LineSettings(command=(source,)))) as console:

        def said() -> str:
            return " ".join(
                each.data.decode().strip()
                for each in console.records()
                if each.direction in ("rx", "event")
            )

        await console.opened(PATIENCE_S)
        await wait_until(lambda: "hello" in said(), PATIENCE_S)
        driver = console.drive(Fence(1), "test")
        await driver.write(b"ping\n", timeout_s=10)
        await wait_until(lambda: said().count("hello") == 2, PATIENCE_S)
        first, gap, second = said().partition("lost: ")
        assert first.startswith("opened hello") and "got ping" in first
        assert "ended with 1" in second and "opened hello" in second and gap


def test_only_what_has_held_is_started_again_at_once() -> None:
    assert after_loss(1.6, was_open_s=0.1) == 1.6
    assert after_loss(1.6, was_open_s=60.0) == RETRY_FIRST_S


LAN = """name "sim"
set_working_mc 0x20
startlan 1
  addr 127.0.0.1 {port}
  priv_limit admin
  allowed_auths_callback none md2 md5 straight
  allowed_auths_user none md2 md5 straight
  allowed_auths_operator none md2 md5 straight
  allowed_auths_admin none md2 md5 straight
  guid a123456789abcdefa123456789abcdef
endlan
sol "tcp:127.0.0.1:{sol}" 115200
user 2 true "lab" "secret" admin 10 none md2 md5 straight
"""
MC = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\nmc_enable 0x20\n"


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


@contextmanager
def bmc(folder: Path, sol: int) -> Iterator[int]:
    """Give the UDP port of a simulated management controller whose SOL is at TCP port `sol`."""
    simulator = need_program("ipmi_sim", package="openipmi")
    port = free_udp_port()
    (folder / "lan.conf").write_text(LAN.format(port=port, sol=sol))
    (folder / "sim.emu").write_text(MC)
    (folder / "state").mkdir(exist_ok=True)
    words: list[str | Path] = [
        "-c",
        folder / "lan.conf",
        "-f",
        folder / "sim.emu",
        "-s",
        folder / "state",
        "-n",
    ]
    with subprocess.Popen([simulator, *words], stdin=-3, stdout=-3, stderr=-3) as process:
        try:
            yield port
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_serial_over_lan_of_a_bmc_is_a_console(tmp_path: Path) -> None:
    """ipmitool against OpenIPMI's simulator; its serial port says back what it hears."""
    ipmitool = need_program("ipmitool", package="ipmitool")

    served = list[asyncio.Event]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(over := asyncio.Event())
        while data := await reader.read(256):
            writer.write(data.replace(b"?", b"!"))
        writer.close()
        over.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    password = tmp_path / "password"
    password.write_text("secret\n")
    async with server:
        with bmc(tmp_path, server.sockets[0].getsockname()[1]) as port:
            words = f"{ipmitool} -I lanplus -H 127.0.0.1 -p {port} -U lab -f {password} -C 3"
            way = LineSettings(command=(*words.split(), "sol", "activate"))
            async with running(SerialConsole("b1", way)) as console:

                def heard() -> bytes:
                    return b"".join(
                        each.data for each in console.records() if each.direction == "rx"
                    )

                await wait_until(lambda: b"SOL Session operational" in heard(), 60.0)
                await console.write(b"are you there?\r", timeout_s=10)
                await wait_until(lambda: b"are you there!" in heard(), 60.0)
        await wait_until(lambda: all(over.is_set() for over in served), PATIENCE_S)
