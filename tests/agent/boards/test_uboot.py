"""A real U-Boot under a real QEMU, through its power and its prompt."""

from pathlib import Path
from typing import Literal

import pytest

from tests.support.qemu_boards import BOARD, boards_of, need_uboot, uboot_toml
from tshrag_agent.boards import asking
from tshrag_agent.boards.board import Board
from tshrag_agent.boards.guard import DutFailed
from tshrag_agent.transport.bootloader import Bootloader
from tshrag_common.actions import Upload
from tshrag_common.errors import Refused
from tshrag_common.ids import Fence
from tshrag_controller.cli.console_check import FileCheck, sums_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def test_a_board_goes_from_no_power_to_the_prompt_of_uboot_and_back(tmp_path: Path) -> None:
    need_uboot()
    said = bytearray()
    environment = 'environment = { greeting = "hello board" }\ncommands = ["setexpr sum 40 + 2"]\n'
    async with boards_of(tmp_path, uboot_toml(environment)) as boards:
        board, power = boards.board(BOARD), boards.power(BOARD)
        assert await power.status() == "off"
        assert await board.to("bootloader", Fence(7), said.extend) == ["off", "bootloader"]
        assert b"U-Boot 20" in said and b"autoboot" in said
        assert await power.status() == "on"
        assert await board.look(Fence(7)) == "bootloader"
        async with board.talk(Fence(7)) as talk:
            loader = board.parts.way.bootloader
            assert loader is not None
            prompt = Bootloader(talk, loader)
            await prompt.prepare()
            answer = await prompt.run("printenv greeting sum")
            assert (answer.output.split(b"\r\n")[:2], answer.status) == (
                [b"greeting=hello board", b"sum=42"],
                0,
            )
            assert (await prompt.run("printenv nothing")).status == 1
        assert await board.to("off", Fence(7), said.extend) == ["bootloader", "off"]
        assert await power.status() == "off"
        with pytest.raises(Refused, match="it has no state 'shel'; did you mean"):
            await board.to("shel", Fence(7), said.extend)


async def test_a_boot_that_dies_is_told_with_what_the_console_said(tmp_path: Path) -> None:
    need_uboot()
    dies = 'environment = { a = "b" }\nboot = "echo Kernel panic - not syncing"\n'
    said = bytearray()
    async with boards_of(tmp_path, uboot_toml(dies) + "[dut.boot]\ntries = 1\n") as boards:
        with pytest.raises(DutFailed, match="Kernel panic") as caught:
            await boards.board(BOARD).to("shell", Fence(1), said.extend)
        assert caught.value.code == "console_death"


async def checked_by_a_person(board: Board, data: bytes) -> str:
    """Let the client of an interactive console ask for the sum of what has come."""
    ready = b"## Ready for binary (ymodem) download to 0x40200000 at 115200 bps..."
    check = FileCheck("image", sums_of(data), ready)
    check.hear(b"=> ")
    async with board.talk(Fence(7)) as talk:
        await talk.type(check.silence())
        while not check.told:
            check.hear(await talk.hear(20.0) or b"")
    return check.told


@pytest.mark.parametrize("via", ["loadx", "loady"])
async def test_a_file_comes_into_the_memory_of_uboot(
    tmp_path: Path, via: Literal["loadx", "loady"]
) -> None:
    need_uboot()
    data = bytes(index * 7 & 0xFF for index in range(9001))
    said = bytearray()
    async with boards_of(tmp_path, uboot_toml()) as boards:
        board = boards.board(BOARD)
        await board.to("bootloader", Fence(7), said.extend)
        upload = Upload(load="firmware", path="image", to="0x40200000", via=via)
        await asking.load(board, Fence(7), upload, data, said.extend)
        assert said.endswith(b"[tshrag: 9001 bytes at 0x40200000; crc32 is right]\r\n")
        if via == "loady":  # by loadx it has a whole number of blocks
            assert (
                await checked_by_a_person(board, data)
                == "checked: the board has the same 9001 bytes"
            )
        elsewhere = Upload(load="firmware", path="image", to="0x4; reset", via=via)
        with pytest.raises(DutFailed, match="is no address"):
            await asking.load(board, Fence(7), elsewhere, data, said.extend)


@pytest.mark.parametrize(
    ("fresh", "kept"),
    [("never", (True, True)), ("run", (True, False)), ("attempt", (False, False))],
)
async def test_what_a_board_writes_to_its_disk_lasts_as_its_settings_say(
    tmp_path: Path, fresh: str, kept: tuple[bool, bool]
) -> None:
    """U-Boot writes a block; the next attempt of the run looks for it, then one of another run."""
    need_uboot()
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    text = uboot_toml().replace(
        "network = false",
        f"""network = false
disk = "{disk}"
fresh = "{fresh}"
""",
    )
    said = bytearray()
    async with boards_of(tmp_path, text) as boards:
        board = boards.board(BOARD)

        async def do(user: str, *commands: str) -> bool:
            boards.used_by(BOARD, user)
            await board.to("bootloader", Fence(7), said.extend, fresh=True)
            before = len(said)
            async with board.talk(Fence(7)) as talk:
                loader = board.parts.way.bootloader
                assert loader is not None
                prompt = Bootloader(talk, loader)
                await prompt.settle()
                for command in ("virtio scan", *commands):
                    answer = await prompt.run(command)
                    assert answer.status in (None, 0), answer
            assert before
            return b"5a5a5a5a" in answer.output

        write = ("mw.l 0x40400000 0x5a5a5a5a 0x80", "virtio write 0x40400000 1 1")
        look = ("mw.l 0x40400000 0 0x80", "virtio read 0x40400000 1 1", "md.l 0x40400000 1")
        await do("run-1/1", *write)
        assert (await do("run-1/2", *look), await do("run-2/1", *look)) == kept
    assert disk.read_bytes() == bytes(1 << 20)
