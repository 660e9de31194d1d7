"""A throw-away nats-server on a free port of loopback, with the configuration of the product.

    server = NatsServer(tmp_path).start()              plain: no accounts, no credentials
    server = NatsServer(tmp_path, keys=new_lab()).start()   with the accounts of a lab

All methods block: in an async test say ``await asyncio.to_thread(server.restart)``.
"""

import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tshrag_common.labkeys import LabKeys
from tshrag_controller.nats_server.accounts import accounts_config
from tshrag_controller.nats_server.binary import nats_server
from tshrag_controller.nats_server.config import ServerConfig, server_config


class NatsServer:
    """One server; `kill9` then `start`, or `restart`, keep its store and its port."""

    def __init__(
        self, folder: Path, keys: LabKeys | None = None, *, name: str = "test", **config: object
    ) -> None:
        self.folder, self.keys, self.name = folder, keys, name
        self.port = -1
        self.url = ""
        self.monitor_url = ""
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "NatsServer":
        for folder in ("run", "log", "js", "jwt"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        for stale in (self.folder / "run").glob("*.ports"):
            stale.unlink()
        wanted = ServerConfig(state=str(self.folder), name=self.name, port=self.port)
        accounts = accounts_config(self.keys) if self.keys else None
        path = self.folder / "nats.json"
        path.write_text(json.dumps({**server_config(wanted, accounts), **self._config}))
        with (self.folder / "out").open("ab") as out:
            self._process = subprocess.Popen(
                [nats_server(), "-c", path], stdout=out, stderr=subprocess.STDOUT
            )
        ends = time.monotonic() + 20
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > ends:
                raise AssertionError(f"nats-server did not start: {self.log()}")
            time.sleep(0.01)
        return self

    def kill9(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it orderly; nothing happens when it has ended."""
        self._end(signal.SIGTERM)

    def restart(self) -> "NatsServer":
        """Kill it with -9 and start it on the same store and port."""
        self.kill9()
        return self.start()

    def freeze(self) -> None:
        """Stop its clock: connections stay, nobody answers."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def page(self, path: str) -> Any:
        """Return a page of the monitoring port, such as ``/varz``."""
        with urllib.request.urlopen(self.monitor_url + path, timeout=5) as answer:
            return json.load(answer)

    def log(self) -> str:
        texts = (self.folder / "out", self.folder / "log" / "nats.log")
        return "".join(text.read_text() for text in texts if text.exists())

    @property
    def pid(self) -> int:
        return self._running().pid

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(how)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(15)

    def _is_ready(self) -> bool:
        try:
            ports = self.folder / "run" / f"nats-server_{self.pid}.ports"
            told = json.loads(ports.read_text())
            self.url, self.monitor_url = told["nats"][0], told["monitoring"][0]
            self.port = int(self.url.rpartition(":")[2])
            with urllib.request.urlopen(f"{self.monitor_url}/healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except (OSError, ValueError, LookupError):
            return False
