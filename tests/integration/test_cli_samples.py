"""``tshrag metrics``, ``query`` and ``store`` against a lab of processes."""

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import run_cli
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cli-samples")]

PROFILE = {
    "name": "many",
    "loads": {"samples": {"path": "builtin:samples"}},
    "schedule": {
        "repeat": {"times": 2, "of": {"load": "samples", "params": {"count": 3000}}},
    },
}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the state folder of a lab in which a run of 6,000 samples has passed."""
    state = tmp_path_factory.mktemp("samples-lab")
    lab = LabProcesses(state, {"TSHRAG_STATE": str(state)})
    try:
        lab.start_controller()
        asyncio.run(lab.wait_ready())
        lab.start_agent("a1", slots=2)
        asyncio.run(lab.wait_agents(1))
        (state / "many.json").write_text(json.dumps(PROFILE))
        done = run_cli("submit", "many.json", "--wait", state=state, cwd=state)
        assert done.returncode == 0, done.stderr
        yield state
    finally:
        lab.stop()


def test_metrics_say_what_they_are(state: Path) -> None:
    done = run_cli("metrics", "last", "samples.*", "--info", "--json", state=state)
    assert done.returncode == 0, done.stderr
    (info,) = json.loads(done.stdout)["infos"]
    assert (info["key"], info["count"], info["series"]) == ("samples.value", 6000, 2)
    assert info["writers"] == ["samples"] and info["last_at"] >= info["first_at"] > 0
    done = run_cli("metrics", "last", "--info", state=state)
    assert "samples.value" in done.stdout and "writer" in done.stdout


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_samples_are_told_by_job_by_step_and_as_files(state: Path) -> None:
    done = run_cli(
        "metrics", "last", "samples.value", "--by", "job", "--stat", "count", "--json", state=state
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["names"] == ["key", "job", "unit", "count"]
    assert [row[-1] for row in told["rows"]] == [3000, 3000]
    table = run_cli("metrics", "all", "samples*", "--since", "-1h", "--by", "host", state=state)
    assert "a1" in table.stdout
    assert "6000" in table.stdout
    raw = run_cli("metrics", "last:1", "samples.value", "--format", "csv", state=state)
    assert raw.returncode == 2  # a job is named by --job
    raw = run_cli(
        "metrics", "last", "samples.value", "--job", "last:1", "--format", "csv", state=state
    )
    assert len(rows_of(raw.stdout)) == 3000


def test_samples_are_drawn_into_files_and_on_the_terminal(state: Path) -> None:
    for name in ("x.png", "x.svg"):
        done = run_cli(
            "metrics", "last", "samples.value", f"--{name[-3:]}", name, state=state, cwd=state
        )
        assert done.returncode == 0, done.stderr
    assert (state / "x.png").read_bytes()[:4] == b"\x89PNG"
    assert b"<svg" in (state / "x.svg").read_bytes()
    drawn = run_cli("metrics", "last", "samples.value", "--by", "host", "--plot", state=state)
    assert drawn.stdout.startswith("samples.value a1\n")
    assert "┤" in drawn.stdout
    assert "no single number" in run_cli("metrics", "all", "--stat", "hist", state=state).stderr


def test_a_query_reads_what_the_store_holds_before_and_after_sealing(state: Path) -> None:
    count = "SELECT count(*) AS n FROM samples WHERE key = 'samples.value'"
    for _ in range(2):
        done = run_cli("query", count, state=state)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[:2] == ["n", "6000"]
        assert run_cli("store", "seal", state=state).returncode == 0
    status = json.loads(run_cli("store", "status", "--json", state=state).stdout)
    places = {each["place"]: each for each in status["places"]}
    assert places["local"]["samples"] >= 6000
    assert run_cli("store", "verify", state=state).returncode == 0
    done = run_cli(
        "store", "export", "--run", "last", "--format", "csv", "--out", "all.csv",
        state=state, cwd=state,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(rows_of((state / "all.csv").read_text())) >= 6000
    assert "p95" in run_cli("metrics", "last", state=state).stdout  # from segments


def test_a_query_that_is_none_ends_with_two_and_one_line(state: Path) -> None:
    for sql, said in (
        ("SELECT * FROM sampels", "did you mean 'samples'?"),
        ("DROP TABLE samples", "it is no SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "no table of samples"),
        ("SELECT nothing FROM samples", "nothing"),
    ):
        done = run_cli("query", sql, state=state)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
