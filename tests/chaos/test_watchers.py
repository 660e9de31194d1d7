"""Those who only look: for secrets, and at how large processes are. They see what is there."""

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import canary, sampler
from tests.chaos.outcome import Once, markdown, row
from tshrag_common import history
from tshrag_common.ids import DEFAULT_ORG
from tshrag_common.labkeys import new_lab


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    note = lambda ev, **facts: lines.append({"ev": ev, **facts})  # noqa: E731 -- a fake of one line
    monkeypatch.setattr(history, "note", note)
    return lines


@pytest.mark.parametrize("form", ["plain", "base64", "hex"])
def test_a_secret_in_a_log_is_seen(tmp_path: Path, noted: list[dict[str, Any]], form: str) -> None:
    keys = new_lab(DEFAULT_ORG)
    keys.save(tmp_path / "keys.json")
    plain = keys.controller.encode()
    said = {"plain": plain, "base64": base64.b64encode(plain), "hex": plain.hex().encode()}[form]
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "agent.log").write_bytes(b"x" * canary._PIECE_BYTES + said + b" y")
    assert canary.search(tmp_path / "keys.json", tmp_path / "log") > canary._PIECE_BYTES
    seen = [(line["what"], line["form"]) for line in noted if line["ev"] == "secret_seen"]
    assert seen == [("controller", form)]


def test_a_lab_that_keeps_its_secrets_is_clean(tmp_path: Path, noted: list[dict[str, Any]]) -> None:
    new_lab(DEFAULT_ORG).save(tmp_path / "keys.json")
    (tmp_path / "agent.log").write_text("nothing of interest")
    canary.search(tmp_path / "keys.json", tmp_path)
    assert [line["ev"] for line in noted] == ["secrets_searched"]


def test_a_process_of_the_lab_is_measured(tmp_path: Path) -> None:
    code = "import sys, time; print('up', flush=True); time.sleep(60)"
    argv = [sys.executable, "-c", code, "tshrag_agent", "run"]
    environment = {**os.environ, "TSHRAG_HISTORY": str(tmp_path)}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            watcher = sampler.Sampler(tmp_path / "sampler.jsonl")
            watcher.measure(str(tmp_path))
            watcher.close()
            assert f"agent {process.pid}" in (tmp_path / "sampler.jsonl").read_text()
        finally:
            process.kill()


def test_a_row_tells_the_least_load_that_was_on() -> None:
    all_of = [Once(running=27, per_s=130.0), Once(running=24, per_s=101.4)]
    made = row("F1", "x", all_of, ())
    assert (made.running, made.per_s) == (24, 101.4)
    assert "| 24 jobs, 101/s |" in markdown([made])
