"""An agent for tests: inside this process, or a real one with its own folder and settings."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.leader import Leader
from tshrag_agent.daemon import Daemon
from tshrag_agent.process import opened
from tshrag_agent.settings import AgentSettings, AgentTable, DutTable
from tshrag_common.ids import AgentId
from tshrag_common.keys import Bundle, write_secret

A1 = AgentId("a1")


@asynccontextmanager
async def an_agent(
    tmp_path: Path,
    leader: Leader,
    url: str,
    slots: int = 4,
    duts: tuple[DutTable, ...] = (),
    **table: object,
) -> AsyncIterator[Daemon]:
    """Be an agent inside this process while the block lasts."""
    fields = {"name": "a1", "slots": slots, "store": str(tmp_path / "store"),
              "cache": str(tmp_path / "cache"), "beat_s": 0.2, "drain_s": 0.1,
              "sample_s": 0, **table}  # fmt: skip
    settings = AgentSettings(agent=AgentTable(**fields), dut=duts)  # type: ignore[arg-type]  # any fields
    bundle = leader.keys.plain_agent(A1, url)
    try:
        async with opened(settings, bundle) as daemon, asyncio.TaskGroup() as group:
            group.create_task(daemon.serve())
            try:
                await leader.until(lambda: leader.hellos)
                yield daemon
            finally:
                daemon.stop()
    finally:
        await asyncio.to_thread(end_shepherd, tmp_path / "store")


class AgentProcess:
    """``tshrag-agent run`` as an operator starts it; `kill9` then `start` is a crash."""

    def __init__(self, folder: Path, bundle: Bundle, *, more: str = "", slots: int = 8) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config = folder / "agent.toml"
        self.log = folder / "agent.log"
        write_secret(folder / "agent.bundle", bundle.encoded())
        self.config.write_text(
            f'[agent]\nname = "{bundle.name}"\nslots = {slots}\nstore = "{folder}/store"\n'
            f'cache = "{folder}/cache"\nbeat_s = 0.2\ndrain_s = 0.2\n'
            f'[nats]\nbundle = "agent.bundle"\n{more}'
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> "AgentProcess":
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from tshrag_agent.cli import main; main()", "run",
                 "--config", str(self.config), *options],
                stdout=log, stderr=log, env={**os.environ, "SECRET_OF_THE_AGENT": "canary"},
            )  # fmt: skip
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def kill9(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """End it orderly; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def end_shepherd(self) -> None:
        """End the shepherd of this folder, with all that it keeps alive."""
        end_shepherd(self.folder / "store")


def end_shepherd(store: Path) -> None:
    """End the shepherd of the agent that keeps its things in `store`."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"{store}/agent".encode() in words:
            os.kill(int(entry.name), signal.SIGTERM)
