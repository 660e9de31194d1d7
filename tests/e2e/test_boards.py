"""A profile that boots a real board, from the submit to the verdict: U-Boot under QEMU."""

import asyncio
import contextlib
import json
import secrets
import subprocess
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from tests.support.command_line import run_cli
from tests.support.qemu_boards import BOARD, need_uboot, uboot_toml
from tests.support.served_lab import until
from tshrag_agent.attempts.host import Shepherd, ShepherdSettings
from tshrag_common import ids, requests as r
from tshrag_common.client import is_final, open_client
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("e2e")]

PROFILE = {
    "name": "uboot",
    "tolerant": True,
    "schedule": {
        "sequence": [
            {"boot": {"to": "bootloader", "fresh": True}},
            {"bootloader": ["setenv greeting ${WHO}", "printenv greeting"], "env": {"WHO": "lab"}},
            {"console.send": "echo one; echo two"},
            {"console.expect": "\none"},
            {"console.expect": {"regex": ["\ntw(o|enty)"], "within": "60s"}},
            {"console.expect": {"text": ["three"], "within": "1s"}},
            {"bootloader": "false"},
            {"power": "off"},
        ]
    },
}


async def started(lab: LabProcesses) -> None:
    need_uboot()
    lab.start_controller("")
    await lab.wait_ready()
    lab.start_agent("rack", uboot_toml(), slots=1)
    await lab.wait_agents(1)


