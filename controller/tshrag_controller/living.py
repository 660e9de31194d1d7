"""Criteria while samples come: runs end as soon as their verdict is decided, guards of steps fire.

What is here is a view of the stream that is made anew after a start: from what the store has, then
from what is stored. It only ever asks the core for something; the LOG has what came of it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager
from functools import partial

from tshrag_common import ids
from tshrag_common.criteria import CompiledCriterion
from tshrag_common.errors import LabError
from tshrag_common.ids import JobId, RunId
from tshrag_common.metrics import SampleBatch
from tshrag_common.states import JOB, JobState, RunState
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.follow import is_shut
from tshrag_controller.core.lab import Job, Lab, Run
from tshrag_controller.core.live import Arrived, LiveCriterion, Standing
from tshrag_controller.core.on_live import on_decided, on_gate, on_guard
from tshrag_controller.core.source import Source
from tshrag_controller.engine import Engine
from tshrag_controller.store.sources import judged
from tshrag_controller.store.store import Store

logger = logging.getLogger(__name__)

TICK_S = 0.5
MOST_WAITING = 4096
"""Batches that wait to be looked at; beyond it the oldest are passed over, and runs judged live
know of less: what is decided at the end is not touched."""

Stored = tuple[str, SampleBatch]
"""(agent, batch)"""


class LiveRun:
    """The criteria and guards of one run that lives."""

    def __init__(self, run: Run) -> None:
        self.id = run.id
        self.stops = run.stop_early
        self.keys: set[str] = set()
        self.criteria = [LiveCriterion(each) for each in run.criteria]
        self.guards: dict[tuple[int, str], LiveCriterion] = {}
        for number, spec in enumerate(run.plan.specs):
            for kind in ("when", "until", "abort"):
                guard: CompiledCriterion | None = getattr(spec, kind)
                if guard is not None:
                    self.guards[number, kind] = LiveCriterion(guard)
        for each in (*self.criteria, *self.guards.values()):
            self.keys.update(each.criterion.keys)

    @staticmethod
    def matters(run: Run) -> bool:
        """Tell whether anything of a run depends on samples before its end."""
        guarded = any(spec.is_guarded for spec in run.plan.specs)
        critical = any(each.severity == "critical" for each in run.criteria)
        return guarded or critical or (run.stop_early and bool(run.criteria))

    def feed(self, arrived: Arrived) -> None:
        for criterion in (*self.criteria, *self.guards.values()):
            criterion.feed(arrived)


class Living:
    """Looks at what was stored, and tells the engine what follows from it."""

    def __init__(
        self, engine: Engine, store: Store, complete: Callable[[], Awaitable[None]]
    ) -> None:
        """Make one; `complete` returns when all that the streams held is stored."""
        self._engine, self._store, self._complete = engine, store, complete
        self._runs: dict[RunId, LiveRun] = {}
        self._waiting: asyncio.Queue[Stored] = asyncio.Queue()
        self._leads = False
        self.passed_over = 0

    async def _recall(self) -> None:
        """Take up the runs that live, with what was stored of them; nothing more is meanwhile."""
        found = await self._engine.ask(_that_matter)
        for run in found:
            live = LiveRun(run)
            keys = [each.criterion for each in (*live.criteria, *live.guards.values())]
            known = await self._store.query(partial(judged, run=run.id, criteria=keys))
            for source in known.sources:
                live.feed(_arrived(source))
            self._runs[run.id] = live

    def put(self, stored: Iterable[Stored]) -> None:
        """Have batches looked at that were stored just now, in their order; a standby has none."""
        if not self._leads:
            return
        for each in stored:
            if self._waiting.qsize() >= MOST_WAITING:
                self._waiting.get_nowait()
                self.passed_over += 1
            self._waiting.put_nowait(each)

    async def live(self, paused: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """Look at what comes and at the time, for ever; `paused` lets nothing be stored inside."""
        await self._complete()
        async with paused():
            await self._recall()
            self._leads = True
        while True:
            batches = await self._next()
            try:
                await self._engine.ask(partial(self._look, batches))
            except LabError as error:
                logger.warning("samples were not looked at", extra={"why": error.line})

    async def _next(self) -> list[Stored]:
        """Return what waits; nothing when it is time to look at the clock."""
        found: list[Stored] = []
        try:
            async with asyncio.timeout(TICK_S):
                found.append(await self._waiting.get())
        except TimeoutError:
            return found
        while not self._waiting.empty():
            found.append(self._waiting.get_nowait())
        return found

    def _look(self, batches: Sequence[Stored], decision: Decision) -> None:
        """Feed batches to their runs; ask for what follows. Part of a turn: no await here."""
        lab = decision.lab
        touched: dict[RunId, None] = {}
        for agent, batch in batches:
            run = lab.runs.get(RunId(batch.run))
            if run is None or run.state is not RunState.RUNNING or not LiveRun.matters(run):
                continue
            live = self._runs.setdefault(run.id, LiveRun(run))
            for arrived in _of_batch(lab, agent, batch, live.keys):
                live.feed(arrived)
            touched[run.id] = None
        if not batches:
            touched = dict.fromkeys(self._runs)
        for name in touched:
            known = lab.runs.get(name)
            if known is None or known.state is not RunState.RUNNING:
                self._runs.pop(name, None)
            else:
                self._decide(decision, known, self._runs[name])

    def _decide(self, decision: Decision, run: Run, live: LiveRun) -> None:
        open_jobs = _open_jobs(decision.lab, run)
        self._guard(decision, run, live, open_jobs)
        if run.decided or not live.criteria:
            return
        now = decision.now
        found = [(each.criterion, each.standing(now, open_jobs)) for each in live.criteria]
        for criterion, standing in found:
            if _ends_run(run, criterion, standing):
                on_decided(decision, run.id, criterion.name, "fail", standing.said)
                return
        major = [standing for criterion, standing in found if criterion.severity != "minor"]
        if live.stops and major and all(each.decided for each in major):
            said = "every criterion is decided"
            on_decided(decision, run.id, "", "pass", said)

    def _guard(
        self, decision: Decision, run: Run, live: LiveRun, open_jobs: Mapping[str, int]
    ) -> None:
        """Look at the guards of jobs: those of a job that runs see all samples of the run."""
        if not live.guards:
            return
        for planned in run.plan.jobs:
            job = decision.lab.jobs[ids.job_of(run.id, planned.serial)]
            if is_shut(run, job) and not job.missing:
                standing = live.guards[job.spec, "when"].standing(decision.now, open_jobs)
                if standing.verdict == "pass":
                    on_gate(decision, job.id, standing.said)
            elif job.state is JobState.RUNNING and not job.stop:
                self._end(decision, job, live, open_jobs)

    def _end(
        self, decision: Decision, job: Job, live: LiveRun, open_jobs: Mapping[str, int]
    ) -> None:
        for kind in ("abort", "until"):
            guard = live.guards.get((job.spec, kind))
            if guard is None:
                continue
            standing = guard.standing(decision.now, open_jobs, job.id)
            if standing.verdict == "pass":
                on_guard(decision, job.id, kind, standing.said)
                return


def _ends_run(run: Run, criterion: CompiledCriterion, standing: Standing) -> bool:
    """Tell whether a criterion that has failed for good makes the rest of the run needless."""
    if not standing.decided or standing.verdict != "fail" or criterion.severity == "minor":
        return False
    return run.stop_early or criterion.severity == "critical"


def _that_matter(decision: Decision) -> list[Run]:
    runs = decision.lab.runs.values()
    return [run for run in runs if run.state is RunState.RUNNING and LiveRun.matters(run)]


def _open_jobs(lab: Lab, run: Run) -> dict[str, int]:
    """Return the jobs that may still bring samples, with the begin of their attempts; 0: none."""
    found: dict[str, int] = {}
    for planned in run.plan.jobs:
        job = lab.jobs[ids.job_of(run.id, planned.serial)]
        if not JOB.is_final(job.state) and run.spec(job).is_placed:
            attempt = lab.attempts.get(job.fence)
            found[job.id] = attempt.started_at if attempt is not None else 0
    return found


def _of_batch(lab: Lab, agent: str, batch: SampleBatch, keys: Set[str]) -> Iterable[Arrived]:
    """Return the series of a batch of an attempt that lives or has ended just now."""
    if not batch.job:
        return
    job = lab.jobs.get(JobId(batch.job))
    attempt = lab.attempts.get(job.fence) if job is not None else None
    if attempt is None or attempt.number != batch.attempt:
        return  # of an earlier attempt: it does not count
    for series in batch.series:
        if series.key not in keys:
            continue
        times, values = series.columns()
        yield Arrived(
            key=series.key,
            times=times,
            values=values,
            unit=series.unit,
            type=series.type,
            job=batch.job,
            attempt=batch.attempt,
            dut=batch.dut,
            host=agent,
            started_at=attempt.started_at,
        )


def _arrived(source: Source) -> Arrived:
    return Arrived(
        key=source.key,
        times=source.times,
        values=source.values,
        unit=source.unit,
        type=source.type,
        job=source.job,
        dut=source.dut,
        host=source.host,
        started_at=source.started_at,
    )
