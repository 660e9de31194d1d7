"""The life of the embedded nats-server: started or adopted, watched, stopped.

nats-server does not lock its store: two on one folder destroy it. So a file is locked before the
start and its descriptor goes to the server, which then holds the lock exactly as long as it
lives, also when whoever started it was killed. A busy lock means: there is one, adopt it. The
server outlives the controller, because agents must be able to hand in reports meanwhile.

Everything that blocks is done in a thread; one thread at a time.
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from tshrag_common.errors import LabError, Unavailable
from tshrag_common.keys import write_secret
from tshrag_common.labkeys import LabKeys
from tshrag_controller.nats_server.accounts import accounts_config
from tshrag_controller.nats_server.binary import nats_server
from tshrag_controller.nats_server.config import ANY_PORT, ServerConfig, check, server_config

logger = logging.getLogger(__name__)

READY_WITHIN_S = 30.0

_STOP_WITHIN_S = 15.0
_LAME_DUCK_S = 0.3  # clients are told in less than a millisecond
_WATCH_EVERY_S = 5.0
_ROOM_BYTES = 4 << 20  # with less the store of the server takes nothing
_MOST_RESTARTS, _RESTARTS_WITHIN_S = 3, 600.0


class Ports(msgspec.Struct, frozen=True):
    """Where a server listens: chosen once, then kept, so that clients find it again."""

    port: int = ANY_PORT
    monitor_port: int = ANY_PORT


class NatsServer:
    """The embedded server of one state folder. Made by `start_or_adopt`."""

    def __init__(
        self,
        config: ServerConfig,
        keys: LabKeys | None,
        on_state: Callable[[str], None] | None = None,
        ready_within_s: float = READY_WITHIN_S,
    ) -> None:
        check(config)
        self._ready_within_s = ready_within_s
        self._config, self._keys = config, keys
        self._say = on_state or (lambda line: None)
        self._state = Path(config.state)
        self._child: subprocess.Popen[bytes] | None = None
        self._restarts: deque[float] = deque()
        self.pid = 0
        self.adopted = False
        self.url = ""
        self.monitor_url = ""
        self.trouble = ""
        """What `watch` has found and cannot mend, or not yet."""
        self.fresh_keys: Callable[[], LabKeys] | None = None
        """Asked before a restart: accounts may have changed, people been revoked, meanwhile."""

    async def watch(self) -> None:
        """Look at its health every 5 s; restart it when it has died or a stream is frozen.

        A frozen stream (a full disk, damage) stays frozen until a restart, also when there is
        space again; while there is none a restart would be of no use. At most 3 restarts in 10
        minutes: then it is left alone and said so.
        """
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            sick, before = await asyncio.to_thread(self._sickness), self.trouble
            if not sick:
                self.trouble = ""
                continue
            if await asyncio.to_thread(self._is_full):
                fix = "make room, the server is restarted then"
                self.trouble = f"storage_full: the disk of {self._state} is full ({sick}); {fix}"
            elif not self._may_restart():
                self.trouble = f"nats_sick: {sick}; restarted {_MOST_RESTARTS} times, left alone"
            else:
                self.trouble = ""
            if self.trouble:
                if not before:
                    self._say(self.trouble)
                continue
            self._say(f"nats: {sick}; restarting the server")
            logger.error("nats-server is restarted", extra={"why": sick})
            try:
                await self.restart()
            except LabError as error:
                self._say(error.line)

    async def restart(self) -> None:
        """Stop it and start it again, on the same ports."""
        await asyncio.to_thread(self._stop)
        if self.fresh_keys is not None:
            self._keys = await asyncio.to_thread(self.fresh_keys)
        await asyncio.to_thread(self._start_or_adopt)

    async def stop(self) -> None:
        """End it: clients are told first, what it holds is on disk; an adopted one too."""
        await asyncio.to_thread(self._stop)

    async def use_keys(self, keys: LabKeys) -> None:
        """Have the next start know the accounts of `keys`; the running one gets them by a push.

        Without it a restart would bring back who was revoked.
        """
        self._keys = keys
        await asyncio.to_thread(self._write_config)

    async def monitor(self, path: str) -> dict[str, object]:
        """Return a page of the monitoring port, such as ``/varz``."""
        return await asyncio.to_thread(_page, self.monitor_url + path)

    def _start_or_adopt(self) -> None:
        for folder in ("run", "log", "js", "jwt"):
            (self._state / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        ends = time.monotonic() + self._ready_within_s
        while time.monotonic() < ends:
            lock = self._lock()
            if lock is not None:
                try:
                    self._start(lock)
                finally:
                    os.close(lock)  # the server holds it now
                self._wait_ready(ends)
                return
            if self._adopt():
                return
            time.sleep(0.05)
        fix = f"see {self._state}/log/nats.log"
        raise Unavailable(
            "nats", f"a server holds {self._lock_path} and does not answer", fix, code="nats_server"
        )

    @property
    def _lock_path(self) -> Path:
        return self._state / "js.lock"

    def _lock(self) -> int | None:
        """Return a descriptor that holds the lock of the store, None where a server has it."""
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def _start(self, lock: int) -> None:
        program = nats_server()
        for stale in (self._state / "run").glob("*.ports"):
            stale.unlink()
        path = self._write_config()
        with (self._state / "log" / "nats.out").open("wb") as out:
            self._child = subprocess.Popen(
                [program, "-c", path],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                pass_fds=(lock,),
                start_new_session=True,
            )
        self.pid, self.adopted = self._child.pid, False

    def _write_config(self) -> Path:
        ports = self._ports()
        wanted = msgspec.structs.replace(
            self._config,
            port=self._config.port if self._config.port != ANY_PORT else ports.port,
            monitor_port=ports.monitor_port,
        )
        accounts = accounts_config(self._keys) if self._keys else None
        path = self._state / "run" / "nats.json"
        write_secret(path, json.dumps(server_config(wanted, accounts), indent=1).encode())
        return path

    def _wait_ready(self, ends: float) -> None:
        while time.monotonic() < ends:
            if self._child is not None and self._child.poll() is not None:
                said = (self._state / "log" / "nats.out").read_text(errors="replace")
                log = self._state / "log" / "nats.log"
                said += log.read_text(errors="replace") if log.exists() else ""
                last = said.strip().splitlines()[-1:] or ["it said nothing"]
                raise Unavailable(
                    "nats-server", f"ended: {last[0]}", f"see {log}", code="nats_server"
                )
            if self._read_ports(self.pid) and not _health(self.monitor_url):
                self._keep_ports()
                return
            time.sleep(0.01)
        raise Unavailable("nats-server", "is not ready", f"see {self._state}/log/nats.log")

    def _adopt(self) -> bool:
        """Take over a server that runs already: its pid, its ports and its name must fit."""
        try:
            pid = int((self._state / "run" / "nats.pid").read_text())
        except (OSError, ValueError):
            return False
        if not _is_ours(pid, self._state) or not self._read_ports(pid):
            return False
        try:
            about = _page(f"{self.monitor_url}/varz")
        except (OSError, ValueError):
            return False
        if about.get("server_name") != self._config.name or _health(self.monitor_url) == "stopping":
            return False
        self.pid, self.adopted, self._child = pid, True, None
        return True

    def _read_ports(self, pid: int) -> bool:
        """Learn the addresses of server `pid`; the file of an earlier one is never believed."""
        path = self._state / "run" / f"nats-server_{pid}.ports"
        try:
            ports = json.loads(path.read_text())
            self.url, self.monitor_url = ports["nats"][0], ports["monitoring"][0]
        except (OSError, ValueError, LookupError):
            return False
        return True

    def _ports(self) -> Ports:
        try:
            return msgspec.json.decode((self._state / "ports.json").read_bytes(), type=Ports)
        except (OSError, msgspec.DecodeError):
            return Ports()

    def _keep_ports(self) -> None:
        ports = Ports(_port(self.url), _port(self.monitor_url))
        if ports != self._ports():
            write_secret(self._state / "ports.json", msgspec.json.encode(ports))

    def _sickness(self) -> str:
        if self._child is not None and self._child.poll() is not None:
            return f"the server has ended with {self._child.returncode}"
        return _health(self.monitor_url)

    def _is_full(self) -> bool:
        return shutil.disk_usage(self._state / "js").free < _ROOM_BYTES

    def _may_restart(self) -> bool:
        now = time.monotonic()
        while self._restarts and now - self._restarts[0] > _RESTARTS_WITHIN_S:
            self._restarts.popleft()
        if len(self._restarts) >= _MOST_RESTARTS:
            return False
        self._restarts.append(now)
        return True

    def _stop(self) -> None:
        self._signal(signal.SIGUSR2)
        time.sleep(_LAME_DUCK_S)
        self._signal(signal.SIGTERM)
        if not self._wait_gone(_STOP_WITHIN_S):
            logger.error("nats-server does not end", extra={"pid": self.pid})
            self._signal(signal.SIGKILL)
            self._wait_gone(_STOP_WITHIN_S)

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to our server, never to another that has got its pid."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if self._child is not None or _is_ours(self.pid, self._state):
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)

    def _wait_gone(self, within_s: float) -> bool:
        ends = time.monotonic() + within_s
        while time.monotonic() < ends:
            lock = self._lock()
            if lock is not None:
                os.close(lock)
                if self._child is not None:
                    self._child.wait(_STOP_WITHIN_S)
                return True
            time.sleep(0.02)
        return False


async def start_or_adopt(
    config: ServerConfig,
    keys: LabKeys | None,
    on_state: Callable[[str], None] | None = None,
    *,
    ready_within_s: float = READY_WITHIN_S,
) -> NatsServer:
    """Return the running server of ``config.state``; without `keys` it has no accounts.

    An adopted server keeps the configuration it was started with; push accounts to it.

    Raises:
        Refused: no program, a program too old, unsafe settings.
        Unavailable: it does not come up (``nats_server``).

    """
    server = NatsServer(config, keys, on_state, ready_within_s)
    await asyncio.to_thread(server._start_or_adopt)
    return server


def _is_ours(pid: int, state: Path) -> bool:
    """Tell whether `pid` is alive and is the server that was started for `state`."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return str(state / "run" / "nats.json").encode() in line.split(b"\0")


def _health(monitor_url: str) -> str:
    """Return what is wrong, empty when it is well."""
    try:
        with urllib.request.urlopen(f"{monitor_url}/healthz", timeout=3) as answer:
            return "" if answer.status == 200 else f"health {answer.status}"
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(2000).decode("utf-8", "replace")
        return "stopping" if error.code == 500 else f"health {error.code}: {said.strip()}"
    except (OSError, ValueError) as error:
        return f"the server does not answer ({error})"


def _page(url: str) -> dict[str, object]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        page: dict[str, object] = json.load(answer)
    return page


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
