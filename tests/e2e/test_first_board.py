"""The tutorial "My first board", followed to the letter: its files, its commands, what it shows."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command_line import environment_of, run_cli
from tests.support.qemu_boards import need_uboot
from tests.support.waiting import wait_for
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("e2e")]

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial" / "first-board.md").read_text()
AGENT = (sys.executable, "-m", "tshrag_agent")


def block(kind: str) -> str:
    (found,) = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def console() -> list[tuple[str, list[str]]]:
    """Return each command of the page with the lines that are shown below it."""
    found: list[tuple[str, list[str]]] = []
    for text in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        for line in text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


@contextmanager
def agent_of(lab: LabProcesses, folder: Path) -> Iterator[None]:
    """Run the agent of the page; its store is below `folder`, since HOME is."""
    environment = {**environment_of(lab.state), "HOME": str(folder)}
    with (folder / "agent.log").open("wb") as log:
        agent = subprocess.Popen(
            [*AGENT, "run", "--config", "bench.toml"], cwd=folder, stdout=log, stderr=log,
            env=environment,
        )  # fmt: skip
        try:
            yield
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(60)


async def test_the_tutorial_of_the_first_board_is_true(lab: LabProcesses, tmp_path: Path) -> None:
    need_uboot()
    lab.start_controller("")
    await lab.wait_ready()
    (tmp_path / "bench.toml").write_text(block("toml agent"))
    (tmp_path / "first-board.yaml").write_text(block("yaml profile"))
    (install, _), (enroll, _), (run, _), *steps = console()
    assert install.startswith("sudo apt-get install qemu-system-arm")
    assert run == "tshrag-agent run --config bench.toml"
    assert not did(lab, tmp_path, enroll, [])
    with agent_of(lab, tmp_path):
        wait_for(lambda: "virt-1" in run_cli("dut", "list", state=lab.state).stdout, 60.0)
        for command, shown in steps:
            wrong = did(lab, tmp_path, command, shown)
            assert not wrong, f"{command}: {wrong}"


def did(lab: LabProcesses, folder: Path, command: str, shown: list[str]) -> str:
    """Do one command; return what the page shows and it does not say, empty: all is there."""
    program, *words = command.split()
    assert program == "tshrag"
    done = run_cli(*words, state=lab.state, cwd=folder)
    said = (done.stdout + done.stderr).replace("\r", "")
    is_refused = any(line.startswith("no_lease:") for line in shown)
    if (done.returncode != 0) != is_refused:
        return f"exit code {done.returncode}: {said}"
    missing = [line for line in shown if not seen(line, said)]
    return f"{missing} is not in {said!r}" if missing else ""


def seen(line: str, said: str) -> bool:
    """Tell whether a line of the page is there; ``...`` is anything, a version any version."""
    pattern = re.sub(r"20\d\d\\\.\d\d", r"20\\d\\d\\.\\d\\d", re.escape(line))
    return re.search(re.sub(r"(\\ )?\\\.\\\.\\\.", ".*", pattern), said) is not None
