"""The lab that chaos befalls: a real server, a controller, agents on hosts of their own, boards.

All processes write their history; a sampler watches them from outside. Agents have a short beat,
as tests of restarts would wait too long otherwise; all other times are those of production.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.chaos.images import a_small_disk, can_mount
from tests.chaos.net import Host, a_subnet
from tests.chaos.recorded import Line, Reader, Recorded, at_s
from tests.support.agent_process import end_shepherd
from tests.support.nats_server import NatsServer
from tests.support.process_trees import living
from tshrag_common import history, requests as r
from tshrag_common.client import Client, open_client
from tshrag_common.errors import LabError
from tshrag_common.views import ControllerView
from tshrag_controller.cli import demo_lab
from tshrag_controller.cli.processes import LabProcesses

AGENTS = ("alpha", "bravo", "charlie")
SLOTS = 8
FIRST, SECOND = "ctl-0", "ctl-1"
ROOT = Path(__file__).parent.parent.parent


UNSAFE = "TSHRAG_CHAOS_UNSAFE"
"""Names what `tests.chaos.mutants` takes out of every process that is started."""


def program(*argv: str) -> list[str]:
    """Return what starts a module of the product, or of the mutant that is tried."""
    mutant = os.environ.get(UNSAFE, "")
    mutated = ["tests.chaos.mutants", mutant] if mutant else []
    return [sys.executable, "-m", *mutated, *argv]


class ChaosProcesses(LabProcesses):
    """Processes of a lab: each on its host, in its environment, started again where it is asked."""

    def __init__(self, state: Path, environment: Mapping[str, str]) -> None:
        super().__init__(state, environment)
        self.hosts: dict[str, Host] = {}
        self.extra: dict[str, dict[str, str]] = {}
        self.inside: dict[str, str] = {}
        """Modules that change a process before it begins: `tests.chaos.slow`."""

    def start(self, name: str, *argv: str) -> "subprocess.Popen[bytes]":
        path = self.log_of(name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        host = self.hosts.get(name)
        with path.open("ab") as log:
            self._log_from[name] = log.tell()
            process = subprocess.Popen(
                [*(host.prefix if host else ()), *program(*self._within(name), *argv)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self._environment, **self.extra.get(name, {})},
                start_new_session=True,
                cwd=ROOT,
            )
        self._processes[name] = process
        return process

    def _within(self, name: str) -> list[str]:
        return [self.inside[name]] if name in self.inside else []

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def has_ended(self, name: str) -> bool:
        process = self._processes.get(name)
        return process is None or process.poll() is not None

    def leave(self, name: str) -> None:
        """End a process in order."""
        process = self._processes.pop(name)
        process.terminate()
        process.wait(30)

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self.pid(name), number)


class ChaosLab:
    """The lab, and what a fault needs of it."""

    def __init__(self, folder: Path, partitions: bool) -> None:
        self.folder = folder
        self.history_folder = Path(os.environ[history.HISTORY])
        self.reader = Reader(self.history_folder)
        self.server = NatsServer(folder / "nats", host="0.0.0.0")
        self.processes: ChaosProcesses
        self.client: Client
        self.partitions = partitions
        self.board_ports: dict[str, int] = {}
        self.boards: dict[str, str] = {}
        self.small_disks: dict[str, Path] = {}
        self._mounts = contextlib.ExitStack()
        self._sampler: subprocess.Popen[bytes] | None = None
        self._supervised: dict[str, float] = {}

    def open(self) -> None:
        """Start server, hosts, sampler, controller; agents come with `start_agents`."""
        self.server.start()
        state = self.folder / "lab"
        state.mkdir()
        self.processes = ChaosProcesses(state, {"TSHRAG_NATS_URL": self.server.url})
        if not can_mount():
            self._mount("controller", state / "store", 192)
            self._mount(AGENTS[2], state / "agents" / AGENTS[2] / "store" / "agent", 32)
        sampler = [sys.executable, "-m", "tests.chaos.sampler", str(self.history_folder)]
        self._sampler = subprocess.Popen(sampler, cwd=ROOT)
        self.processes.start_controller("checkpoint_frames = 200\n")

    def _mount(self, name: str, folder: Path, mebibytes: int) -> None:
        """Give a part of the lab a disk of its own that can be filled."""
        self.small_disks[name] = self._mounts.enter_context(a_small_disk(folder, mebibytes))

    async def start_agents(self) -> None:
        await self.processes.wait_ready()
        subnet = a_subnet()
        for number, name in enumerate(AGENTS):
            host = Host(number, subnet) if self.partitions else None
            if host is not None:
                await asyncio.to_thread(host.make)
                self.processes.hosts[name] = self.processes.hosts[f"board-{name}"] = host
            await asyncio.to_thread(self._start_agent, name, host)
        if self.partitions:
            host = self.processes.hosts[SECOND] = Host(len(AGENTS), subnet)
            await asyncio.to_thread(host.make)
        await self.processes.wait_agents(len(AGENTS))

    def _start_agent(self, name: str, host: Host | None) -> None:
        board = f"b-{name}-{self.folder.name[-8:].lower().replace('_', 'x')}"
        self.processes.hosts |= {board: host} if host else {}
        said = demo_lab.start_board(self.processes, board, "ssh_board")
        self.board_ports[name], self.boards[name] = int(str(said["port"])), board
        dut = demo_lab.ssh_dut(board, said).replace('room = "demo"', f'board = "{board}"')
        self.processes.start_agent(name, dut, slots=SLOTS)
        self.processes.kill(name)  # enrolled; its settings are ours
        config = self.processes.state / "agents" / name / "agent.toml"
        url = f"nats://{host.gateway}:{self.server.port}" if host else self.server.url
        text = config.read_text().replace("[nats]\n", f'[nats]\nurl = "{url}"\n')
        config.write_text(text.replace("[agent]\n", "[agent]\nbeat_s = 1.0\nsample_s = 0\n"))
        environment = self.processes.extra.setdefault(name, {})
        environment["TSHRAG_NATS_URL"] = url
        self.processes.run_agent(name)

    @property
    def logs(self) -> Path:
        return self.folder / "lab" / "log"

    # what a fault does

    def start_controller(
        self, failpoint: str = "", environment: Mapping[str, str] | None = None
    ) -> None:
        """Start the controller again, on the same state."""
        config = str(self.processes.state / "controller.toml")
        self.processes.extra["controller"] = {"TSHRAG_FAILPOINT": failpoint, **(environment or {})}
        self.processes.start("controller", "tshrag_controller.daemon", "--config", config)

    @asynccontextmanager
    async def two_controllers(self) -> AsyncIterator[str]:
        """Have a second controller, on a host of its own; yield its node. The first one leads."""
        first, second = self.processes.state, self.folder / "second"
        await asyncio.to_thread(_prepare, first, second, self._url_of(SECOND))
        self.processes.extra[SECOND] = {"TSHRAG_NATS_URL": self._url_of(SECOND)}
        config = ("--config", str(second / "controller.toml"))
        self.processes.start(SECOND, "tshrag_controller.daemon", *config)
        try:
            await self.roles(leader=FIRST, standby=SECOND)
            yield SECOND
        finally:
            host = self.processes.hosts.get(SECOND)
            if host is not None:
                await asyncio.to_thread(host.heal)
            if self.processes.has_ended("controller"):
                self.start_controller()
                await self.roles(leader=SECOND, standby=FIRST)
            if not self.processes.has_ended(SECOND):
                await asyncio.to_thread(self.processes.leave, SECOND)
            await self.online()

    def _url_of(self, name: str) -> str:
        host = self.processes.hosts.get(name)
        return f"nats://{host.gateway}:{self.server.port}" if host else self.server.url

    async def roles(self, leader: str, standby: str, within_s: float = 60.0) -> float:
        """Wait until controllers have these roles; return how long it took."""
        began = time.monotonic()
        while time.monotonic() < began + within_s:
            found = {view.node: view.role for view in await self._controllers()}
            if found.get(leader) == "leader" and standby in ("", *_standbys(found)):
                return time.monotonic() - began
            await asyncio.sleep(0.02)
        raise AssertionError(f"{leader} does not lead within {within_s} s: {found}")

    async def _controllers(self) -> tuple[ControllerView, ...]:
        """Ask a few times at once: one that is frozen is asked too, and its answer never comes."""
        loop = asyncio.get_running_loop()
        asking = [loop.create_task(self._health()) for _ in range(4)]
        try:
            for each in asyncio.as_completed(asking):
                if controllers := await each:
                    return controllers
        finally:
            for task in asking:
                task.cancel()
        return ()

    async def _health(self) -> tuple[ControllerView, ...]:
        try:
            return (await self.client.ask("health", r.Nothing(), r.HealthAnswer, 1.0)).controllers
        except LabError:
            return ()

    def start_agent(self, name: str, failpoint: str = "") -> None:
        self.processes.extra.setdefault(name, {})["TSHRAG_FAILPOINT"] = failpoint
        self.processes.run_agent(name)

    def kill_shepherd(self, name: str) -> None:
        pid_of_shepherd = self.shepherd_of(name)
        if pid_of_shepherd:
            os.kill(pid_of_shepherd, signal.SIGKILL)

    def shepherd_of(self, name: str) -> int:
        """Return the pid of the shepherd of an agent; 0: there is none."""
        store = f"{self.processes.state}/agents/{name}/store/agent".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if store in words and b"-I" in words and not _parent_is_shepherd(entry, store):
                    return int(entry.name)
        return 0

    @asynccontextmanager
    async def supervised(self, *names: str, after_s: float = 0.3) -> AsyncIterator[None]:
        """Start processes again that end, as systemd would, while the block lasts."""

        async def watch() -> None:
            while True:
                for name in names:
                    if self.processes.has_ended(name):
                        await asyncio.sleep(after_s)
                        self._start(name)
                await asyncio.sleep(0.1)

        watching = asyncio.get_running_loop().create_task(watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    def _start(self, name: str) -> None:
        if name == "controller":
            self.start_controller()
        elif name == SECOND:
            config = str(self.folder / "second" / "controller.toml")
            self.processes.start(SECOND, "tshrag_controller.daemon", "--config", config)
        else:
            self.start_agent(name)

    # what a fault looks at

    def recorded(self) -> Recorded:
        return self.reader.read()

    def since(self, at: float, *kinds: str) -> list[Line]:
        """Return the lines of these kinds after an instant of `time.monotonic`."""
        return [line for line in self.recorded().of(*kinds) if at_s(line) >= at]

    async def moved(self, agent: str, cause: str, at: float, within_s: float) -> float:
        """Return how long after `at` the controller committed that an agent has moved."""
        ends = time.monotonic() + within_s
        while time.monotonic() < ends:
            for line in self.since(at, "agent_moved"):
                if (line["agent"], line["cause"]) == (agent, cause):
                    return at_s(line) - at
            await asyncio.sleep(0.3)
        raise AssertionError(f"{agent} did not {cause} within {within_s} s")

    async def online(self, within_s: float = 60.0) -> None:
        """Return when the controller answers and every agent is online."""
        ends = time.monotonic() + within_s
        while time.monotonic() < ends:
            try:
                agents = (await self.client.agents()).agents
                if sum(agent.state == "online" for agent in agents) >= len(AGENTS):
                    return
            except LabError:
                pass
            await asyncio.sleep(0.1)
        raise AssertionError(f"not everybody was online within {within_s} s")

    def close(self) -> None:
        """End all of it."""
        for name in list(self.processes._processes):
            with_signal = self.processes._processes[name]
            if with_signal.poll() is None:
                with_signal.send_signal(signal.SIGCONT)
        for host in set(self.processes.hosts.values()):
            host.heal()
        self.server.thaw()
        self.processes.stop()
        for name in AGENTS:
            end_shepherd(self.processes.state / "agents" / name / "store")
        for pid in living(f"={self.processes.state}/agents"):  # of a mutant: jobs that live on
            os.kill(pid, signal.SIGKILL)
        if self._sampler is not None:
            self._sampler.terminate()
            self._sampler.wait(10)
        self.server.stop()
        self._mounts.close()
        for host in set(self.processes.hosts.values()):
            host.remove()


def _standbys(found: Mapping[str, str]) -> list[str]:
    return [node for node, role in found.items() if role == "standby"]


def _prepare(first: Path, second: Path, url: str) -> None:
    """Make the state folder of a second controller: the keys of the first, its own settings."""
    second.mkdir(exist_ok=True, mode=0o700)
    (second / "keys.json").write_bytes((first / "keys.json").read_bytes())
    (second / "keys.json").chmod(0o600)
    (second / "controller.toml").write_text(
        f'[controller]\nnode = "{SECOND}"\nstate = "{second}"\n[nats]\nurl = "{url}"\n'
    )


def _parent_is_shepherd(entry: Path, store: bytes) -> bool:
    """Tell a hand of the shepherd, which is a child of it, from the shepherd."""
    try:
        parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
        return store in Path("/proc", parent, "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


@asynccontextmanager
async def a_chaos_lab(partitions: bool) -> AsyncIterator[ChaosLab]:
    """Run a lab for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="tshrag-chaos-", ignore_cleanup_errors=True) as name:
        lab = ChaosLab(Path(name), partitions)
        try:
            await asyncio.to_thread(lab.open)
            await lab.start_agents()
            bundle = lab.processes.bundle
            credentials = bundle.creds or None
            async with open_client(bundle.url, name="chaos", credentials=credentials) as client:
                lab.client = client
                yield lab
        finally:
            await asyncio.to_thread(lab.close)
            logs = lab.history_folder / "log"
            await asyncio.to_thread(shutil.copytree, lab.logs, logs, dirs_exist_ok=True)
