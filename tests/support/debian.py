"""Debian programs that tests drive: installed where that is possible, a loud skip elsewhere."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

PLACES = "/usr/local/sbin:/usr/sbin:/sbin"


def need_program(name: str, package: str) -> str:
    """Return the path of `name`; install `package` when root; in CI a missing one is a failure."""
    found = _find(name) or _install(name, package)
    if found:
        return found
    reason = f"{name} is not here: apt-get install {package}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _find(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":" + PLACES)


def _install(name: str, package: str) -> str | None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return None
    with Path(tempfile.gettempdir(), "tshrag-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _find(name):
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            for command in (["update", "-q"], ["install", "-y", "-q", package]):
                subprocess.run(
                    ["apt-get", *command], env=environment, capture_output=True, check=False
                )
    return _find(name)
