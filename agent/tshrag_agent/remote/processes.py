"""The processes of people on this host, as folders: what was asked, output, what became of it.

Everything is read from there, so that an agent that begins anew knows as much as the one before.
"""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

from tshrag_agent.remote import keeper
from tshrag_common.channel.wants import ExecView, ExecWant, veiled
from tshrag_common.errors import NotFound, Refused, Unavailable

KEPT_MOST = 256
START_S = 10.0
_ID = re.compile(r"x[0-9a-f]{12}")

Stream = Literal["stdout", "stderr"]


class Processes:
    """All of this host. Its methods block for moments: for a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(self, want: ExecWant, by: str) -> ExecView:
        """Start a process; it is there, or could not be started, when this returns."""
        if not want.argv:
            raise Refused("exec", "there is no command", "put it behind '--'", code="exec")
        if len(self._names()) >= KEPT_MOST:
            what = f"{KEPT_MOST} processes are kept on this host"
            raise Refused("exec", what, "remove what has ended", code="exec_full")
        name = f"x{secrets.token_hex(6)}"
        room = self._folder / name
        room.mkdir(parents=True, mode=0o700)
        os.mkfifo(room / "stdin", 0o600)
        for stream in ("stdout", "stderr"):
            (room / stream).touch(0o600)
        kept = {"argv": veiled(want), "by": by, "started_at": time.time_ns() // 1000}
        _write(room / "ask.json", kept)
        ask = {
            "argv": want.argv,
            "cwd": want.cwd or str(Path.home()),
            "env": _environment() | want.env,
            "stdin": want.stdin,
        }
        words = [sys.executable, "-I", "-S", keeper.__file__, str(room)]
        with (room / "keeper.log").open("ab") as log:  # what may be secret goes by a pipe alone
            told = json.dumps(ask).encode()
            subprocess.run(words, input=told, stdout=log, stderr=log, timeout=START_S, check=True)
        ends = time.monotonic() + START_S
        while not (room / "state.json").exists():
            if time.monotonic() > ends:
                raise Unavailable("exec", f"{name} did not start within {START_S:g} s", code="exec")
            time.sleep(0.01)
        return self.view(name)

    def views(self) -> tuple[ExecView, ...]:
        """Return all of them, oldest first."""
        return tuple(sorted(map(self.view, self._names()), key=lambda view: view.started_at))

    def view(self, name: str) -> ExecView:
        room = self.room(name)
        ask, state = _read(room / "ask.json"), _read(room / "state.json")
        code = state.get("code")
        alive = "ended_at" not in state and _is_alive(state)
        return ExecView(
            id=name,
            argv=tuple(ask.get("argv", ())),
            by=str(ask.get("by", "")),
            state=_state_of(state, alive),
            pid=int(state.get("pid", 0)),
            code=None if code is None else int(code),
            error=str(state.get("error", "")),
            started_at=int(ask.get("started_at", 0)),
            ended_at=int(state.get("ended_at", 0)),
            stdout_bytes=(room / "stdout").stat().st_size,
            stderr_bytes=(room / "stderr").stat().st_size,
            cut_bytes=int(state.get("cut_bytes", 0)),
        )

    def signal(self, name: str, number: int) -> ExecView:
        """Signal the process and all of its group; one that has ended is as it is."""
        view = self.view(name)
        if view.state == "running" and view.pid:
            try:
                os.killpg(view.pid, signal.Signals(number))
            except ProcessLookupError:
                pass
            except ValueError:
                raise Refused("exec", f"{number} is no signal", code="exec") from None
        return self.view(name)

    def close_stdin(self, name: str) -> None:
        """Let the process see the end of what comes in."""
        state = _read(self.room(name) / "state.json")
        if "ended_at" not in state and _is_alive(state):
            os.kill(int(state["keeper"]), signal.SIGUSR1)

    def remove(self, name: str) -> ExecView:
        """Forget one that has ended, with its output.

        Raises:
            Refused: it is at work (``exec_busy``).

        """
        view = self.view(name)
        if view.state == "running":
            fix = f"end it first: tshrag process signal HOST {name}"
            raise Refused("exec", f"{name} is at work", fix, code="exec_busy")
        shutil.rmtree(self.room(name))
        return view

    def read(self, name: str, stream: Stream, offset: int, most_bytes: int) -> bytes:
        with (self.room(name) / stream).open("rb") as file:
            file.seek(offset)
            return file.read(most_bytes)

    def room(self, name: str) -> Path:
        if not _ID.fullmatch(name) or not (self._folder / name / "ask.json").exists():
            raise NotFound("process", name[:40], self._names())
        return self._folder / name

    def _names(self) -> list[str]:
        if not self._folder.exists():
            return []
        found = (each for each in self._folder.iterdir() if _ID.fullmatch(each.name))
        return sorted(each.name for each in found if (each / "ask.json").exists())


def _environment() -> dict[str, str]:
    """Return what a process of a person gets: nothing of the agent's own secrets."""
    names = ("PATH", "HOME", "LANG", "LC_ALL", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ")
    return {name: os.environ[name] for name in names if name in os.environ}


def _state_of(state: dict[str, Any], alive: bool) -> Literal["running", "ended", "failed", "lost"]:
    if "error" in state:
        return "failed"
    if "ended_at" in state:
        return "ended"
    return "running" if alive else "lost"


def _is_alive(state: dict[str, Any]) -> bool:
    try:
        return keeper.born(int(state["keeper"])) == str(state["born"])
    except (OSError, KeyError, ValueError, IndexError):
        return False


def _write(path: Path, what: dict[str, Any]) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(what))
    fresh.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
