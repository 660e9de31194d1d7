"""The processes of a lab on one machine: a controller with its own broker, and agents.

Each is the same program that systemd would start. They live in sessions of their own, so that
Ctrl-C reaches this process alone, which then ends them in order.
"""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tshrag_common.client import open_client
from tshrag_common.errors import LabError, Refused, Unavailable
from tshrag_common.keys import Bundle, read_bundle, write_secret
from tshrag_controller.cli.enrolling import keyring

READY_S = 60.0
STOP_S = 20.0


class ProcessDied(Unavailable):
    """A process of the lab ended by itself."""

    code = "process_died"


class LabProcesses:
    """Starts, waits for, and ends them; logs go to files below the state folder."""

    def __init__(self, state: Path, environment: Mapping[str, str] | None = None) -> None:
        self.state = state
        self._environment = {**os.environ, **(environment or {})}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._has_broker = False  # one of another lab process is none of our business
        self._log_from: dict[str, int] = {}  # what stands before it, earlier processes have said

    @property
    def bundle(self) -> Bundle:
        """Return what the person on this machine connects with."""
        return read_bundle(self.state / "me.json")

    def log_of(self, name: str) -> Path:
        return self.state / "log" / f"{name}.log"

    def start(self, name: str, *argv: str) -> "subprocess.Popen[bytes]":
        """Start a program of this Python under a name."""
        path = self.log_of(name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("ab") as log:
            self._log_from[name] = log.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        self._processes[name] = process
        return process

    def start_controller(self, config: str = "") -> None:
        """Start the controller; its broker ends with it when it is stopped in order.

        Raises:
            Refused: a lab is at work in this folder; nothing of it was touched.

        """
        _refuse_second(self.state)
        self._has_broker = True
        path = self.state / "controller.toml"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(f'[controller]\nstate = "{self.state}"\n{config}')
        (self.state / "me.json").unlink(missing_ok=True)
        self.start("controller", "tshrag_controller.daemon", "--config", str(path), "--stop-broker")

    async def wait_ready(self, say: Callable[[str], object] = lambda _line: None) -> None:
        """Return when the controller answers; `say` what keeps it from its bus meanwhile.

        Raises:
            ProcessDied: it ended instead; the last lines of its log are told.

        """
        ends = time.monotonic() + READY_S
        told = 0
        while True:
            self.check("controller")
            troubles = self._bus_troubles()
            for trouble in troubles[told:]:
                say(trouble)
            told = len(troubles)
            try:
                bundle = self.bundle
                async with open_client(
                    bundle.url, name="up", credentials=bundle.creds or None, within_s=2.0
                ) as lab:
                    await lab.health()
                return
            except LabError as error:
                if time.monotonic() > ends:
                    why = troubles[-1] if troubles else error.line
                    raise ProcessDied("controller", f"not ready: {why}") from None
            await asyncio.sleep(0.1)

    def _bus_troubles(self) -> list[str]:
        """Return what the controller has said of its bus since it was started."""
        lines = _lines(self.log_of("controller"), self._log_from["controller"])
        return [said for said in map(_said_of_bus, lines) if said]

    def check(self, name: str) -> None:
        """Raise ProcessDied when a process has ended by itself."""
        status = self._processes[name].poll()
        if status is not None:
            tail = " | ".join(_lines(self.log_of(name), self._log_from[name])[-3:])[-600:]
            raise ProcessDied(name, f"it ended with status {status}: {tail}")

    def check_all(self) -> None:
        for name in self._processes:
            self.check(name)

    def start_agent(self, name: str, duts: str = "", slots: int | None = None) -> None:
        """Enrol and start an agent of this machine; `duts` is the TOML of its boards."""
        folder = self.state / "agents" / name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with keyring(self.state) as keys:  # the server needs no news: the role's key vouches
            bundle = keys.enroll(name)
        write_secret(folder / "bundle.json", bundle.encoded())
        slot_line = f"slots = {slots}\n" if slots is not None else ""
        (folder / "agent.toml").write_text(
            f'[agent]\nname = "{name}"\nstore = "{folder}/store"\ncache = "{folder}/cache"\n'
            f'drain_s = 3.0\n{slot_line}\n[nats]\nbundle = "{folder}/bundle.json"\n\n{duts}'
        )
        self.run_agent(name)

    def run_agent(self, name: str) -> None:
        """Start the process of an agent that was enrolled before."""
        config = self.state / "agents" / name / "agent.toml"
        self.start(name, "tshrag_agent", "run", "--config", str(config))

    async def wait_agents(self, count: int) -> None:
        """Return when `count` agents are online."""
        bundle = self.bundle
        ends = time.monotonic() + READY_S
        async with open_client(bundle.url, name="up", credentials=bundle.creds or None) as lab:
            while True:
                self.check_all()
                answer = await lab.agents()
                if sum(agent.state == "online" for agent in answer.agents) >= count:
                    return
                if time.monotonic() > ends:
                    raise ProcessDied("agents", "they did not say hello; see their logs")
                await asyncio.sleep(0.1)

    def kill(self, name: str) -> None:
        """Kill a process as hard as it goes; for drills."""
        self._processes[name].kill()
        self._processes.pop(name).wait()

    def stop(self) -> None:
        """End all, agents first; whoever does not end in time is killed."""
        for name in sorted(self._processes, key=lambda name: name == "controller"):
            _end(self._processes[name])
        self._processes.clear()
        self._end_broker()

    def _end_broker(self) -> None:
        """End a nats-server that outlived a controller that had to be killed."""
        if not self._has_broker:
            return
        try:
            pid = int((self.state / "nats" / "run" / "nats.pid").read_text())
            if str(self.state) in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGTERM)
        except (OSError, ValueError):
            return


def _refuse_second(state: Path) -> None:
    """Look at the lock that a controller holds on its folder for as long as it lives."""
    try:
        with (state / "controller.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return
    except BlockingIOError:
        fix = "use that one, end it, or name another folder by --state"
        raise Refused(str(state), "a lab is at work here", fix, code="already_running") from None


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _lines(path: Path, begin: int) -> list[str]:
    """Return the lines of a log from an offset on."""
    try:
        with path.open("rb") as log:
            log.seek(begin)
            text = log.read().decode(errors="replace").strip()
    except OSError:
        return []
    return text.split("\n")


def _said_of_bus(line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        return ""
    is_bus = isinstance(record, dict) and record.get("what") == "bus"
    return str(record.get("said", "")) if is_bus else ""
