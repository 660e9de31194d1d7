"""The history of a test: one line an event, by processes that may die between any two."""

import json
import time
from pathlib import Path

from tshrag_common import history


def test_production_writes_nothing(tmp_path: Path) -> None:
    assert history.writer({}) is None
    assert history.writer({"TSHRAG_HISTORY": str(tmp_path)}) is None
    assert not history.IS_ON


def test_a_line_says_who_did_what_when(tmp_path: Path) -> None:
    before = time.monotonic_ns()
    writer = history.writer({"TSHRAG_HISTORY": str(tmp_path), "TSHRAG_TEST_MODE": "1"})
    assert writer is not None
    writer.be("agent a1")
    writer("taken", job="r.1", attempt=1, dut="rpi4", fence=7)
    writer("gone", job="r.1", fence=7)
    (file,) = tmp_path.iterdir()
    first, second = map(json.loads, file.read_text().splitlines())
    assert (first["actor"], first["ev"], first["fence"]) == ("agent a1", "taken", 7)
    assert before <= first["mono_ns"] <= second["mono_ns"] <= time.monotonic_ns()
    assert first["boot"] == second["boot"]