async def test_a_profile_boots_a_board_and_talks_to_its_bootloader(lab: LabProcesses) -> None:
    await started(lab)
    bundle = lab.bundle
    async with open_client(bundle.url, name="e2e", credentials=bundle.creds or None) as client:
        run = ids.new_run(time.time_ns() // 1_000_000, secrets.randbits(80))
        body = msgspec.Raw(msgspec.json.encode(PROFILE))
        await client.submit(r.Submit(run=run, profile=body))

        async def is_over() -> bool:
            return is_final((await client.run(run)).run.state)

        await until(is_over, within_s=240.0)
        jobs = (await client.jobs(r.ListJobs(id=run))).jobs
        said = (await client.logs(r.GetLogs(job=jobs[1].id))).data
    assert [job.state for job in jobs] == [
        "passed", "passed", "passed", "passed", "passed", "failed", "failed", "passed",
    ]  # fmt: skip
    assert b"greeting=lab" in said


async def test_a_person_with_a_lease_switches_and_boots_a_board(lab: LabProcesses) -> None:
    await started(lab)

    def tshrag(*words: str) -> "subprocess.CompletedProcess[str]":
        return run_cli(*words, state=lab.state)

    def talk() -> None:
        assert tshrag("power", BOARD).stdout == f"{BOARD} is off; switched on 0 times\n"
        unmetered = tshrag("power", BOARD, "read")
        assert unmetered.returncode == 3
        assert unmetered.stderr == (
            f"power_failed: power read of {BOARD}: a virtual board has no meter\n"
        )
        refused = tshrag("power", BOARD, "on")
        assert refused.returncode == 2
        assert refused.stderr.endswith(f"writing takes its lease; tshrag lease take {BOARD}\n")
        assert tshrag("lease", BOARD).returncode == 0
        booted = tshrag("boot", BOARD, "--to", "bootloader")
        assert booted.returncode == 0, booted.stderr
        assert "U-Boot 20" in booted.stdout and "\x1b" not in booted.stdout
        assert booted.stderr == f"{BOARD}: off -> bootloader\n"
        wrong = tshrag("boot", BOARD, "--to", "bootlaoder")
        assert wrong.returncode == 2
        assert "did you mean 'bootloader'?" in wrong.stderr
        assert tshrag("power", BOARD, "cycle").stdout == f"{BOARD} is on; switched on 2 times\n"
        assert tshrag("power", BOARD, "off", "-o", "quiet").stdout == "off\n"

    await asyncio.to_thread(talk)


FROZEN = """
name: frozen
freeze: { for: 10m, capture: [{ bootloader: printenv bootdelay }, { bootloader: nonsense }] }
schedule:
  sequence:
    - boot: bootloader
    - console.expect: { text: [this never comes], within: 1s }
    - power: "off"
"""


async def test_a_board_that_failed_is_asked_and_handed_to_who_submitted(
    lab: LabProcesses, tmp_path: Path
) -> None:
    await started(lab)
    path = tmp_path / "frozen.yaml"
    path.write_text(FROZEN)

    def look() -> None:
        done = run_cli("submit", str(path), "--wait", state=lab.state)
        assert done.returncode == 1, done.stderr
        held = json.loads(run_cli("lease", "list", "--json", state=lab.state).stdout)["leases"]
        assert [(each["dut"], each["reason"].partition(" ")[2]) for each in held] == [
            (BOARD, "failed; kept as it is")
        ]
        assert run_cli("power", BOARD, "-o", "quiet", state=lab.state).stdout == "on\n"
        asked = sorted(lab.state.rglob("artifacts/freeze/*"))
        assert [each.name for each in asked] == ["01-bootloader.txt", "02-bootloader.txt"]
        assert b"bootdelay=2" in asked[0].read_bytes()
        assert b"[tshrag: bootloader: " in asked[1].read_bytes()
        assert run_cli("power", BOARD, "off", state=lab.state).returncode == 0
        assert run_cli("lease", "release", BOARD, state=lab.state).returncode == 0

    await asyncio.to_thread(look)


JUDGED = """
name: too-slow
freeze: { for: 10m, capture: [{ bootloader: printenv bootdelay }] }
schedule:
  sequence:
    - boot: bootloader
    - bootloader: ["printenv bootdelay", "echo ::metric boot::voltage 2.5V"]
criteria:
  quiet: { metric: "boot::voltage", max: 1V }
"""


async def test_a_board_whose_criterion_fails_is_kept_asked_and_handed_over(
    lab: LabProcesses, tmp_path: Path
) -> None:
    await started(lab)
    path = tmp_path / "judged.yaml"
    path.write_text(JUDGED)

    def look() -> None:
        done = run_cli("submit", str(path), "--wait", state=lab.state)
        assert done.returncode == 1, done.stdout + done.stderr
        (held,) = json.loads(run_cli("lease", "list", "--json", state=lab.state).stdout)["leases"]
        assert held["dut"] == BOARD
        assert held["reason"].endswith(" failed; kept as it is")
        assert run_cli("power", BOARD, "-o", "quiet", state=lab.state).stdout == "on\n"

    await asyncio.to_thread(look)

    async def is_asked() -> bool:
        found = list(lab.state.rglob("JID_002/artifacts/freeze/01-bootloader.txt"))
        return bool(found) and b"bootdelay=2" in found[0].read_bytes()

    await until(is_asked, within_s=60.0)


def qemus(lab: LabProcesses) -> list[int]:
    """The QEMUs of this lab alone: other labs are on the machine too."""
    found: list[int] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("qemu-system") and str(lab.state) in process.cwd():
                found.append(process.pid)
    return found


def powered_on(lab: LabProcesses) -> int:
    assert run_cli("lease", BOARD, state=lab.state).returncode == 0
    done = run_cli("power", BOARD, "on", state=lab.state)
    assert done.returncode == 0, done.stderr
    (pid,) = qemus(lab)
    return pid


async def test_a_board_outlives_a_killed_agent_and_ends_with_the_next(
    lab: LabProcesses, tmp_path: Path
) -> None:
    await started(lab)
    host_job = tmp_path / "host.yaml"
    host_job.write_text("{ name: host, schedule: { command: 'true' } }")
    pid = await asyncio.to_thread(powered_on, lab)
    lab.kill("rack")
    lab.run_agent("rack")

    def is_on_again() -> bool:
        return run_cli("power", BOARD, "-o", "quiet", state=lab.state).stdout == "on\n"

    async def is_adopted() -> bool:
        return await asyncio.to_thread(is_on_again)

    await until(is_adopted, within_s=60.0)
    assert qemus(lab) == [pid], "the next agent has it again, and has not started another"
    lab.kill("rack")
    lab.run_agent("rack")
    ran = await asyncio.to_thread(run_cli, "submit", str(host_job), "--wait", state=lab.state)
    assert ran.returncode == 0, ran.stderr  # so the next agent works, without a look at the board
    assert qemus(lab) == [pid]
    await asyncio.to_thread(lab.stop)
    assert not qemus(lab), "an agent that is stopped leaves no board, even one it has not used"


async def test_a_board_whose_agent_never_comes_back_ends(lab: LabProcesses) -> None:
    state = lab.state / "agents" / "rack" / "store" / "agent"
    state.mkdir(parents=True)
    shepherd = await Shepherd.open(state, ShepherdSettings(orphan_s=1.0))
    await started(lab)
    await asyncio.to_thread(powered_on, lab)
    await shepherd.close()  # from now on it has the agent alone
    assert qemus(lab)
    lab.kill("rack")

    async def is_gone() -> bool:
        return not await asyncio.to_thread(qemus, lab)

    await until(is_gone, within_s=60.0)
