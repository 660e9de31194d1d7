"""The agent's process: its state folder is locked, journal and shepherd opened, signals heard."""

import asyncio
import fcntl
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tshrag_agent.attempts.host import Shepherd
from tshrag_agent.daemon import Daemon
from tshrag_agent.journal.journal import Journal
from tshrag_agent.reload import Reread
from tshrag_agent.settings import AgentSettings
from tshrag_common import history
from tshrag_common.errors import Refused
from tshrag_common.keys import Bundle


class AlreadyRunning(Refused):
    """Another agent works in the same state directory."""

    code = "already_running"


async def run(
    settings: AgentSettings, *, handover: bool = False, reread: Reread | None = None
) -> None:
    """Be the agent of `settings` until SIGTERM or SIGINT; SIGHUP reads them again by `reread`.

    With `handover` processes on the host are left to the next agent.

    Raises:
        AlreadyRunning: another one works in the same state directory.
        Refused: the credentials cannot be read, or are not taken any more.

    """
    bundle = settings.bundle()
    history.be(f"agent {bundle.name}")
    with locked(settings.state):
        async with opened(settings, bundle) as daemon:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, daemon.stop, handover)
            if reread is not None:
                daemon.reloads.reread = reread
                loop.add_signal_handler(signal.SIGHUP, daemon.reloads.soon)
            await daemon.serve()


@asynccontextmanager
async def opened(settings: AgentSettings, bundle: Bundle) -> AsyncIterator[Daemon]:
    """Open journal and shepherd; leave them in order. What the shepherd keeps alive goes on."""
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    journal = await Journal.open(settings.state / "journal.db")
    try:
        shepherd = await Shepherd.open(settings.state)
        try:
            yield Daemon(settings, bundle, journal, shepherd)
        finally:
            await shepherd.close()
    finally:
        await journal.close()


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold the state directory: one agent works in it."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(state / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            fix = "stop it, or set [agent] store to another folder"
            raise AlreadyRunning(str(state), f"agent with pid {holder} is here", fix) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
