"""The agent's side of the shepherd: start host processes, hear of their ends, renew, adopt.

The shepherd outlives us: `open` finds the one that serves our state folder, or starts it, and
`list` says what lives on and what has ended meanwhile.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from tshrag_agent.attempts.host_link import Link, ShepherdLost, dial, lost, start_shepherd
from tshrag_agent.shepherd import protocol
from tshrag_common.errors import DeadlineExceeded, LabError, Refused

logger = logging.getLogger(__name__)

_ANSWER_S = 30.0
_OPEN_S = 15.0
_RETRY_S = 0.05


class HostLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bounds of one host process and its tree; None is no bound of ours."""

    wall_s: float | None = None
    memory_bytes: int | None = None
    pids: int | None = None
    open_files: int | None = None
    file_bytes: int | None = None  # of each file, output included
    cpu_s: int | None = None
    output_bytes: int = protocol.OUTPUT_BYTES  # of each stream, on disk; the middle is cut


class HostStart(msgspec.Struct, frozen=True, kw_only=True):
    """A process to start. Bytes that are no UTF-8 come as surrogateescape (`os.fsdecode`)."""

    key: str
    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str]
    stdout_path: str
    stderr_path: str
    limits: HostLimits = HostLimits()
    lease_s: float | None = None
    grace_s: float = 5.0


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A process that runs."""

    key: str
    pid: int
    started_at: int


class AliveHost(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that the shepherd keeps alive."""

    key: str
    pid: int
    started_at: int
    ending: bool = False
    age_us: int = 0  # by its monotonic clock; 0: a shepherd of an older release


class Stopped(msgspec.Struct, frozen=True, array_like=True):
    """A process that did not end by itself, and the last signal it got: term or kill."""

    pid: int
    command: str
    how: str


