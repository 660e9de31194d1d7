"""Three nats-servers on loopback, with configs/nats-cluster.json for each of them."""

import asyncio
import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from tshrag_controller.nats_server.binary import nats_server

CONFIG = Path(__file__).parents[2] / "configs" / "nats-cluster.json"
NAMES = ("n1", "n2", "n3")


class Cluster:
    """All methods but `healthy` block for a moment at most."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ports = free_ports(9)
        self.ports = dict(zip(NAMES, ports[:3], strict=True))
        self._monitors = dict(zip(NAMES, ports[3:6], strict=True))
        self._routes = dict(zip(NAMES, ports[6:], strict=True))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return ",".join(f"nats://127.0.0.1:{port}" for port in self.ports.values())

    @property
    def monitor(self) -> str:
        return ",".join(f"http://127.0.0.1:{port}" for port in self._monitors.values())

    def start(self, name: str) -> None:
        """Start one server with the configuration that operators get, moved to free ports."""
        body = json.loads(CONFIG.read_text())
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        body |= {"server_name": name, "host": "127.0.0.1", "port": self.ports[name]}
        body["http"] = f"127.0.0.1:{self._monitors[name]}"
        body["jetstream"] |= {"store_dir": str(folder / "js"), "max_file_store": 1 << 30}
        routes = [f"nats://127.0.0.1:{port}" for port in self._routes.values()]
        body["cluster"] |= {"host": "127.0.0.1", "port": self._routes[name], "routes": routes}
        path = folder / "nats.json"
        path.write_text(json.dumps(body))
        with (folder / "out").open("ab") as out:
            self._processes[name] = subprocess.Popen(
                [nats_server(), "-c", path], stdout=out, stderr=subprocess.STDOUT
            )

    def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def end(self) -> None:
        for name in list(self._processes):
            self.kill(name)

    async def healthy(self, within_s: float = 60.0) -> None:
        """Wait until all servers say that they are well and have caught up."""
        ends = time.monotonic() + within_s
        for name in self._processes:
            while not await asyncio.to_thread(self._is_healthy, name):
                assert time.monotonic() < ends, f"{name} is not well"
                await asyncio.sleep(0.1)

    def _is_healthy(self, name: str) -> bool:
        try:
            url = f"http://127.0.0.1:{self._monitors[name]}/healthz"
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


def free_ports(count: int) -> list[int]:
    """Return ports that nobody has now."""
    held = [socket.socket() for _ in range(count)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in held]
    for each in held:
        each.close()
    return ports
