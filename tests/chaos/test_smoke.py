"""A minute of `make chaos`: an agent and a controller die under load, nothing is lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.xdist_group("e2e")]


def test_the_smoke_set_of_faults_meets_its_bars(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tests.chaos.run", "--set", "smoke", "--out", str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=380, check=False)
    told = f"{done.stdout}\n{done.stderr}"
    rows = json.loads((tmp_path / "chaos.json").read_text())["rows"]
    zero = ("lost", "doubled", "survivors", "broken")
    assert [row["fault"] for row in rows] == ["F1", "panic", "checker"], told
    assert all(row["counts"][name] == 0 for row in rows for name in zero), told


def test_a_lab_that_ends_main_processes_only_is_found_out() -> None:
    argv = [sys.executable, "-m", "tests.chaos.run", "--unsafe", "kill-parent-only", "cancel"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=380, check=False)
    assert "kill-parent-only: noticed" in done.stdout, f"{done.stdout}\n{done.stderr}"
