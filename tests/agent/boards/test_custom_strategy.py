"""A strategy of somebody else's package, found by its entry point: the one in the docs, and one
that brings a real U-Boot to a state of its own."""

from pathlib import Path

import pytest

from tests.support.qemu_boards import BOARD, boards_of, need_uboot, uboot_toml
from tshrag_agent.boards.boards import find_strategy
from tshrag_agent.boards.strategy import Means
from tshrag_agent.transport.boot_way import BootWay
from tshrag_common.errors import NotFound
from tshrag_common.ids import Fence

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "write-a-boot-strategy.md"
GREETING = """
from tshrag_agent.boards.strategy import Means, moves_of
from tshrag_agent.transport.boot_way import Act, BootWay, Move


def greeting(way: BootWay, means: Means) -> tuple[Move, ...]:
    acts = (
        Act(send="setenv who board\\r"),
        Act(send="echo hello ${who}\\r"),
        Act(expect="hello board"),
    )
    return (*moves_of(way, means), Move(source="bootloader", to="greeted", acts=acts))
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> None:
    """Lay a distribution out as an installer would: a module, and its entry points."""
    (folder / f"lab_{name}.py").write_text(code)
    facts = folder / f"lab_{name}-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lab-{name}\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(f"[tshrag.strategies]\n{name} = lab_{name}:{name}\n")
    monkeypatch.syspath_prepend(str(folder))


def test_the_strategy_of_the_docs_adds_a_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = PAGE.read_text().split("```python\n")[1].split("```")[0]
    install(tmp_path, monkeypatch, "dual_boot", code)
    moves = find_strategy("dual_boot")(BootWay(), Means(power=True, console=True, shell=True))
    assert ("bootloader", "slot-b") in [(move.source, move.to) for move in moves]
    assert len(moves) > 1, "what is known stays"


def test_a_strategy_that_nobody_has_installed_names_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "greeting", GREETING)
    with pytest.raises(NotFound, match="'greting' is not known; nearest: greeting"):
        find_strategy("greting")


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_real_board_goes_to_the_state_of_a_custom_strategy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_uboot()
    install(tmp_path, monkeypatch, "greeting", GREETING)
    said = bytearray()
    text = uboot_toml() + '[dut.boot]\nstrategy = "greeting"\n'
    async with boards_of(tmp_path, text) as boards:
        board = boards.board(BOARD)
        way = await board.to("greeted", Fence(1), said.extend)
    assert way == ["off", "bootloader", "greeted"]
    assert b"\nhello board" in said
