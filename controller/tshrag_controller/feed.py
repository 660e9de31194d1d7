"""Committed events -> those who wait for them: people who watch a run, and a cancel that waits.

News are published only while somebody watches, by whichever controller was asked; a watcher asks
again every 15 s, perhaps another one. What is missed is not repeated: each news names the one
before, and a reader with a gap asks for the whole. What two controllers tell counts once.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

import msgspec

from tshrag_common import subjects
from tshrag_common.clock import Clock
from tshrag_common.ids import Fence, JobId, RunId, run_of
from tshrag_common.reports import Ended
from tshrag_common.views import Moved, News
from tshrag_controller.core import events as e
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.lab import Lab, Run
from tshrag_controller.log.frames import Frame

logger = logging.getLogger(__name__)

WATCH_S = 45.0
MOST_ANNOUNCED = 5000
MOST_MOVED = 200
"""Jobs named in one message; ``counts`` tell of all."""

_JSON = msgspec.json.Encoder()


class Feed:
    """Turns frames into news, and remembers who waits for the end of which attempt."""

    def __init__(self, clock: Clock, publish: Callable[[str, bytes], None]) -> None:
        self._clock, self._publish = clock, publish
        self._watched: dict[RunId, float] = {}  # until when, monotonic
        self._last: dict[RunId, int] = {}
        self._ends: dict[Fence, list[asyncio.Future[Ended | None]]] = {}

    def watch(self, run: RunId, sequence: int) -> None:
        """Tell of a run for a while, of whatever moves in it behind frame `sequence`."""
        now = self._clock.monotonic()
        for name in [name for name, until in self._watched.items() if until < now]:
            del self._watched[name]
            self._last.pop(name, None)
        self._watched[run] = now + WATCH_S
        self._last.setdefault(run, sequence)  # whoever knows less has missed something

    def announce(self, decision: Decision) -> None:
        """Tell those who watch the runs that are alive to ask again: who told them may be gone."""
        lab, at = decision.lab, decision.now
        for run in list(lab.runs.values())[:MOST_ANNOUNCED]:
            news = News(
                seq=lab.sequence, after=0, at=at, run=run.id, state=run.state, counts={},
                moved=(), restarted=True,
            )  # fmt: skip
            self._publish(subjects.ui(run.org, "run", run.id), _JSON.encode(news))

    def end_of(self, fence: Fence) -> "asyncio.Future[Ended | None]":
        """Return what will hold the end of an attempt; None where it was lost."""
        waiting: asyncio.Future[Ended | None] = asyncio.get_running_loop().create_future()
        self._ends.setdefault(fence, []).append(waiting)
        return waiting

    def on_commit(self, lab: Lab, frame: Frame, sequence: int) -> None:
        """Tell of one frame; the Lab is as it is behind it."""
        moved: dict[RunId, dict[JobId, None]] = {}
        for event in frame.events:
            self._note_end(event)
            if self._watched:
                _note_move(lab, event, moved)
        for run_name, jobs in moved.items():
            run = lab.runs.get(run_name)
            if run is not None and self._is_watched(run_name):
                self._tell(lab, run, jobs, frame.at, sequence)

    def _note_end(self, event: e.AnyEvent) -> None:
        if not self._ends:
            return
        if isinstance(event, e.AttemptEnded):
            fence, ended = event.ended.fence, event.ended
        elif isinstance(event, e.AttemptLost):
            fence, ended = event.fence, None
        else:
            return
        for waiting in self._ends.pop(fence, ()):
            if not waiting.done():
                waiting.set_result(ended)

    def _is_watched(self, run: RunId) -> bool:
        until = self._watched.get(run)
        if until is None:
            return False
        if until < self._clock.monotonic():
            del self._watched[run]
            self._last.pop(run, None)
            return False
        return True

    def _tell(self, lab: Lab, run: Run, jobs: Iterable[JobId], at: int, sequence: int) -> None:
        names = [name for name in jobs if name in lab.jobs][:MOST_MOVED]
        news = News(
            seq=sequence,
            after=self._last.get(run.id, 0),
            at=at,
            run=run.id,
            state=run.state,
            counts=counts_of(lab, run),
            moved=tuple(_moved(lab, run, name) for name in names),
        )
        self._last[run.id] = sequence
        self._publish(subjects.ui(run.org, "run", run.id), _JSON.encode(news))


def counts_of(lab: Lab, run: Run) -> dict[str, int]:
    """Return job state -> how many, of a run in memory; cheap where most have ended."""
    counts = {str(state): count for state, count in run.ended.items()}
    if run.open_jobs > 500:  # a large run: the open ones together, they are told one by one too
        counts["waiting"] = run.open_jobs - run.live
        counts["running"] = run.live
        return counts
    for planned in run.plan.jobs:
        job = lab.jobs[JobId(f"job-{run.id[4:]}-{planned.serial:03d}")]
        if not job.ended_at:
            counts[job.state] = counts.get(job.state, 0) + 1
    return counts


def _note_move(lab: Lab, event: e.AnyEvent, moved: dict[RunId, dict[JobId, None]]) -> None:
    job: JobId | None = None
    match event:
        case e.JobAssigned() | e.JobMoved() | e.JobJudged():
            job = event.job
        case e.AttemptAccepted() | e.AttemptStarted() | e.AttemptLost():
            job = _job_of(lab, event.fence)
        case e.AttemptEnded():
            job = _job_of(lab, event.ended.fence)
        case e.RunMoved() | e.RunJudged() | e.RunAdmitted():
            moved.setdefault(event.run, {})
    if job is not None:
        moved.setdefault(run_of(job), {})[job] = None


def _job_of(lab: Lab, fence: Fence) -> JobId | None:
    attempt = lab.attempts.get(fence)
    return attempt.job if attempt else None


def _moved(lab: Lab, run: Run, name: JobId) -> Moved:
    job = lab.jobs[name]
    attempt = lab.attempts.get(job.fence)
    place = (attempt.dut or attempt.agent) if attempt else ""
    note = job.error.message if job.error else ""
    planned = run.plan.jobs[job.serial - 1]
    return Moved(job=name, name=planned.name, state=job.state, place=place, note=note)
