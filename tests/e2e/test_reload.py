"""SIGHUP on a live agent: new boards come, changed ones change when they are free, jobs go on."""

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.command_line import run_cli
from tests.support.waiting import wait_for
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.xdist_group("e2e")]

BOARD = '[[dut]]\nid = "{id}"\nkind = "{kind}"\n[dut.local]\n\n'
PROFILE = """\
name: long
targets: { board: { duts: [one] } }
schedule: { command: "sh -c 'while ! test -e GO; do sleep 0.1; done'", target: board }
"""


def test_boards_change_under_a_job_that_runs(lab: LabProcesses, tmp_path: Path) -> None:
    lab.start_controller()
    asyncio.run(lab.wait_ready())
    boards = [BOARD.format(id=name, kind="old") for name in ("one", "two")]
    lab.start_agent("rack", "".join(boards), slots=1)
    asyncio.run(lab.wait_agents(1))
    config = lab.state / "agents/rack/agent.toml"
    head = config.read_text().partition("[[dut]]")[0]
    pid = int((lab.state / "agents/rack/store/agent/agent.lock").read_text())

    def tshrag(*words: str) -> "subprocess.CompletedProcess[str]":
        return run_cli(*words, state=lab.state)

    def kinds() -> dict[str, str]:
        rows = json.loads(tshrag("dut", "list", "--json").stdout)["duts"]
        return {row["dut"]["id"]: row["dut"]["kind"] for row in rows if not row.get("gone")}

    def reload(text: str) -> None:
        config.write_text(text)
        os.kill(pid, signal.SIGHUP)

    go = tmp_path / "GO"
    profile = tmp_path / "long.yaml"
    profile.write_text(PROFILE.replace("GO", str(go)))
    submitted = tshrag("submit", str(profile), "--output", "quiet")
    assert submitted.returncode == 0, submitted.stderr
    run = submitted.stdout.split()[0]
    wait_for(lambda: '"running":1' in tshrag("status", run, "--json").stdout.replace(" ", ""), 60)
    new = [BOARD.format(id=name, kind="new") for name in ("one", "three")]
    reload(head + "".join(new))
    wait_for(lambda: kinds() == {"one": "old", "three": "new"}, 60)
    reload(head + "[[dut]]\nid = 7\n")
    log = lab.log_of("rack")
    wait_for(lambda: "settings are not taken" in log.read_text(), 60)
    go.touch()
    done = tshrag("wait", run)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: kinds() == {"one": "new", "three": "new"}, 60)
