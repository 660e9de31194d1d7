"""``tshrag`` against a real lab: broker, controller and agent as processes."""

import asyncio
import csv
import io
import json
import os
import pty
import select
import signal
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import TSHRAG, environment_of, run_cli
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cli-lab")]

LOAD = """\
name = "wave"
version = "1"
[[platforms]]
entry = "run.sh"
[[metrics]]
key = "network.latency"
unit = "ms"
"""
WAVE = """\
#!/bin/sh
for i in 1 2 3 4 5 6; do echo "::metric network::latency $((i * 10))ms"; done
printf '\\033]52;c;ZXZpbA==\\007\\033[31mred\\033[0m<script>alert(1)</script>\\n'
"""
PROFILE = {
    "name": "wave <b>1</b>",
    "loads": {"wave": {"path": "loads/wave"}},
    "schedule": {
        "sequence": [
            {"name": "measure", "load": "wave"},
            {"name": "broken", "command": "sh -c 'echo no >&2; exit 3'", "on_fail": "continue"},
        ]
    },
    "criteria": {
        "mean": {"metric": "network::latency::avg", "max": "100ms"},
        "peak": {"metric": "network::latency::max", "max": "50ms"},
    },
}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the state folder of a lab with one agent."""
    state = tmp_path_factory.mktemp("cli-lab")
    lab = LabProcesses(state, {"TSHRAG_STATE": str(state)})
    try:
        lab.start_controller()
        asyncio.run(lab.wait_ready())
        lab.start_agent("a1", slots=3)
        asyncio.run(lab.wait_agents(1))
        yield state
    finally:
        lab.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with profiles, and a load beside them."""
    folder = tmp_path_factory.mktemp("profiles")
    load = folder / "loads" / "wave"
    load.mkdir(parents=True)
    (load / "load.toml").write_text(LOAD)
    (load / "run.sh").write_text(WAVE)
    (load / "run.sh").chmod(0o755)
    (folder / "wave.json").write_text(json.dumps(PROFILE))
    passing = {"name": "good", "schedule": {"command": "true"}}
    (folder / "good.json").write_text(json.dumps(passing))
    short = {"name": "short", "schedule": {"seq": [{"cmd": "sleep 0.9"}, {"cmd": "true"}]}}
    (folder / "short.json").write_text(json.dumps(short))
    (folder / "long.json").write_text(
        json.dumps({"name": "long", "schedule": {"command": "sleep 600"}})
    )
    return folder


@pytest.fixture(scope="module")
def wave(state: Path, folder: Path) -> str:
    """Give the id of a run that has failed by one of its criteria."""
    done = run_cli("submit", str(folder / "wave.json"), "--wait", "--json", state=state)
    assert done.returncode == 1, done.stderr
    run = json.loads(done.stdout)
    assert {each["criterion"]: each["verdict"] for each in run["evidence"]} == {
        "mean": "pass", "peak": "fail",
    }  # fmt: skip
    return str(run["id"])


