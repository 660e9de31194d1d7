"""What the demo needs around it: a git repository with a load, and two simulated boards."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tshrag_controller.cli.processes import LabProcesses, ProcessDied

LOAD_TOML = """\
name = "iperf-module"
version = "3.1"
description = "Plays a throughput test: a second of it takes a two-hundredth of one"
runs = "dut"
namespace = "network"

[[platforms]]
entry = "run.sh"

[params.duration]
type = "integer"
default = 60
min = 1
max = 3600
description = "seconds of the test, one sample each"

[params.base_ms]
type = "number"
default = 80
min = 0

[[metrics]]
key = "network::latency"
unit = "ms"
description = "round trip"

[[metrics]]
key = "network::throughput"
unit = "Mbps"
"""

RUN_SH = """\
#!/bin/sh
# Plays the test: every simulated second one sample of latency and of throughput.
number() { sed -n "s/.*\\"$1\\": *\\([0-9.]*\\).*/\\1/p" "$TSHRAG_PARAMS"; }
duration=$(number duration)
base=$(number base_ms)
echo "iperf-module 3.1 on $(hostname): $duration seconds at $base ms"
awk -v n="$duration" -v base="$base" -v seed="${SIM_SEED:-1}" 'BEGIN {
    srand(seed)
    for (second = 1; second <= n; second++) {
        latency = base + 25 * sin(second / 20) + 12 * rand()
        printf "::metric network::latency %.3fms\\n", latency
        printf "::metric network::throughput %.1fMbps\\n", 940 - latency - 20 * rand()
        if (second % 20 == 0) { fflush(); system("sleep 0.1") }
    }
}'
echo done
"""

EXAMPLE = """\
// Example test configuration
{
  "name": "network_stress_test",
  "loads": {
    "traffic_gen": {
      "path": "git@repo:tools/iperf-module.git#v3.1"
    }
  },
  "schedule": {
    "sequence": [
      {
        "load": "traffic_gen",
        "params": { "duration": 600 }
      }
    ]
  },
  "criteria": {
    "latency": {
      "metric": "network::latency::avg",
      "max": "150ms"
    }
  }
}
"""


def make_repository(folder: Path) -> str:
    """Make the repository that the example names, with its tag; return the rewrite for it."""
    tree = folder / "tools" / "iperf-module.git"
    tree.mkdir(parents=True)
    (tree / "load.toml").write_text(LOAD_TOML)
    (tree / "run.sh").write_text(RUN_SH)
    (tree / "run.sh").chmod(0o755)
    who = ["-c", "user.name=demo", "-c", "user.email=demo@lab.invalid"]
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "."],
        [*who, "commit", "--quiet", "--message", "Play a throughput test"],
        [*who, "tag", "--annotate", "--message", "3.1", "v3.1"],
    ):
        _git(tree, command)
    return f'\n[loads]\nrewrite = {{ "git@repo:" = "{folder}/" }}\n'


def _git(tree: Path, command: list[str]) -> None:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    try:
        subprocess.run(
            ["git", "-C", str(tree), *command],
            check=True,
            capture_output=True,
            env=environment,
            timeout=30,
        )
    except FileNotFoundError:
        raise ProcessDied("git", "it is not installed", "install git") from None
    except subprocess.CalledProcessError as error:
        raise ProcessDied("git", error.stderr.decode(errors="replace")[-300:]) from None


def start_board(lab: LabProcesses, name: str, module: str, *options: str) -> Mapping[str, object]:
    """Start a simulated board; return what it said when it could be reached.

    Raises:
        ProcessDied: it did not come up.

    """
    folder = lab.state / "boards" / name
    folder.mkdir(parents=True)
    log = lab.log_of(name)
    argv = ["--dir", str(folder), "--hostname", name, "--with-parent", *options]
    lab.start(name, f"tshrag_agent.simulator.{module}", *argv)
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        lab.check(name)
        for line in log.read_text().splitlines():
            if line.startswith("{"):
                said: dict[str, object] = json.loads(line)
                return said
        time.sleep(0.05)
    raise ProcessDied(name, "the board did not come up")


def ssh_dut(name: str, said: Mapping[str, object]) -> str:
    """Return the ``[[dut]]`` of a board that answers SSH."""
    return f"""\
[[dut]]
id = "{name}"
kind = "sim-ssh"
labels = {{ room = "demo" }}

[dut.ssh]
host = "{said["host"]}"
port = {said["port"]}
user = "{said["user"]}"
host_key = "{said["host_key"]}"
key_file = "{said["key_file"]}"
"""


def serial_dut(name: str, said: Mapping[str, object], password_file: Path) -> str:
    """Return the ``[[dut]]`` of a board on a serial line, behind a login prompt."""
    return f"""\
[[dut]]
id = "{name}"
kind = "sim-serial"
labels = {{ room = "demo" }}

[dut.serial]
url = "{said["path"]}"

[dut.serial.login]
user = "root"
password_file = "{password_file}"
"""


UBOOT = Path("/usr/lib/u-boot/qemu_arm/u-boot.bin")
BOOT: dict[str, object] = {
    "name": "uboot_on_qemu",
    "targets": {"board": {"kind": "qemu-arm"}},
    "schedule": {
        "sequence": [
            {"boot": {"to": "bootloader", "fresh": True}, "target": "board"},
            {"bootloader": ["setenv lab demo", "printenv lab"], "target": "board"},
            {"power": "off", "target": "board"},
        ]
    },
}


def has_qemu() -> bool:
    """Tell whether this machine can have a board with a real bootloader."""
    return UBOOT.exists() and shutil.which("qemu-system-arm") is not None


def qemu_dut(name: str) -> str:
    """Return the ``[[dut]]`` of a QEMU with U-Boot."""
    return f"""\

[[dut]]
id = "{name}"
kind = "qemu-arm"
labels = {{ room = "demo" }}

[dut.qemu]
program = "qemu-system-arm"
machine = "virt"
memory = "128M"
firmware = "{UBOOT}"
network = false

[dut.boot.bootloader]
timeout_s = 120.0
"""
