"""An attempt on a DUT: lay out here, send the load there, execute under its fence, bring back.

What the DUT says goes to the same files as that of a host process, and is followed there: a slow
journal never holds a DUT, and the raw bytes are kept. An agent that dies takes its lease with it:
the wrapper on the DUT ends the rest.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tshrag_agent.attempts import workdir
from tshrag_agent.attempts.attempt import Attempt
from tshrag_agent.attempts.beside import Beside
from tshrag_agent.attempts.capture import capture
from tshrag_agent.attempts.dut_clock import DutClock
from tshrag_agent.attempts.environment import (
    Places,
    environment,
    expanded,
    main_words,
    working_directory,
)
from tshrag_agent.attempts.prepare import Command, load_command
from tshrag_agent.attempts.raw_log import RawLog
from tshrag_agent.attempts.steps import CLEANUP_S, Site
from tshrag_agent.boards.board import Board
from tshrag_agent.gang.gangs import SYNC
from tshrag_agent.gang.wire import Converses
from tshrag_agent.reports.logpump import LogPump
from tshrag_agent.reports.tap import SampleTap
from tshrag_agent.results.read import read_results
from tshrag_agent.transport.base import Completed, DutProbe, DutTransport, Stream, TransportFailed
from tshrag_common.errors import ErrorReport, LabError, StaleFence, shown
from tshrag_common.ids import DutId

logger = logging.getLogger(__name__)

PROBE_S = 60.0
COPY_S = 600.0
BACK_BYTES = 64 << 20
"""Of metrics and artifacts that are brought back."""


@dataclass(frozen=True)
class DutPlace:
    """The DUT of an attempt and the way to it."""

    dut: DutId
    transport: DutTransport
    os: str
    arch: str  # empty: the DUT is asked
    board: Board | None = None


class DutSteps:
    """The commands of one attempt on its DUT."""

    def __init__(self, attempt: Attempt, site: Site, place: DutPlace) -> None:
        self._attempt, self._site, self._place = attempt, site, place
        self._dir = workdir.place(site.store, attempt.start)
        self._remote = f"/tmp/tshrag-{attempt.start.job}.{attempt.start.attempt}"
        self._tap = SampleTap(
            attempt.start, attempt.spec, site.clock, ahead_s=site.ahead_s, dut_clock=DutClock()
        )
        self._pump = LogPump(
            attempt,
            {"stdout": self._dir.stdout, "stderr": self._dir.stderr},
            journal=site.journal,
            clock=site.clock,
            tap=self._tap,
            spawn=site.spawn,
            most_bytes=attempt.spec.output_bytes,
        )
        self._beside = Beside(attempt, site, place.dut, place.transport, self._tap)
        self._raw: dict[str, RawLog] = {}
        self._command: Command | None = None
        self._env: dict[str, str] = {}
        self._is_there = False  # something of ours lies on the DUT

    @property
    def can_converse(self) -> bool:
        """Tell whether something can be asked there while a step executes."""
        return isinstance(self._place.transport, Converses)

    async def work(self) -> None:
        async with self._blaming():
            await self._work()

    @asynccontextmanager
    async def _blaming(self) -> AsyncIterator[None]:
        """Take the DUT out of service where an error says that it must not be given on."""
        try:
            yield
        except TransportFailed as error:
            if error.quarantines:
                await self._site.blame(self._place.dut, error.line)
            raise

    async def _work(self) -> None:
        probe = await self._place.transport.probe(timeout_s=PROBE_S)
        self._command = command = await self._prepare(probe)
        await self._beside.begin()
        if self._site.gangs is not None:
            folder = f"/tmp/tshrag-sync-{self._attempt.start.fence}"
            self._beside.wire = self._site.gangs.wire(self._attempt, self._place.transport, folder)
        self._attempt.launched()
        if not await self._site.setups.ready(self._attempt, self._execute):
            return
        if command.setup and not await self._execute("setup", command.setup):
            return
        await self._execute("main", main_words(self._attempt.spec, command.argv, self._env))

    async def clean_up(self) -> None:
        """Execute the cleanup of the load, bring back what it made, leave nothing there."""
        if self._attempt.has_lost_its_lease:
            self._attempt.record.dut_notes.append("left as it was: the lease was over")
        else:
            async with self._blaming():
                await self._leave_in_order()
        for log in self._raw.values():
            log.close()
        if self._raw:
            spec, gate = self._attempt.spec, self._tap.gate
            await read_results(spec, self._dir.path, self._dir.stdout, gate, self._site.clock)
            await self._pump.finish()
            self._note_cut()
        self._attempt.record.notices = (*self._tap.gate.notices(), *self._beside.notices())

    async def _leave_in_order(self) -> None:
        command = self._command
        if self._attempt.is_over and command is not None:
            await self._see_that_it_is_gone()
        if command is not None:
            await self._beside.end()
        if command is not None and command.cleanup:
            await self._cleanup(command.cleanup)
        if self._is_there:
            await self._bring_back()
            self._tap.follow(self._dir.metrics)
        await self._capture()

    async def _see_that_it_is_gone(self) -> None:
        """Look once more after a stop: it is not known whether the DUT has heard it.

        A DUT that does not answer ends the rest by its own lease, and the next fence does.
        """
        try:
            await self._place.transport.end(self._attempt.start.fence)
        except TransportFailed as error:
            self._attempt.record.dut_notes.append(error.line)
            if error.quarantines:
                raise
        except StaleFence:
            return  # a newer attempt has seen to that

    async def _capture(self) -> None:
        spec, board = self._attempt.spec, self._place.board
        if board is None or not spec.capture:
            return
        if self._attempt.record.outcome in ("failed", "timeout"):
            fence, folder = self._attempt.start.fence, self._dir.frozen
            await capture(board, self._place.transport, fence, spec.capture, folder)

    async def _prepare(self, probe: DutProbe) -> Command:
        attempt, site, spec = self._attempt, self._site, self._attempt.spec
        workdir.make(self._dir, spec)
        most_bytes = spec.output_bytes
        self._raw = {
            "stdout": RawLog(self._dir.stdout, most_bytes),
            "stderr": RawLog(self._dir.stderr, most_bytes),
        }
        has_load = spec.kind == "load" and spec.load is not None
        home = self._remote if has_load else ""
        places = Places(
            home=home,
            run_dir=home,
            job_dir=home,
            params=f"{home}/input_params.json" if has_load else "",
            store="",
            http=site.http,
        )
        env = environment(attempt.start, spec, site.agent, places)
        for name in ("HOME", "PWD", "PATH"):
            if not has_load or name == "PATH":
                env.pop(name, None)  # the DUT knows its own better
        self._env = env
        if spec.load is None or not has_load:
            return Command(argv=spec.argv)
        arch = self._place.arch or probe.arch
        staged = workdir.Workdir(run_dir=self._dir.run_dir, path=self._dir.path / "dut")
        await asyncio.to_thread(workdir.make, staged, spec)
        command = await load_command(site.kit, staged, spec.load, self._place.os, arch)
        staged.load_bin.unlink()
        self._is_there = True
        await self._place.transport.upload(staged.path, self._remote, timeout_s=COPY_S)
        return _moved(command, str(staged.path), self._remote)

    async def _execute(self, step: str, argv: Sequence[str]) -> bool:
        """Execute one step; false: it did not hold."""
        self._pump.start()
        try:
            async with self._beside.running(step):
                words, env = await self._joined(argv)
                completed = await self._on_dut(words, self._attempt.spec.timeout_s, env)
        except ExceptionGroup as failed:  # an error of the DUT has a code: it must come out as such
            raise failed.exceptions[0] from None
        self._note(step, completed)
        return self._attempt.record.outcome == "passed"

    async def _joined(self, argv: Sequence[str]) -> tuple[Sequence[str], dict[str, str]]:
        """Return a command line that finds ``tshrag-sync``, where the job is of a gang."""
        wire, gangs = self._beside.wire, self._site.gangs
        if wire is None or gangs is None:
            return argv, {}
        if await wire.ready():
            return wire.dressed(argv), {SYNC: wire.folder}
        self._beside.wire = None
        self._attempt.record.dut_notes.append(f"no tshrag-sync: {wire.fault}")
        await gangs.is_deaf(self._attempt)
        return argv, {}

    async def _on_dut(
        self, argv: Sequence[str], timeout_s: float, more: Mapping[str, str] | None = None
    ) -> Completed:
        spec = self._attempt.spec
        if self._is_there:
            cwd = working_directory(spec, self._env, self._remote)
        else:
            cwd = expanded(spec.cwd, self._env)  # empty: the home of the user there
        try:
            return await self._place.transport.execute(
                argv,
                env={**self._env, **(more or {})},
                cwd=cwd,
                timeout_s=timeout_s,
                fence=self._attempt.start.fence,
                on_output=self._hear,
            )
        except asyncio.CancelledError:  # the transport has ended the tree, and looked
            what = shown(" ".join(argv), 120)
            self._attempt.record.stopped += (f"{self._attempt.start.dut}: the tree of {what}",)
            raise

    def _hear(self, stream: Stream, data: bytes) -> None:
        self._raw[stream].write(data)

    def _note(self, step: str, completed: Completed) -> None:
        record = self._attempt.record
        record.exit_code, record.signal = completed.exit_code, completed.signal or 0
        if completed.note:
            record.dut_notes.append(completed.note)
        if not completed.guarded:
            record.dut_notes.append("unguarded")
        if completed.succeeded:
            return
        where = "" if step == "main" else f"{step}: "
        match completed.cause:
            case "exit" if step == "main":
                record.fail("failed", ErrorReport(code="exit", message=completed.said))
            case "exit":
                message = where + completed.said
                record.fail("error", ErrorReport(code=f"{step}_failed", message=message))
            case "deadline":
                message = f"{where}longer than {self._attempt.spec.timeout_s:g} s"
                record.fail("timeout", ErrorReport(code="timeout", message=message))
            case cause:
                message = f"{where}ended on the DUT: {cause}"
                record.fail("error", ErrorReport(code=cause, message=message, retryable=True))

    async def _cleanup(self, argv: Sequence[str]) -> None:
        try:
            completed = await self._on_dut(argv, CLEANUP_S)
            what = None if completed.succeeded else completed.said
        except LabError as error:
            what = error.line
        if what is not None:
            self._attempt.record.dut_notes.append(f"cleanup failed: {what}")
            fix = f"look at it, then: tshrag dut return {self._place.dut}"
            reason = f"the cleanup of {self._attempt.start.job} failed: {what}; {fix}"
            await self._site.blame(self._place.dut, reason)

    async def _bring_back(self) -> None:
        """Bring metrics and artifacts back; what cannot be had is noted, not fatal."""
        transport, record = self._place.transport, self._attempt.record
        try:
            for name, target in (
                ("metrics", self._dir.metrics),
                ("artifacts", self._dir.artifacts),
            ):
                await asyncio.to_thread(target.rmdir)
                await transport.download(
                    f"{self._remote}/{name}", target, most_bytes=BACK_BYTES, timeout_s=COPY_S
                )
            await transport.execute(
                ("rm", "-rf", self._remote),
                env={},
                cwd="/",
                timeout_s=CLEANUP_S,
                fence=self._attempt.start.fence,
                on_output=_ignore,
            )
        except (LabError, OSError) as error:
            said = error.line if isinstance(error, LabError) else str(error)
            record.dut_notes.append(f"not brought back: {said}")
            if isinstance(error, TransportFailed) and record.outcome == "passed":
                raise

    def _note_cut(self) -> None:
        """Count what never reached the raw files, beside what the pump left out."""
        record = self._attempt.record
        record.stdout = self._raw["stdout"].counted(record.stdout)
        record.stderr = self._raw["stderr"].counted(record.stderr)


def _moved(command: Command, here: str, there: str) -> Command:
    """Return the command lines with the paths that they have on the DUT."""

    def moved(argv: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(there + word[len(here) :] if word.startswith(here) else word for word in argv)

    return Command(
        argv=moved(command.argv), setup=moved(command.setup), cleanup=moved(command.cleanup)
    )


def _ignore(_stream: Stream, _data: bytes) -> None:
    """Let output go."""
