"""Several controllers as processes on one bus, as an operator would run them."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from tshrag_common import requests as r, subjects
from tshrag_common.bus.connection import Bus, connect
from tshrag_common.client import Client
from tshrag_common.errors import LabError
from tshrag_common.ids import DEFAULT_ORG
from tshrag_common.keys import write_secret
from tshrag_common.views import ControllerView


class Controllers:
    """Controllers by name, each with a state folder; all of them share the keys of the first."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.bus: Bus
        self.client: Client

    def state(self, name: str) -> Path:
        return self.folder / name

    def start(
        self, name: str, config: str = "", *, bundle: Path | None = None, keys: bool = True
    ) -> None:
        """Start one; with `keys` it has those of the first, else what its bundle brings."""
        state = self.state(name)
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        first = next(iter(self.processes), "")
        if keys and first and not (state / "keys.json").exists():
            write_secret(state / "keys.json", (self.state(first) / "keys.json").read_bytes())
        path = state / "controller.toml"
        creds = f'creds = "{bundle}"\n' if bundle else ""
        path.write_text(
            f'[controller]\nnode = "{name}"\nstate = "{state}"\n'
            f'[nats]\nurl = "{self.url}"\n{creds}{config}'
        )
        environment = {key: value for key, value in os.environ.items() if "TSHRAG" not in key}
        with (state / "said").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "tshrag_controller.daemon", "--config", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    def signal(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    async def end(self, name: str) -> int:
        """End one in order; return its status."""
        process = self.processes.pop(name)
        process.terminate()
        return await asyncio.to_thread(process.wait, 30)

    def end_all(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        self.processes.clear()

    def said(self, name: str) -> str:
        return (self.state(name) / "said").read_text()

    async def meet(self, credentials: str | None = None) -> None:
        """Be a client of them."""
        self.bus = await connect(self.url, name="tests", credentials=credentials, within_s=20)
        self.client = Client(self.bus, timeout_s=20.0)

    async def health(self) -> r.HealthAnswer:
        return await self.client.health()

    async def leader(self, but: str = "", within_s: float = 30.0) -> str:
        """Return who leads, as soon as somebody does who is not `but`."""
        ends = time.monotonic() + within_s
        while True:
            for view in await self.views():
                if view.role == "leader" and view.node != but and not view.heard_s > 1.0:
                    return view.node
            assert time.monotonic() < ends, f"nobody but {but or 'nobody'} leads"
            await asyncio.sleep(0.02)

    async def views(self) -> tuple[ControllerView, ...]:
        try:
            return (await self.client.ask("health", r.Nothing(), r.HealthAnswer, 2.0)).controllers
        except LabError:
            return ()

    async def answer_of(self, name: str, verb: str, data: bytes) -> r.Envelope:
        """Ask until one controller has answered: which one is asked is the server's choice."""
        ends = time.monotonic() + 60.0
        while True:
            answer = await self.bus.request(subjects.req(DEFAULT_ORG, verb), data, 30.0)
            envelope = msgspec.json.decode(answer.data, type=r.Envelope)
            if envelope.node == name:
                return envelope
            assert time.monotonic() < ends, f"{name} does not answer {verb}"

    async def stands_by(self, name: str, within_s: float = 30.0) -> None:
        """Wait until a standby is there that has followed the whole LOG."""
        ends = time.monotonic() + within_s
        while True:
            views = {view.node: view for view in await self.views()}
            roles = {view.role for view in views.values()}
            so = name in views and (views[name].role, views[name].lag) == ("standby", 0)
            if so and "leader" in roles:
                return
            assert time.monotonic() < ends, f"{name} does not stand by: {views}"
            await asyncio.sleep(0.05)


def a_document(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