def test_what_passes_ends_with_zero(state: Path, folder: Path) -> None:
    done = run_cli("submit", "good.json", "--wait", state=state, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "✓ passed" in done.stdout


def test_without_a_terminal_watch_prints_a_line_for_each_move(state: Path, folder: Path) -> None:
    done = run_cli("submit", "short.json", "--watch", state=state, cwd=folder)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert any(" passed on a1" in line for line in done.stdout.splitlines())


def test_the_end_of_a_run_says_which_jobs_broke_it(state: Path, tmp_path: Path) -> None:
    steps = [{"name": f"s{code}", "command": f"sh -c 'exit {code}'"} for code in (7, 8)]
    profile = tmp_path / "broken.json"
    profile.write_text(json.dumps({"name": "x", "schedule": {"parallel": steps}}))
    done = run_cli("submit", str(profile), "--wait", state=state)
    assert done.returncode == 1
    assert done.stdout.count("s7: exit code 7") == 1
    assert done.stdout.count("s8: exit code 8") == 1


def test_up_says_at_once_what_keeps_it_from_its_bus_and_ends_when_asked(tmp_path: Path) -> None:
    gone = "nats://127.0.0.1:1"
    environment = environment_of(tmp_path / "lab", {"TSHRAG_NATS_URL": gone})
    with subprocess.Popen(
        (*TSHRAG, "up"), env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(f"nats: cannot reach {gone} (refused), next")
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(20) == 130
    assert rest.endswith("ended before the lab was ready\n")


def test_a_lab_ends_with_the_terminal_that_it_stands_in(tmp_path: Path) -> None:
    state = tmp_path / "lab"
    child, terminal = pty.fork()
    if child == 0:
        os.execve(TSHRAG[0], [*TSHRAG, "up"], environment_of(state))
    said = b""
    while b"is online" not in said:
        assert select.select([terminal], [], [], 45)[0], said
        said += os.read(terminal, 4096)
    broker = int((state / "nats" / "run" / "nats.pid").read_text())
    os.close(terminal)  # as a closed window, or a lost ssh session
    os.waitpid(child, 0)
    assert not Path(f"/proc/{broker}").exists()
    left = [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(state) in _text(path)
    ]
    assert not left


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended meanwhile
        return ""


def test_a_second_up_is_refused_and_leaves_the_lab_as_it_was(state: Path) -> None:
    broker = (state / "nats" / "run" / "nats.pid").read_text()
    done = run_cli("up", state=state)
    assert done.returncode == 2
    assert done.stderr.startswith(f"already_running: {state}: a lab is at work here; ")
    assert run_cli("health", state=state).returncode == 0
    assert (state / "nats" / "run" / "nats.pid").read_text() == broker


def test_the_same_key_is_the_same_run(state: Path, folder: Path) -> None:
    words = ("submit", "good.json", "--key", "nightly-1", "-o", "quiet")
    first, second = (run_cli(*words, state=state, cwd=folder).stdout for _ in range(2))
    assert first.startswith("run-")
    assert first == second


def test_status_shows_jobs_verdicts_and_places(state: Path, wave: str) -> None:
    done = run_cli("status", wave, state=state)
    for part in ("✗ failed", "measure", "a1", "peak", "≤ 50 ms", "-10 ms", "exit code 3"):
        assert part in done.stdout
    one = run_cli("status", f"{wave}:2", "--json", state=state)
    assert json.loads(one.stdout)["attempts"][0]["exit_code"] == 3


def test_an_unknown_run_names_the_nearest(state: Path, wave: str) -> None:
    done = run_cli("status", wave[:-1] + ("0" if wave[-1] != "0" else "1"), state=state)
    assert done.returncode == 2
    assert done.stderr.startswith("unknown_run: ")
    assert wave in done.stderr


def test_list_says_when_there_is_more(state: Path, wave: str, folder: Path) -> None:
    run_cli("submit", "good.json", "--wait", state=state, cwd=folder)
    done = run_cli("list", "--limit", "1", "-o", "quiet", state=state)
    assert done.stdout.count("\n") == 1
    assert "there are more: tshrag list --offset 1" in done.stderr


def test_output_is_raw_in_a_pipe_and_harmless_on_a_terminal(state: Path, wave: str) -> None:
    raw = run_cli("logs", f"{wave}:1", state=state)
    assert "\x1b]52;c;ZXZpbA==\x07\x1b[31mred" in raw.stdout
    shown = on_a_terminal(state, "logs", f"{wave}:1")
    assert b"\x1b]52" not in shown
    assert rb"\x1b]52;c;ZXZpbA==\x07\x1b[31mred\x1b[0m<script>" in shown
    assert run_cli("logs", f"{wave}:2", "--stderr", "-f", state=state).stdout == "no\n"


def on_a_terminal(state: Path, *words: str) -> bytes:
    """Return what a command writes on a real terminal."""
    master, slave = pty.openpty()
    env = {**environment_of(state), "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen((*TSHRAG, *words), stdin=slave, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    shown, ends = b"", time.monotonic() + 30
    while time.monotonic() < ends:
        if select.select([master], [], [], 0.2)[0]:
            try:
                shown += os.read(master, 65_536)
            except OSError:  # the other end is closed
                break
        elif process.poll() is not None:
            break
    process.wait(10)
    os.close(master)
    return shown


def test_metrics_have_statistics_csv_and_a_drawing(state: Path, wave: str) -> None:
    table = run_cli("metrics", wave, "network::*", "--stat", "avg", "--stat", "p50", state=state)
    assert "35 ms" in table.stdout
    exported = run_cli("metrics", wave, "network::latency", "--csv", state=state).stdout
    rows = list(csv.reader(io.StringIO(exported)))
    assert rows[0] == ["timestamp", "value"]
    assert [row[1] for row in rows[1:]] == ["10", "20", "30", "40", "50", "60"]
    drawn = run_cli("metrics", wave, "network::latency", "--plot", state=state).stdout
    assert "100 ms┤" in drawn  # the bound is in sight
    assert "6 samples" in drawn
    wrong = run_cli("metrics", wave, "network::latncy", state=state)
    assert wrong.returncode == 2
    assert "nearest: network.latency" in wrong.stderr


def test_samples_of_every_metric_go_into_a_folder(state: Path, wave: str, tmp_path: Path) -> None:
    done = run_cli("metrics", wave, "--csv", "--out", str(tmp_path / "samples"), state=state)
    assert done.returncode == 0, done.stderr
    assert "network::latency.csv" in {path.name for path in (tmp_path / "samples").iterdir()}


def test_reports_in_every_format_tell_of_the_same_run(
    state: Path, wave: str, tmp_path: Path
) -> None:
    made = {}
    for form in ("table", "md", "json", "junit", "html"):
        path = tmp_path / form
        done = run_cli("report", wave, "--format", form, "--out", str(path), state=state)
        assert done.returncode == 0, done.stderr
        made[form] = path.read_text()
    assert json.loads(made["json"])["run"]["id"] == wave
    assert ElementTree.fromstring(made["junit"]).get("failures") == "2"
    assert "<script" not in made["html"]
    assert "wave &lt;b&gt;1&lt;/b&gt;" in made["html"]
    again = run_cli("report", wave, "--format", "html", state=state).stdout
    assert again == made["html"]
    of_a_job = run_cli("report", f"{wave}:1", state=state)
    assert of_a_job.returncode == 2
    assert of_a_job.stderr == f"invalid_id: run: {wave}:1 is a job; name its run, as {wave}\n"


def test_a_retry_runs_the_same_bytes(state: Path, wave: str) -> None:
    done = run_cli("retry", wave, "--wait", "--json", state=state)
    assert done.returncode == 1, done.stderr
    again = json.loads(done.stdout)
    assert again["retry_of"] == wave
    first = json.loads(run_cli("status", wave, "--json", state=state).stdout)["run"]
    assert again["loads"] == first["loads"]


def test_a_plan_shows_digest_order_and_places_and_changes_nothing(
    state: Path, folder: Path
) -> None:
    before = run_cli("list", "-o", "quiet", state=state).stdout
    done = run_cli("plan", "wave.json", state=state, cwd=folder)
    assert done.returncode == 0, done.stderr
    for part in ("wave", "measure", "→ a1", "after 1", "places for 2 jobs"):
        assert part in done.stdout
    assert run_cli("list", "-o", "quiet", state=state).stdout == before


def test_a_load_that_is_no_load_is_named_with_its_line(state: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "p.yaml").write_text("name: p\nloads:\n  x: {path: empty}\nschedule: {load: x}\n")
    done = run_cli("submit", "p.yaml", state=state, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("manifest_missing: p.yaml:3: loads.x.path: ")


def test_what_the_controller_finds_wrong_is_shown_with_the_line_of_the_file(
    state: Path, tmp_path: Path
) -> None:
    (tmp_path / "p.yaml").write_text(
        "name: p\nloads:\n  x: {path: 'builtin:nope'}\nschedule: {load: x}\n"
    )
    done = run_cli("submit", "p.yaml", state=state, cwd=tmp_path)
    assert done.returncode == 2
    assert "p.yaml:3: loads.x" in done.stderr


def test_cancel_ends_a_run_with_four_and_names_what_was_stopped(state: Path, folder: Path) -> None:
    run = run_cli("submit", "long.json", "-o", "quiet", state=state, cwd=folder).stdout.strip()
    waiting = run_cli("wait", run, "--timeout", "0.5", state=state)
    assert waiting.returncode == 5
    assert "the run goes on" in waiting.stderr
    done = run_cli("cancel", run, state=state)
    assert done.returncode == 0
    assert "sleep" in done.stdout
    assert run_cli("wait", run, state=state).returncode == 4
    again = run_cli("cancel", run, state=state)
    assert again.returncode == 2
    assert again.stderr.startswith("already_final: ")


def test_ctrl_c_leaves_the_run_going_and_says_so(state: Path, folder: Path) -> None:
    run = run_cli("submit", "long.json", "-o", "quiet", state=state, cwd=folder).stdout.strip()
    process = subprocess.Popen(
        (*TSHRAG, "watch", run), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**environment_of(state), "PYTHONUNBUFFERED": "1"}, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"the run goes on; 'tshrag watch {run}' shows it" in said
    state_of = json.loads(run_cli("status", run, "--json", state=state).stdout)["run"]["state"]
    assert state_of in ("waiting", "running")
    assert run_cli("cancel", run, state=state).returncode == 0


def test_why_names_what_is_missing_place_by_place(state: Path, tmp_path: Path) -> None:
    profile = {
        "name": "p",
        "targets": {"board": {"kind": "rpi4", "runtime": "ssh"}},
        "schedule": {"command": "true", "target": "board"},
    }
    (tmp_path / "p.json").write_text(json.dumps(profile))
    run = run_cli("submit", "p.json", "--park", "-o", "quiet", state=state, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    done = run_cli("why", run.stdout.strip(), state=state)
    assert done.returncode == 0
    assert "waiting" in done.stdout
    assert run_cli("cancel", run.stdout.strip(), state=state).returncode == 0


def test_the_lab_is_shown(state: Path) -> None:
    assert "a1" in run_cli("agent", "list", state=state).stdout
    assert "slots" in run_cli("agent", "show", "a1", state=state).stdout
    assert "nearest: a1" in run_cli("agent", "show", "a2", state=state).stderr
    assert "no DUTs" in run_cli("dut", "list", state=state).stdout
    assert "of 3 taken" in run_cli("stats", state=state).stdout
    health = run_cli("health", "--json", state=state)
    assert (health.returncode == 0) == (json.loads(health.stdout)["status"] == "ok")
    config = json.loads(run_cli("config", "show", "--json", state=state).stdout)
    assert config["url"]["origin"] == str(state / "me.json")
