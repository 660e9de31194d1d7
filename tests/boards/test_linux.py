"""A real Linux under QEMU: login on its console, commands, a panic, a reboot, SSH to dropbear."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.board_kernel import PASSWORD, linux_toml, need_kernel
from tests.support.qemu_boards import boards_of
from tests.support.ssh_server import free_port
from tshrag_agent.attempts.capture import capture
from tshrag_agent.boards import asking
from tshrag_agent.boards.board import Board
from tshrag_agent.boards.boards import Boards
from tshrag_agent.boards.guard import DutFailed
from tshrag_agent.transport.base import ShellCommand
from tshrag_common.actions import Capture, Expect, Send
from tshrag_common.ids import DutId, Fence
from tshrag_common.jobs import Way

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NAME = DutId("linux")
FENCE = Fence(5)


@asynccontextmanager
async def board_of(folder: Path, more: str = "") -> AsyncIterator[tuple[Boards, Board]]:
    password = folder / "password"
    password.write_text(PASSWORD + "\n")
    password.chmod(0o600)
    text = linux_toml(need_kernel(), NAME, password, free_port()) + more
    async with boards_of(folder, text) as boards:
        boards.used_by(NAME, "run/1")
        yield boards, boards.board(NAME)


async def done(
    boards: Boards, command: str, way: Way = "serial", fence: Fence = FENCE
) -> tuple[int | None, bytes]:
    said = bytearray()
    transport = boards.transport(NAME, way)
    ended = await transport.execute(
        ShellCommand(command),
        env={},
        cwd="/",
        timeout_s=200.0,
        fence=fence,
        on_output=lambda _stream, data: said.extend(data),
    )
    return ended.exit_code, bytes(said)


async def test_a_kernel_boots_is_logged_in_works_and_boots_again(tmp_path: Path) -> None:
    said = bytearray()
    async with board_of(tmp_path) as (boards, board):
        assert await board.to("shell", FENCE, said.extend) == ["off", "shell"]
        assert b"board login:" in said and PASSWORD.encode() not in said
        code, output = await done(boards, "uname -s; cat /proc/cmdline; exit 3")
        assert (code, output.splitlines()[0]) == (3, b"Linux")
        _, first = await done(boards, "cat /proc/sys/kernel/random/boot_id")
        assert await board.to("shell", FENCE, said.extend) == ["shell"]
        states = await board.to("shell", FENCE, said.extend, fresh=True)
        assert states == ["off", "shell"]
        _, second = await done(boards, "cat /proc/sys/kernel/random/boot_id")
        assert first != second
        code, output = await done(boards, "hostname", "ssh", Fence(6))
        assert (code, output) == (0, b"board\n")


async def test_a_panic_fails_an_expect_at_once_and_the_board_comes_back(tmp_path: Path) -> None:
    said = bytearray()
    async with board_of(tmp_path) as (boards, board):
        await board.to("shell", FENCE, said.extend)
        await asking.send(board, FENCE, Send(text="echo c > /proc/sysrq-trigger"))
        with pytest.raises(DutFailed, match="Kernel panic - not syncing") as caught:
            await asking.expect(board, FENCE, Expect(text=("never",), within=300.0), said.extend)
        assert caught.value.code == "console_death"
        states = await board.to("shell", FENCE, said.extend)  # panic=-1: it boots by itself
        assert states[-1] == "shell"
        code, output = await done(boards, "echo alive")
        assert (code, output) == (0, b"alive\n")


async def test_a_file_goes_over_the_console_and_comes_back(tmp_path: Path) -> None:
    said = bytearray()
    (tmp_path / "file").write_bytes(bytes(range(256)) * 64)
    async with board_of(tmp_path) as (boards, board):
        await board.to("shell", FENCE, said.extend)
        transport = boards.transport(NAME, "serial")
        await transport.upload(tmp_path / "file", "/tmp/file", timeout_s=300.0)
        back = tmp_path / "back"
        await transport.download("/tmp/file", back, most_bytes=1 << 20, timeout_s=300.0)
        assert back.read_bytes() == (tmp_path / "file").read_bytes()


async def test_a_failed_board_is_asked_by_its_shell_and_by_sysrq(tmp_path: Path) -> None:
    """What `freeze` captures, from a real kernel: QEMU sends the break that a socket cannot."""
    said = bytearray()
    async with board_of(tmp_path) as (boards, board):
        await board.to("shell", FENCE, said.extend)
        asked = (Capture(shell="uname -s"), Capture(sysrq="h"), Capture(bootloader="printenv"))
        await capture(board, boards.transport(NAME, "serial"), FENCE, asked, tmp_path / "freeze")
    found = {path.name: path.read_bytes() for path in (tmp_path / "freeze").iterdir()}
    assert found["01-shell.txt"].split() == [b"Linux"]
    assert b"sysrq: HELP" in found["02-sysrq.txt"]
    assert b"[tshrag: " in found["03-bootloader.txt"]
