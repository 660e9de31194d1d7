"""``tshrag`` as people run it: a process, its output and its exit code."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

QGJOB = (sys.executable, "-c", "from tshrag_controller.cli.qgjob import main; main()")
TSHRAG = (sys.executable, "-c", "from tshrag_controller.cli.app import main; main()")


def environment_of(state: Path | None, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which no other lab is known than that of `state`."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("TSHRAG_")}
    nowhere = str(state or "/nonexistent")
    return {**kept, "TSHRAG_STATE": nowhere, "XDG_CONFIG_HOME": nowhere, **(more or {})}


def run_cli(
    *words: str,
    state: Path | None = None,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    program: tuple[str, ...] = TSHRAG,
) -> "subprocess.CompletedProcess[str]":
    """Run one command line to its end."""
    return subprocess.run(
        (*program, *words),
        input=stdin,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=50,
        check=False,
        cwd=cwd,
        env=environment_of(state, environment),
    )
