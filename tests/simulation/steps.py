"""How a simulated attempt is made: the work lives in the world, the agent follows what it says.

Lines become samples and output in one transaction with the offset that was reached, as LogPump
does it, so that an agent that adopts goes on where the journal is.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tests.simulation.machines import Board, Machine, Script, Work
from tshrag_agent.attempts.attempt import Attempt
from tshrag_agent.attempts.host import HostExit, HostLimits, HostStart, Shepherd
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import Append, Pumped
from tshrag_common import wire
from tshrag_common.errors import ErrorReport, Unreachable
from tshrag_common.metrics import MetricInfo, SampleBatch, pack
from tshrag_common.reports import OutputChunk

LINE = MetricInfo(key="sim.line")
_EVERY_S = 0.4
_MARGIN_S = 5.0
_LINE_BYTES = 24
_LINK_S = 0.02
_SILENCE_S, _LEASE_S = 5.0, 11.0

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]


def line(fence: int, number: int) -> float:
    """Return the value of a line; no other line of a lab has it."""
    return float((fence % (1 << 36)) * 1000 + number)


class Follow:
    """Lines of one piece of work -> the journal."""

    def __init__(self, attempt: Attempt, machine: Machine, journal: Journal, spawn: Spawn) -> None:
        self._attempt, self._machine, self._journal = attempt, machine, journal
        self._spawn = spawn
        self._told = attempt.left.stdout // _LINE_BYTES if attempt.left else 0
        self._task: asyncio.Task[None] | None = None
        self._stopping, self._ended = asyncio.Event(), asyncio.Event()
        self._work: Work | None = None

    def start(self, work: Work) -> None:
        """Follow in a task of its own: what ends the attempt must not cut a turn."""
        if self._task is None:
            self._work = work
            self._task = self._spawn(self._pump(work), f"output of {work.fence}")

    async def finish(self) -> None:
        self._stopping.set()
        if self._task is not None:
            await self._ended.wait()
        if self._work is not None:
            await self._turn(self._work)

    async def _pump(self, work: Work) -> None:
        try:
            while not self._stopping.is_set():
                await self._turn(work)
                try:
                    async with asyncio.timeout(_EVERY_S):
                        await self._stopping.wait()
                except TimeoutError:
                    continue
        finally:
            self._ended.set()

    async def _turn(self, work: Work) -> None:
        upto = work.said(self._machine.loop.time())
        if upto <= self._told:
            return
        numbers = range(self._told, upto)
        self._told = upto
        start, record = self._attempt.start, self._attempt.record
        at = self._machine.clock.now()
        values = [line(start.fence, number) for number in numbers]
        series = pack(LINE, [at] * len(values), values)
        batch = SampleBatch(
            run=start.run,
            job=start.job,
            attempt=start.attempt,
            dut=start.dut or "",
            series=(series,),
        )
        chunk = OutputChunk(
            run=start.run,
            job=start.job,
            attempt=start.attempt,
            stream="stdout",
            offset=numbers[0] * _LINE_BYTES,
            data=b"".join(b"%23.0f\n" % value for value in values),
        )
        last = await self._journal.write(
            Append("samples", (wire.body(batch),)),
            Append("output", (wire.body(chunk),)),
            Pumped(start.fence, upto * _LINE_BYTES, 0, "{}", True, True),
        )
        record.samples_upto, record.output_upto = self._journal.state("samples").last, last
        note = self._machine.history.note
        note(self._machine.loop.time(), "spooled", start.job, start.attempt, tuple(values))


class SimShepherd(Shepherd):
    """The agent's side of the shepherd of a machine, without a socket between."""

    def __init__(self, machine: Machine) -> None:
        self._exited = {}
        self._started = set()
        self._machine = machine

    async def list(self, *, timeout_s: float = 1.0) -> Any:  # as the real one
        await asyncio.sleep(0.002)
        listing = self._machine.listing()
        for exit in listing.exits:
            self.note_exit(exit)
        return listing

    async def end(
        self, key: str, cause: str, *, timeout_s: float = 30.0
    ) -> HostExit:  # as the real one
        await asyncio.sleep(0.001)
        exit = self._machine.end(key, cause)
        return exit if exit is not None else await self.exited(key)

    async def forget(self, *keys: str, timeout_s: float = 1.0) -> None:  # as the real one
        for key in keys:
            self._exited.pop(key, None)
        self._machine.forget(keys)


