"""A real U-Boot under a real QEMU, through its power and its prompt."""

from pathlib import Path

import pytest

from tests.support.qemu_boards import BOARD, boards_of, need_uboot, uboot_toml
from tshrag_agent.boards.guard import DutFailed
from tshrag_agent.transport.bootloader import Bootloader
from tshrag_common.errors import Refused
from tshrag_common.ids import Fence

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
