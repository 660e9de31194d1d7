"""The units: systemd understands them, and their walls are as high as they have to be."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.debian import need_program

ROOT = Path(__file__).parent.parent
UNITS = sorted((ROOT / "systemd").glob("*.service"))
BARS = {"tshrag-controller": 2.5, "tshrag-agent": 4.0, "tshrag-nats": 2.5}

unit_each = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)


def installed(unit: Path, folder: Path) -> Path:
    """Copy a unit so that its programs and users are there: those of the lab are not."""
    text = re.sub(r"^(ExecStart=)/opt/\S+", r"\1/bin/true", unit.read_text(), flags=re.MULTILINE)
    copy = folder / unit.name
    copy.write_text(text)
    return copy


@unit_each
def test_systemd_understands_the_unit(unit: Path, tmp_path: Path) -> None:
    analyze = need_program("systemd-analyze", package="systemd")
    for each in UNITS:
        installed(each, tmp_path)
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / unit.name)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert unit.name not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


@unit_each
def test_the_walls_of_the_unit_are_high_enough(unit: Path, tmp_path: Path) -> None:
    analyze = need_program("systemd-analyze", package="systemd")
    bar = BARS[unit.stem]
    done = subprocess.run(
        [analyze, "security", "--offline=yes", "--no-pager", f"--threshold={round(bar * 10)}",
         str(installed(unit, tmp_path))],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    level = re.search(r"exposure level for \S+ ([0-9.]+)", done.stdout)
    assert level, done.stderr
    assert float(level[1]) <= bar, done.stdout


@unit_each
def test_a_unit_starts_again_but_not_against_a_refusal(unit: Path) -> None:
    text = unit.read_text()
    assert "Restart=always" in text
    if unit.stem != "tshrag-nats":
        assert re.search(r"^RestartPreventExitStatus=2$", text, re.MULTILINE)


def test_the_agent_may_make_cgroups_and_leaves_its_shepherd_alone() -> None:
    text = (ROOT / "systemd/tshrag-agent.service").read_text()
    assert re.search(r"^Delegate=yes$", text, re.MULTILINE)
    assert re.search(r"^KillMode=process$", text, re.MULTILINE)
    assert not re.search(r"^ProtectControlGroups=yes$", text, re.MULTILINE)