class HostSteps:
    """Work on the lab host."""

    def __init__(
        self, attempt: Attempt, machine: Machine, shepherd: SimShepherd, follow: Follow
    ) -> None:
        self._attempt, self._machine = attempt, machine
        self._shepherd, self._follow = shepherd, follow
        self._key = f"{attempt.start.fence}.main"
        self._is_over = False
        self._has_begun = attempt.adopted

    async def work(self) -> None:
        attempt = self._attempt
        if not attempt.adopted:
            await asyncio.sleep(0.005)  # a directory is made, a load is fetched
            limits = HostLimits(wall_s=attempt.spec.timeout_s + _MARGIN_S)
            asked = HostStart(
                key=self._key,
                argv=attempt.spec.argv,
                cwd="/",
                env={},
                stdout_path="",
                stderr_path="",
                limits=limits,
            )
            self._has_begun = True
            started = self._machine.start(asked, attempt.start.fence, attempt.start.job)
            await asyncio.sleep(0.002)
            attempt.launched(started.started_at)
        work = self._machine.work(self._key)
        if work is None:
            raise Unreachable(self._key, "is gone")
        self._follow.start(work)
        exit = await self._shepherd.exited(self._key)
        self._is_over = True
        if not attempt.record.started_at:
            attempt.launched(exit.started_at)
        self._note(exit)

    async def clean_up(self) -> None:
        if not self._has_begun:
            return
        if not self._is_over:
            exit = await self._shepherd.end(self._key, "stopped")
            if exit.cause == "exited" and self._attempt.record.outcome == "timeout":
                # It had ended in time, and an agent that was frozen hears of it late.
                self._attempt.record.outcome, self._attempt.record.error = "passed", None
                self._note(exit)
        await self._follow.finish()
        await self._shepherd.forget(self._key)

    def _note(self, exit: HostExit) -> None:
        record = self._attempt.record
        record.exit_code = exit.exit_code
        if exit.cause == "exited" and exit.exit_code:
            record.fail("failed", ErrorReport(code="exit", message="exit code 1"))
        elif exit.cause == "timeout":
            record.fail("timeout", ErrorReport(code="timeout", message="the limit is over"))
        elif exit.cause != "exited":
            error = ErrorReport(code=f"host_{exit.cause}", message=exit.cause, retryable=True)
            record.fail("error", error)


class BoardSteps:
    """Work on a DUT, driven by the agent: it ends with the agent, or with the way to the DUT."""

    def __init__(
        self, attempt: Attempt, machine: Machine, board: Board, driver: object, follow: Follow
    ) -> None:
        self._attempt, self._machine, self._board = attempt, machine, board
        self._driver, self._follow = driver, follow
        self._work: Work | None = None
        self._ended: asyncio.Future[None] = machine.loop.create_future()

    async def work(self) -> None:
        attempt, board, loop = self._attempt, self._board, self._machine.loop
        await asyncio.sleep(_LINK_S)
        if not board.is_reachable:
            await asyncio.sleep(_SILENCE_S)
            raise Unreachable(board.name, "no answer", code="dut_unreachable")
        fence, script = attempt.start.fence, Script.of(attempt.spec.argv)
        ended = self._ended = loop.create_future()
        work = self._work = board.begin(fence, attempt.start.job, script, self._driver)
        work.on_end.append(lambda _: None if ended.done() else ended.set_result(None))
        attempt.launched()
        self._follow.start(work)
        await ended
        if work.cause != "exited":
            raise Unreachable(board.name, f"the session ended: {work.cause}", code="dut_lost")
        if script.ends == "fail":
            attempt.record.fail("failed", ErrorReport(code="exit", message="exit code 1"))

    async def clean_up(self) -> None:
        work = self._work
        if self._attempt.adopted:  # what an earlier agent drove may live on: on a console it does
            self._board.sweep(self._attempt.start.fence)
        if work is None:
            return
        if work.ended is None:
            await asyncio.sleep(_LINK_S)
            if not self._board.is_reachable:
                await asyncio.wait([self._ended], timeout=_LEASE_S)  # its lease ends it
            self._board.end(work, "stopped")
        await self._follow.finish()
