"""`tshrag chaos` on a real lab: said, refused, done, and timed."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import run_cli
from tshrag_agent.drill import Drills
from tshrag_common.commands import RunDrill
from tshrag_controller.cli.processes import LabProcesses

slow = [pytest.mark.slow, pytest.mark.xdist_group("cli-lab"), pytest.mark.timeout(180)]
pytestmark = slow


class Supervised(LabProcesses):
    """A lab on one machine whose processes are started again, as systemd would do it."""

    def begin(self) -> None:
        self.state.mkdir()
        self.start_controller("drills = true\n")
        asyncio.run(self.wait_ready())
        for name in ("brave", "shy"):
            self.start_agent(name, slots=1)
        config = self.state / "agents" / "brave" / "agent.toml"
        config.write_text(config.read_text().replace("[agent]\n", "[agent]\ndrills = true\n"))
        self.kill("brave")
        self.run_agent("brave")
        asyncio.run(self.wait_agents(2))

    def again(self, name: str) -> None:
        """Wait until a process has ended; start the next one."""
        self._processes[name].wait(60)
        if name == "controller":
            config = str(self.state / "controller.toml")
            self.start(name, "tshrag_controller.daemon", "--config", config)
        else:
            self.run_agent(name)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    made = Supervised(tmp_path_factory.mktemp("drill") / "lab", {"TSHRAG_NATS_URL": ""})
    try:
        made.begin()
        yield made
    finally:
        made.stop()


async def drilled(lab: Supervised, name: str, *words: str) -> tuple[int, dict[str, object]]:
    """Hold a drill while a supervisor minds its victim; return the exit code and what was told."""
    async with asyncio.TaskGroup() as group:
        minding = group.create_task(asyncio.to_thread(lab.again, name)) if name else None
        done = await asyncio.to_thread(run_cli, "chaos", *words, "--json", state=lab.state)
        if minding is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(minding), 1)
    assert done.stdout, done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return done.returncode, told


def test_without_yes_it_says_what_would_happen_and_does_nothing(lab: Supervised) -> None:
    pid = lab._processes["brave"].pid
    done = run_cli("chaos", "kill-agent", "brave", state=lab.state)
    assert done.returncode == 2
    assert "agent brave kills itself with SIGKILL" in done.stderr
    assert "it is online, allows drills, and has 0 jobs at work" in done.stderr
    assert "--yes" in done.stderr
    assert lab._processes["brave"].poll() is None
    assert lab._processes["brave"].pid == pid


def test_who_does_not_allow_it_is_left_alone(lab: Supervised) -> None:
    done = run_cli("chaos", "kill-agent", "shy", "--yes", state=lab.state)
    assert done.returncode == 2
    assert done.stderr.startswith("drills_off: agent shy: its settings allow no drills")
    done = run_cli("chaos", "cut-link", "nobody", "--yes", state=lab.state)
    assert done.returncode == 2
    assert "nobody" in done.stderr


async def test_a_killed_agent_is_back_and_its_job_has_not_noticed(lab: Supervised) -> None:
    profile = lab.state / "long.json"
    profile.write_text(json.dumps({"name": "long", "schedule": {"command": "sleep 15"}}))
    run = await asyncio.to_thread(
        run_cli, "submit", str(profile), "-o", "quiet", "--host", "brave", state=lab.state
    )
    assert run.returncode == 0, run.stderr
    ends = time.monotonic() + 30
    while (
        "running"
        not in (
            await asyncio.to_thread(run_cli, "status", "last", "--json", state=lab.state)
        ).stdout
    ):
        assert time.monotonic() < ends
    code, told = await drilled(lab, "brave", "kill-agent", "brave", "--yes")
    assert told["target"] == "brave"
    assert told["recovered_s"] != -1.0, told
    assert told["jobs_before"] == told["jobs_kept"] != []
    assert code == int(float(str(told["recovered_s"])) > 60)


async def test_a_cut_link_is_mended(lab: Supervised) -> None:
    _, told = await drilled(lab, "", "cut-link", "brave", "--for", "3s", "--yes")
    assert float(str(told["recovered_s"])) >= 3.0, told


async def test_a_controller_starts_again_and_the_lab_goes_on(lab: Supervised) -> None:
    _, told = await drilled(lab, "controller", "restart-controller", "--yes")
    assert told["recovered_s"] != -1.0, told
    assert (await asyncio.to_thread(run_cli, "agent", "list", state=lab.state)).returncode == 0


def test_an_agent_refuses_by_itself_what_its_settings_do_not_allow(tmp_path: Path) -> None:
    suffered: list[object] = []
    shy = Drills(False, suffered.append, lambda: suffered.append("dead"))
    brave = Drills(True, suffered.append, lambda: suffered.append("dead"))
    for command in (RunDrill(what="kill"), RunDrill(what="cut", seconds=9e9)):
        shy.suffer(command)
    assert (suffered, shy.refused) == ([], 2)
    for command in (RunDrill(what="kill"), RunDrill(what="cut", seconds=9e9)):
        brave.suffer(command)
    assert suffered == ["dead", 600.0]
