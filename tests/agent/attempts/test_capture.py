"""What is kept of a board's answers: a bound of each, whole files only."""

from pathlib import Path

from tests.support.qemu_boards import BOARD, boards_of
from tshrag_agent.attempts.capture import MOST_BYTES, capture
from tshrag_common.actions import Capture
from tshrag_common.ids import Fence

TOML = f"""\
[[dut]]
id = "{BOARD}"
kind = "pi"

[dut.local.guard]
run_dir = "{{run_dir}}"
"""


async def captured(folder: Path, *asked: Capture) -> Path:
    answers = folder / "answers"
    async with boards_of(folder, TOML.format(run_dir=folder / "run")) as boards:
        transport = boards.transport(BOARD, "local")
        await capture(boards.board(BOARD), transport, Fence(1), asked, answers)
    return answers


async def test_a_board_that_floods_is_heard_up_to_a_bound(tmp_path: Path) -> None:
    flood = Capture(shell=f"head -c {MOST_BYTES + 1_000_000} /dev/zero")
    answers = await captured(tmp_path, flood, Capture(shell="echo here"))
    assert (answers / "01-shell.txt").read_bytes() == bytes(MOST_BYTES)
    assert (answers / "02-shell.txt").read_bytes() == b"here\n"


async def test_what_was_being_written_when_the_agent_died_is_asked_again(tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    answers.mkdir()
    (answers / "01-shell.txt").write_bytes(b"before\n")
    (answers / "02-shell.new").write_bytes(b"he")
    await captured(tmp_path, Capture(shell="echo again"), Capture(shell="echo here"))
    found = {path.name: path.read_bytes() for path in answers.iterdir()}
    assert found == {"01-shell.txt": b"before\n", "02-shell.txt": b"here\n"}
