"""Failpoints do what is asked in tests, and nothing anywhere else."""

import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tshrag_common.failpoints import FAILPOINTS, UnknownFailpoint, bound

ROOT = Path(__file__).parent.parent.parent
TEST = {"TSHRAG_TEST_MODE": "1"}


def test_without_the_variable_nothing_is_called() -> None:
    assert bound({}) is bound(TEST)
    assert bound({}).__name__ == "_nothing"


def test_outside_of_tests_the_variable_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert bound({"TSHRAG_FAILPOINT": "engine.decided"}) is bound({})
    assert "TSHRAG_FAILPOINT is refused" in caplog.text


@pytest.mark.parametrize("text", ["engine", "engine.decided:0", "engine.decided:explode", ","])
def test_what_cannot_be_understood_is_said(text: str) -> None:
    with pytest.raises(UnknownFailpoint, match=r"journal\.before_fsync"):
        bound({**TEST, "TSHRAG_FAILPOINT": text})


def test_a_full_disk_is_told_once_at_the_nth_passage() -> None:
    pass_by = bound({**TEST, "TSHRAG_FAILPOINT": "journal.before_fsync:2:enospc"})
    pass_by("journal.before_fsync")
    pass_by("engine.decided")
    with pytest.raises(OSError, match="No space left"):
        pass_by("journal.before_fsync")
    pass_by("journal.before_fsync")


@pytest.mark.parametrize("module", ["tshrag_common.failpoints", "tshrag_agent.shepherd.failpoint"])
def test_a_panic_is_a_kill_at_the_nth_passage(module: str) -> None:
    code = f"from {module} import failpoint as f; f('shepherd.ended'); print('once', flush=True)"
    environment = {**os.environ, **TEST, "TSHRAG_FAILPOINT": "shepherd.ended:2"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; f('shepherd.ended'); print('twice')"],
        env=environment, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == (b"once\n", -signal.SIGKILL)


def test_every_name_is_a_place_in_the_code_and_on_its_page() -> None:
    houses = (ROOT / "agent", ROOT / "controller")
    found = re.compile(r"failpoint\(\"([a-z_.]+)\"\)")
    text = "".join(path.read_text() for house in houses for path in house.rglob("*.py"))
    assert sorted(found.findall(text)) == sorted(FAILPOINTS)
    page = (ROOT / "docs/explanation/proving-it.md").read_text()
    assert [name for name in FAILPOINTS if f"`{name}`" not in page] == []
