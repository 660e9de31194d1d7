"""A job floods samples: results arrive meanwhile, and all samples are there in the end."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import run_cli
from tests.support.waiting import wait_for
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

FLOOD = (
    "import os, socket, sys\n"
    "begun, stop, told = sys.argv[1:]\n"
    "s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)\n"
    "s.connect(os.environ['TSHRAG_METRICS'] + '.stream')\n"
    "count = 0\n"
    "while not os.path.exists(stop):\n"
    "    s.sendall(b''.join(b'flood.value:%d|g\\n' % n for n in range(count, count + 500)))\n"
    "    count += 500\n"
    "    open(begun, 'w').close()\n"
    "open(told, 'w').write(str(count))\n"
)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    lab = LabProcesses(tmp_path, {"TSHRAG_STATE": str(tmp_path)})
    try:
        lab.start_controller()
        asyncio.run(lab.wait_ready())
        lab.start_agent("a1", slots=4)
        asyncio.run(lab.wait_agents(1))
        yield tmp_path
    finally:
        lab.stop()


def submit(state: Path, name: str, commands: list[list[str]], *more: str) -> str:
    steps = [{"command": words} for words in commands]
    profile = {"name": name, "schedule": {"parallel": steps}}
    (state / f"{name}.json").write_text(json.dumps(profile))
    done = run_cli("submit", f"{name}.json", *more, "-o", "quiet", state=state, cwd=state)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()[0]


def state_of(state: Path, run: str) -> str:
    told = run_cli("status", run, "--json", state=state)
    assert told.returncode == 0, told.stdout + told.stderr
    said = json.loads(told.stdout)
    return str(said["run"]["state"])


def count_of(state: Path, run: str, key: str) -> int:
    said = run_cli("metrics", run, key, "--info", "--json", state=state)
    assert said.returncode == 0, said.stdout + said.stderr
    infos = json.loads(said.stdout)["infos"]
    assert all(info.get("refused", 0) == 0 for info in infos), infos
    return sum(info.get("count", 0) for info in infos)


def test_results_never_wait_behind_samples(state: Path) -> None:
    begun, stop, told = (state / name for name in ("begun", "stop", "told"))
    words = [sys.executable, "-c", FLOOD, str(begun), str(stop), str(told)]
    flood = submit(state, "flood", [words])
    wait_for(begun.exists, 30)
    submit(state, "plain", [["true"]] * 4, "--wait")
    submit(state, "own", [["echo", "::metric own.value 7"]] * 4, "--wait")
    assert state_of(state, flood) == "running", "it floods all the time"
    stop.touch()
    done = run_cli("wait", flood, state=state)
    assert done.returncode == 0, done.stdout + done.stderr
    assert count_of(state, flood, "flood.value") == int(told.read_text()) > 10_000
    assert count_of(state, "last", "own.value") == 4
