"""An attempt with processes on the lab host: lay out, fetch, set up, execute, clean up, collect.

The shepherd starts and ends the processes; their output goes to files that are followed here. An
agent that dies in the middle is followed by one that adopts: it begins with `_await_exit`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tshrag_agent.attempts import workdir
from tshrag_agent.attempts.attempt import Attempt
from tshrag_agent.attempts.contact import CODE as LEASE_OVER, Contact
from tshrag_agent.attempts.environment import (
    Places,
    environment,
    main_words,
    working_directory,
)
from tshrag_agent.attempts.host import HostExit, HostLimits, HostStart, Shepherd, StartRefused
from tshrag_agent.attempts.metric_gate import AHEAD_S
from tshrag_agent.attempts.prepare import Command, Kit, host_command, unpacked_command
from tshrag_agent.attempts.setups import Setups
from tshrag_agent.attempts.stuck import Stuck
from tshrag_agent.gang.gangs import Gangs
from tshrag_agent.journal.journal import Journal
from tshrag_agent.reports.logpump import LogPump, Spawn
from tshrag_agent.reports.metric_sockets import MetricSockets
from tshrag_agent.reports.sampler import Sampler, tree_pids
from tshrag_agent.reports.tap import SampleTap
from tshrag_agent.results.read import read_results
from tshrag_agent.scrape.dial import host_dial
from tshrag_agent.scrape.scraper import Scrapes
from tshrag_common.clock import Clock
from tshrag_common.errors import ErrorReport, LabError
from tshrag_common.ids import AgentId, DutId
from tshrag_common.reports import Outcome, Usage

logger = logging.getLogger(__name__)

CLEANUP_S = 60.0
_FORGET_S = 0.1
_LIMIT_MARGIN_S = 5.0  # the shepherd ends it when the agent did not: frozen, or gone


class Exits:
    """Ends that are taken over; the shepherd is told to forget them, many at once."""

    def __init__(self, shepherd: Shepherd) -> None:
        self._shepherd = shepherd
        self._keys: list[str] = []

    def forget(self, keys: Iterable[str]) -> None:
        self._keys.extend(keys)

    async def run(self) -> None:
        """Tell the shepherd, for ever; what is not told is told after the next start."""
        while True:
            await asyncio.sleep(_FORGET_S)
            keys, self._keys = self._keys, []
            if keys:
                with contextlib.suppress(LabError):
                    await self._shepherd.forget(*keys)


Blame = Callable[[DutId, str], Awaitable[None]]
"""Take a DUT out of service, with the reason."""


async def _nobody(_dut: DutId, _reason: str) -> None:
    """Blame nobody."""


@dataclass(frozen=True)
class Site:
    """What all attempts of this agent share."""

    agent: AgentId
    store: Path
    cache: Path
    http: str
    journal: Journal
    clock: Clock
    kit: Kit
    shepherd: Shepherd
    exits: Exits
    setups: Setups
    sockets: MetricSockets
    spawn: Spawn
    sampler: Sampler | None  # none: no samples of processes
    sample_s: float = 0.0  # of DUTs; 0: none
    clock_s: float = 10.0  # between two readings of the clock of a DUT
    ahead_s: float = AHEAD_S  # of a sample, before the clock of this host
    blame: Blame = _nobody
    contact: Contact | None = None  # none: nothing ends when nobody answers
    gangs: Gangs | None = None  # none: jobs of a gang cannot speak to each other
    stuck: Stuck = field(default_factory=Stuck)


class HostSteps:
    """The processes of one attempt on this host."""

    def __init__(self, attempt: Attempt, site: Site) -> None:
        self._attempt, self._site = attempt, site
        self._dir = workdir.place(site.store, attempt.start)
        self._tap = SampleTap(attempt.start, attempt.spec, site.clock, ahead_s=site.ahead_s)
        self._scrapes = Scrapes(attempt.spec, host_dial, self._tap.gate, site.clock)
        left = attempt.left
        self._pump = LogPump(
            attempt,
            {"stdout": self._dir.stdout, "stderr": self._dir.stderr},
            journal=site.journal,
            clock=site.clock,
            tap=self._tap,
            spawn=site.spawn,
            offsets=(left.stdout, left.stderr) if left else (0, 0),
            most_bytes=attempt.spec.output_bytes,
        )
        self._command: Command | None = None
        self._env: dict[str, str] = {}
        self._alive: set[str] = set()  # keys of the shepherd
        self._over: set[str] = set()  # those of which we know the exit
        self._has_dir = attempt.adopted

    @property
    def main_key(self) -> str:
        return f"{self._attempt.start.fence}.main"

    async def work(self) -> None:
        if self._attempt.adopted:
            await self._adopt()
            return
        await self._prepare()
        command = self._command
        if command is None:
            raise AssertionError("prepared without a command")
        if not await self._site.setups.ready(self._attempt, self._execute):
            return
        if command.setup and not await self._execute("setup", command.setup):
            return
        await self._execute("main", main_words(self._attempt.spec, command.argv, self._env))

    async def clean_up(self) -> None:
        """End what is alive, run the cleanup of the load, collect what was said."""
        if self._site.sampler is not None:
            self._site.sampler.unwatch(self._tap.source)
        for key in sorted(self._alive - self._over):
            await self._end(key)
        is_ours = not self._attempt.has_lost_its_lease
        if is_ours and self._command is not None and self._command.cleanup:
            await self._execute_cleanup(self._command.cleanup)
        if self._has_dir:
            spec, gate = self._attempt.spec, self._tap.gate
            await read_results(spec, self._dir.path, self._dir.stdout, gate, self._site.clock)
            await self._pump.finish()
        self._attempt.record.notices = (*self._tap.gate.notices(), *self._scrapes.notices())
        if self._site.contact is not None:
            for key in self._alive:
                self._site.contact.drop(key)
        self._site.exits.forget(self._alive)

    async def _prepare(self) -> None:
        attempt, site = self._attempt, self._site
        workdir.make(self._dir, attempt.spec)
        self._has_dir = True
        self._command = await host_command(site.kit, self._dir, attempt.spec)
        self._tap.follow(self._dir.metrics)
        self._env = self._environment(await self._tap.open(self._dir.path, self._site.sockets))

    def _environment(self, metrics: str) -> dict[str, str]:
        site = self._site
        places = Places(
            home=str(self._dir.path),
            run_dir=str(self._dir.run_dir),
            job_dir=str(self._dir.path),
            params=str(self._dir.params),
            store=str(site.store),
            cache=str(site.cache),
            metrics=metrics,
            http=site.http,
        )
        start = self._attempt.start
        env = environment(start, self._attempt.spec, site.agent, places)
        return site.gangs.joined(start.fence, env) if site.gangs is not None else env

    async def _execute(self, step: str, argv: Sequence[str]) -> bool:
        """Execute one step to its end; false: it did not hold."""
        key = f"{self._attempt.start.fence}.{step}"
        limit_s = self._attempt.spec.timeout_s + _LIMIT_MARGIN_S
        await self._start(key, argv, limit_s)
        self._note_exit(step, await self._follow(key))
        return self._attempt.record.outcome == "passed"

    async def _start(self, key: str, argv: Sequence[str], limit_s: float) -> None:
        spec = self._attempt.spec
        asked = HostStart(
            key=key,
            argv=tuple(argv),
            cwd=self._working_directory(),
            env=self._env,
            stdout_path=str(self._dir.stdout),
            stderr_path=str(self._dir.stderr),
            limits=HostLimits(wall_s=limit_s, output_bytes=spec.output_bytes),
            lease_s=self._lease_left_s(),
        )
        self._alive.add(key)
        self._hold(key)
        try:
            started = await self._site.shepherd.start(asked)
        except StartRefused:
            self._alive.discard(key)
            raise
        if not self._attempt.record.started_at:
            self._attempt.launched(started.started_at)
        if self._site.sampler is not None:
            self._site.sampler.watch(self._tap.source, tree_pids(started.pid))

    def _lease_left_s(self) -> float | None:
        contact = self._site.contact
        return contact.left_s(self._attempt.start.lease_s) if contact is not None else None

    def _hold(self, key: str) -> None:
        """Have the shepherd's lease renewed with ours."""
        if self._site.contact is not None:
            self._site.contact.hold(key, self._attempt.start.lease_s)

    def _working_directory(self) -> str:
        """Return where a process begins; below the job's directory, which is new, it is made."""
        home = self._dir.path
        cwd = Path(working_directory(self._attempt.spec, self._env, str(home)))
        if cwd != home and cwd.is_relative_to(home) and ".." not in cwd.parts:
            with contextlib.suppress(FileExistsError):  # a file: the start says so
                cwd.mkdir(parents=True, exist_ok=True)
        return str(cwd)

    async def _follow(self, key: str) -> HostExit:
        """Pump output until the process has ended."""
        self._pump.start()
        async with self._scrapes.running():
            exit = await self._site.shepherd.exited(key)
        self._over.add(key)
        await self._note_unkillable(exit)
        return exit

    async def _adopt(self) -> None:
        """Go on with what another agent has begun; its end may be waiting already."""
        self._alive.add(self.main_key)
        self._hold(self.main_key)
        left = self._attempt.left
        self._tap.follow(self._dir.metrics, left.files if left is not None else "{}")
        self._env = self._environment(await self._tap.open(self._dir.path, self._site.sockets))
        if self._attempt.spec.load is not None:
            self._command = unpacked_command(self._site.kit, self._dir, self._attempt.spec.load)
        self._note_exit("main", await self._follow(self.main_key))

    async def _end(self, key: str) -> None:
        """End a process that may be alive, and note what had to be stopped."""
        shepherd = self._site.shepherd
        cause = "stopped"
        try:
            exit = await shepherd.end(key, cause)
        except StartRefused:
            return  # it was never started
        record = self._attempt.record
        if exit.cause == cause:
            record.exit_code, record.signal = exit.exit_code, exit.signal or 0
            self._note_use(exit)
        record.stopped += tuple(f"pid {one.pid} {one.command} ({one.how})" for one in exit.stopped)
        await self._note_unkillable(exit)

    async def _note_unkillable(self, exit: HostExit) -> None:
        """Tell of processes that hang in the kernel; a DUT that they may touch is not given on."""
        if not exit.unkillable:
            return
        what = f"not ended: pids {', '.join(map(str, exit.unkillable))}"
        self._site.stuck.add(exit.unkillable)
        logger.error("processes cannot be ended", extra={**self._attempt.facts, "why": what})
        self._attempt.record.dut_notes.append(what)
        self._attempt.record.fail(
            "error", ErrorReport(code="not_ended", message=what, retryable=True)
        )
        if self._attempt.start.dut is not None:
            await self._site.blame(self._attempt.start.dut, f"{what}; reboot its host")

    def _note_exit(self, step: str, exit: HostExit) -> None:
        """Take over how a process ended."""
        record = self._attempt.record
        record.exit_code, record.signal = exit.exit_code, exit.signal or 0
        if not record.started_at:
            self._attempt.launched(exit.started_at)
        self._note_use(exit)
        failure = _failure(step, exit)
        if failure is not None:
            record.fail(*failure)

    def _note_use(self, exit: HostExit) -> None:
        usage = self._attempt.record.usage
        most = max(usage.max_rss_bytes, exit.max_rss_bytes)
        self._attempt.record.usage = Usage(usage.cpu_us + exit.cpu_us, most)

    async def _execute_cleanup(self, argv: Sequence[str]) -> None:
        """Execute the cleanup; its failure is told, but does not change how the job ended."""
        key = f"{self._attempt.start.fence}.cleanup"
        try:
            await self._start(key, argv, CLEANUP_S)
            async with asyncio.timeout(CLEANUP_S + _LIMIT_MARGIN_S):
                exit = await self._site.shepherd.exited(key)
            what = None if exit.exit_code == 0 else f"exit code {exit.exit_code}, {exit.cause}"
        except (LabError, TimeoutError) as error:
            what = str(error) or "too slow"
        if what is not None:
            self._attempt.record.dut_notes.append(f"cleanup failed: {what}")


def _failure(step: str, exit: HostExit) -> tuple[Outcome, ErrorReport] | None:
    """Return what an exit means for the job; None: it held."""
    where = "" if step == "main" else f"{step}: "
    match exit.cause:
        case "exited" if exit.exit_code == 0:
            return None
        case "exited":
            how = f"signal {exit.signal}" if exit.signal else f"exit code {exit.exit_code}"
            if exit.oom_kills:
                how += ", out of memory"
            outcome: Outcome = "failed" if step == "main" else "error"
            code = "exit" if step == "main" else f"{step}_failed"
            return outcome, ErrorReport(code=code, message=where + how)
        case "lease":
            message = f"{where}no heartbeat was answered; its lease is over"
            return "error", ErrorReport(code=LEASE_OVER, message=message, retryable=True)
        case "timeout":
            return "timeout", ErrorReport(code="timeout", message=f"{where}the limit is over")
        case _:
            message = f"{where}its process was ended: {exit.cause}"
            return "error", ErrorReport(code=f"host_{exit.cause}", message=message, retryable=True)
