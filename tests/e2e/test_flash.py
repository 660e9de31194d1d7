"""Boards that are flashed by a command of their host: two at once behind one hub, verified."""

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.command_line import run_cli
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("e2e")]

FLASHER = """#!/bin/sh
# flasher FOLDER BOARD IMAGE SLOT: writes, shows how far it is, and reads back
cd "$1" || exit 9
echo "begin $2" >>log
until [ -e go ] || [ "$(grep -c begin log)" -ge 2 ]; do sleep 0.05; done
touch go
for part in 25 50 75 100; do echo "$2: $part %"; sleep 0.1; done
cp "$3" "$2.$4.flash"
[ "$2" = bad ] && printf x >>"$2.$4.flash"
if ! cmp "$3" "$2.$4.flash"; then echo "end $2" >>log; echo "$2: verify failed" >&2; exit 4; fi
echo "end $2" >>log
"""

MANIFEST = 'name = "fw"\nversion = "1"\n[[platforms]]\nentry = "image.bin"\n'

DUT = """
[[dut]]
id = "{name}"
kind = "bench"
[dut.local]
[dut.flash]
command = ["{flasher}", "{folder}", "{{dut}}", "{{image}}", "{{slot}}"]
timeout_s = {timeout_s}
"""

TAKES = "resources: { usb-hub: 1 }, consumes: { pdu: 1 }"
ROLES = "".join(
    f"  {name}: {{ duts: [{name}], hold: job, {TAKES} }}\n" for name in ("b1", "b2", "b3", "bad")
)
HEAD = f"""
name: flash
tolerant: true
limits: {{ attempts: 1 }}
loads: {{ fw: {{ path: ./fw }} }}
targets:
{ROLES}
schedule:
"""
THREE = (
    HEAD
    + "  parallel:\n"
    + "".join(
        f"    - {{ flash: {{ load: fw, path: image.bin, slot: a }}, target: {name} }}\n"
        for name in ("b1", "b2", "b3")
    )
)
BAD = (
    HEAD
    + """
  sequence:
    - { flash: { load: fw, path: image.bin, slot: a }, target: bad }
    - { flash: { load: fw, path: nothing.bin }, target: b1 }
"""
)


async def test_boards_are_flashed_two_at_once_and_what_fails_says_so(
    lab: LabProcesses, tmp_path: Path
) -> None:
    bench = tmp_path / "bench"
    bench.mkdir()
    flasher = tmp_path / "flasher"
    flasher.write_text(FLASHER)
    flasher.chmod(0o755)
    names = ("b1", "b2", "b3", "bad")
    text = "".join(
        DUT.format(name=name, flasher=flasher, folder=bench, timeout_s=60) for name in names
    )
    lab.start_controller("[scheduler]\nconsumables = { pdu = { every_s = 0.3 } }\n")
    await lab.wait_ready()
    lab.start_agent("rack", "[resources]\nusb-hub = 2\n" + text, slots=1)
    await lab.wait_agents(1)
    folder = tmp_path / "profiles"
    (folder / "fw").mkdir(parents=True)
    image = os.urandom(100_000)
    (folder / "fw" / "image.bin").write_bytes(image)
    (folder / "fw" / "load.toml").write_text(MANIFEST)
    look(lab, folder, bench, image)


def look(lab: LabProcesses, folder: Path, bench: Path, image: bytes) -> None:
    (folder / "three.yaml").write_text(THREE)
    done = run_cli("submit", str(folder / "three.yaml"), "--wait", state=lab.state)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all((bench / f"{name}.a.flash").read_bytes() == image for name in ("b1", "b2", "b3"))
    at_once = most = 0
    for line in (bench / "log").read_text().splitlines():
        at_once += 1 if line.startswith("begin") else -1
        most = max(most, at_once)
    assert (at_once, most) == (0, 2), "behind a hub that bears two"
    shown = run_cli("status", "last", "-o", "json", state=lab.state).stdout
    given = sorted(job["attempts"][0]["assigned_at"] for job in json.loads(shown)["jobs"])
    assert all(b - a >= 300_000 for a, b in pairwise(given)), "one after the other at the PDU"
    said = [run_cli("logs", f"last:{number}", state=lab.state).stdout for number in (1, 2, 3)]
    assert sorted(each.splitlines()[3] for each in said) == [
        f"{name}: 100 %" for name in ("b1", "b2", "b3")
    ]
    (folder / "bad.yaml").write_text(BAD)
    done = run_cli("submit", str(folder / "bad.yaml"), "--wait", state=lab.state)
    assert done.returncode != 0
    shown = run_cli("status", "last", "-o", "json", state=lab.state).stdout
    errors = [each["error"]["code"] for each in json.loads(shown)["jobs"]]
    assert errors == ["command_failed", "entry_missing"]
    assert "verify failed" in shown