class HostExit(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a host process: nothing of it is alive but what is `unkillable`.

    ``cause`` is exited (by itself), timeout, lease, orphaned, lost (the shepherd died),
    shepherd_stopped, or what `Shepherd.end` was given.
    """

    key: str
    cause: str
    pid: int = 0
    exit_code: int | None = None
    signal: int | None = None
    started_at: int = 0
    ended_at: int = 0
    wall_us: int = 0
    cpu_us: int = 0
    max_rss_bytes: int = 0
    oom_kills: int = 0
    left_behind: int = 0
    stopped: tuple[Stopped, ...] = ()
    stopped_count: int = 0
    unkillable: tuple[int, ...] = ()
    written_bytes: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    cut_bytes: dict[str, int] = msgspec.field(default_factory=dict[str, int])


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """All that the shepherd knows: who is alive, and the ends that were not forgotten yet."""

    alive: tuple[AliveHost, ...] = ()
    exits: tuple[HostExit, ...] = ()


class ShepherdSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a shepherd is started; one that runs already keeps what it was given."""

    orphan_s: float = 60.0  # without an agent for so long, it ends everything
    start_s: float = 15.0  # what has not started by then hangs in a file system
    groups: str = "auto"  # or v2, v1, proc: one of them by force
    new_privileges: bool = False  # may a job gain rights by sudo and the like


class StartRefused(Refused):
    """A host process that could not be started; `code` says why: not_found, not_executable, ..."""

    code = "start_failed"


class Shepherd:
    """The shepherd of our state folder, as the agent sees it. Use `open`, then run `run`."""

    def __init__(self, state_dir: Path, settings: ShepherdSettings) -> None:
        self._folder = state_dir
        self._settings = settings
        self._link: Link | None = None
        self._exited: dict[str, asyncio.Future[HostExit]] = {}
        self._started: set[str] = set()
        self.pid = 0
        self.groups = ""

    @classmethod
    async def open(
        cls,
        state_dir: Path,
        settings: ShepherdSettings | None = None,
        *,
        timeout_s: float = _OPEN_S,
    ) -> Self:
        """Connect to the shepherd of `state_dir`; start one where none runs.

        Raises:
            DeadlineExceeded: none answered in time; its log is ``shepherd/shepherd.log``.

        """
        folder = await asyncio.to_thread(state_dir.resolve)
        shepherd = cls(folder, settings or ShepherdSettings())
        await shepherd._connect(timeout_s)
        return shepherd

    async def run(self) -> None:
        """Stay connected for ever; attempts of a shepherd that died end as lost."""
        while True:
            link = self._link
            if link is not None:
                await link.closed.wait()
                logger.warning("the shepherd is gone", extra={"shepherd_pid": self.pid})
            try:
                await self._connect(_OPEN_S)
            except LabError as error:
                logger.error("no shepherd", extra={"error": error.line})
                await asyncio.sleep(1.0)

    def dismiss(self) -> None:
        """Let the shepherd end: nothing of ours is alive, and no agent follows at once."""
        if self._link is not None:  # while it is linked to us the pid is its own
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    async def close(self) -> None:
        """Leave; the shepherd and what it keeps alive go on."""
        link, self._link = self._link, None
        if link is not None:
            link.close()
            await link.closed.wait()

    async def start(self, what: HostStart, *, timeout_s: float = _ANSWER_S) -> Started:
        """Start a process; when this returns it runs, in its group and under its limits.

        Raises:
            StartRefused: not_found, not_executable, bad_cwd, bad_output, duplicate_key, ...
            ShepherdLost, DeadlineExceeded: unknown; `list` tells, `end` makes sure.

        """
        asked = {
            "key": what.key,
            "argv": what.argv,
            "cwd": what.cwd,
            "env": what.env,
            "stdout": what.stdout_path,
            "stderr": what.stderr_path,
            "limits": msgspec.to_builtins(what.limits),
            "lease_s": what.lease_s,
            "grace_s": what.grace_s,
        }
        answer = await self._ask("start", asked, timeout_s)
        self._started.add(what.key)
        return Started(key=what.key, pid=answer["pid"], started_at=answer["started_at"])

    def exited(self, key: str) -> asyncio.Future[HostExit]:
        """Return what will hold the exit of `key`, over reconnects; cancelling it is harmless."""
        return asyncio.shield(self._exit_of(key))

    async def end(self, key: str, cause: str, *, timeout_s: float = _ANSWER_S) -> HostExit:
        """End a process and its whole tree; return when nothing is left, or what cannot be ended.

        Of two ends the first cause stays; who has ended already keeps its own.
        """
        answer = await self._ask("end", {"key": key, "cause": cause}, timeout_s)
        if answer["exit"]:
            self.note_exit(msgspec.convert(answer["exit"], HostExit))
        elif not answer["alive"] and not self._exit_of(key).done():
            raise StartRefused("", f"no process {key!a} is known", code="unknown_key")
        try:
            async with asyncio.timeout(timeout_s):
                return await self.exited(key)
        except TimeoutError:
            what = f"{key!a} has not ended within {timeout_s:g} s"
            raise DeadlineExceeded("shepherd", what) from None

    async def renew(self, leases: Mapping[str, float], *, timeout_s: float = _ANSWER_S) -> set[str]:
        """Lengthen leases to so many seconds from now; return the keys that are not alive."""
        answer = await self._ask("renew", {"leases": dict(leases)}, timeout_s)
        return set(answer["unknown"])

    async def list(self, *, timeout_s: float = _ANSWER_S) -> Listing:
        """Return all that the shepherd knows; the exits resolve `exited`."""
        answer = await self._ask("list", {}, timeout_s)
        listing = msgspec.convert(answer, Listing)
        self._started |= {one.key for one in listing.alive}
        for said in listing.exits:
            self.note_exit(said)
        return listing

    async def forget(self, *keys: str, timeout_s: float = _ANSWER_S) -> None:
        """Acknowledge exits: only now does the shepherd let go of them."""
        for key in keys:
            self._exited.pop(key, None)
            self._started.discard(key)
        await self._ask("forget", {"keys": keys}, timeout_s)

    def note_exit(self, said: HostExit) -> None:
        """Take an exit that the shepherd has told."""
        self._started.discard(said.key)
        future = self._exit_of(said.key)
        if not future.done():
            future.set_result(said)

    def _note_said(self, said: dict[str, Any]) -> None:
        self.note_exit(msgspec.convert(said, HostExit))

    def _exit_of(self, key: str) -> asyncio.Future[HostExit]:
        future = self._exited.get(key)
        if future is None:
            future = self._exited[key] = asyncio.get_running_loop().create_future()
        return future

    async def _ask(self, verb: str, asked: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        if self._link is None:
            raise lost()
        answer = await self._link.ask(verb, asked, timeout_s)
        if error := answer.get("error"):
            raise StartRefused(error["where"], error["what"], error["fix"], code=error["code"])
        return answer

    async def _connect(self, timeout_s: float) -> None:
        link: Link | None = None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    link = await self._reach()
                    try:
                        hello = await link.hello
                        self._link, self.pid, self.groups = link, hello["pid"], hello["groups"]
                        await self._reconcile()
                        return
                    except ShepherdLost:  # one that the agent before us has dismissed
                        self._link = None
        except TimeoutError:
            if link is not None:
                link.close()
            what = f"none answers within {timeout_s:g} s"
            fix = f"read {self._folder}/shepherd/shepherd.log"
            raise DeadlineExceeded("shepherd", what, fix) from None

    async def _reach(self) -> Link:
        """Connect; where nobody listens start a shepherd (a second one leaves by itself)."""
        attempts = itertools.count()
        while True:
            with contextlib.suppress(ConnectionError, FileNotFoundError):
                return await dial(self._folder, self._note_said)
            if next(attempts) % 40 == 0:
                options = msgspec.to_builtins(self._settings)
                await asyncio.to_thread(start_shepherd, self._folder, options)
            await asyncio.sleep(_RETRY_S)

    async def _reconcile(self) -> None:
        """Say of what a dead shepherd did not record that it is lost."""
        before = set(self._started)
        listing = await self.list()
        known = {one.key for one in listing.alive} | {one.key for one in listing.exits}
        for key in before - known:
            self.note_exit(HostExit(key=key, cause="lost"))
