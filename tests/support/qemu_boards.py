"""Real boards for tests: QEMU with U-Boot or a Linux kernel, as an agent holds them."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tshrag_agent.attempts.host import Shepherd
from tshrag_agent.boards.boards import Boards
from tshrag_agent.duts import Duts
from tshrag_agent.settings import AgentSettings, read_settings
from tshrag_common.ids import DutId

UBOOT = Path("/usr/lib/u-boot/qemu_arm/u-boot.bin")
BOARD = DutId("board")


def need_uboot() -> None:
    """Skip where `make packages` could not install QEMU and U-Boot."""
    if not UBOOT.exists() or not shutil.which("qemu-system-arm"):
        pytest.skip("apt-get install qemu-system-arm u-boot-qemu")


def uboot_toml(more: str = "") -> str:
    """Return the ``[[dut]]`` of a board with nothing but U-Boot."""
    return f"""\
[[dut]]
id = "{BOARD}"
kind = "qemu-arm"

[dut.qemu]
program = "qemu-system-arm"
machine = "virt"
memory = "128M"
firmware = "{UBOOT}"
network = false

[dut.boot.bootloader]
timeout_s = 120.0
{more}
"""


def settings(folder: Path, text: str) -> AgentSettings:
    path = folder / "agent.toml"
    path.write_text(text)
    return read_settings(path, {"TSHRAG_STORE": str(folder / "store")})


class _Over(Exception):
    pass


@asynccontextmanager
async def boards_of(folder: Path, text: str) -> AsyncIterator[Boards]:
    """Hold the boards of an ``agent.toml``, with their consoles, as the daemon does."""
    read = settings(folder, text)
    duts = Duts(read.dut)
    read.state.mkdir(parents=True, exist_ok=True)
    shepherd = await Shepherd.open(read.state)
    boards = Boards(read.dut, duts, read.boards, shepherd)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(duts.run(), name="consoles")
            try:
                yield boards
            finally:
                await boards.close()
            raise _Over
    except* _Over:
        await duts.close()
    finally:
        shepherd.dismiss()
        await shepherd.close()
