"""Reads the LOG of a simulated lab as it grows, and keeps its own count of what may be in it.

Nothing here knows the product's Lab: states, holds and numbers are followed by simpler means.
"""

from dataclasses import dataclass, field

from tests.simulation.history import History
from tests.simulation.jetstream import Row
from tshrag_common import ids
from tshrag_common.jobs import JobSpec
from tshrag_common.states import JobCause, JobState, RunCause
from tshrag_common.streams import LOG
from tshrag_controller.core import events as e
from tshrag_controller.log.frames import decode

_FINAL: dict[JobCause, JobState] = {
    JobCause.PASS: JobState.PASSED,
    JobCause.FAIL: JobState.FAILED,
    JobCause.BREAK: JobState.ERROR,
    JobCause.TIME_OUT: JobState.TIMEOUT,
    JobCause.CANCEL: JobState.CANCELLED,
    JobCause.EXPIRE: JobState.EXPIRED,
    JobCause.SKIP: JobState.SKIPPED,
}


@dataclass
class JobSeen:
    """A job as the LOG tells of it."""

    spec: JobSpec
    final: JobState | None = None
    attempts: int = 0
    faults: int = 0
    fences: list[int] = field(default_factory=list)


@dataclass
class AttemptSeen:
    job: str
    agent: str
    dut: str
    number: int
    began: float
    took_s: float = 0.0
    end: str = ""


@dataclass
class RunSeen:
    key: str
    jobs: list[str]
    judged: RunCause | None = None


class LogWatch:
    """Follows every frame that the stream LOG takes."""

    def __init__(self, history: History) -> None:
        self._history = history
        self.runs: dict[str, RunSeen] = {}
        self.jobs: dict[str, JobSeen] = {}
        self.attempts: dict[int, AttemptSeen] = {}
        self.spools: dict[tuple[str, str], int] = {}
        self.refused: dict[str, int] = {}
        self.epoch = 0
        self.frames = 0
        self.open_jobs = 0
        self._held: dict[str, int] = {}
        self._newest = 0
        self._at = 0.0

    def on_append(self, stream: str, row: Row) -> None:
        if stream != LOG:
            return
        self.frames += 1
        self._at = row.at
        frame = decode(row.data)
        self._history.note(row.at, "frame", row.seq - row.seq // 10**6 * 10**6, len(frame.events))
        if frame.epoch < self.epoch:
            self._violate("I15", f"a frame of epoch {frame.epoch} behind {self.epoch}")
        for event in frame.events:
            self._take(event)

    @property
    def is_final(self) -> bool:
        """Tell whether every run that was admitted has ended."""
        return all(run.judged is not None for run in self.runs.values())

    def _violate(self, rule: str, what: str) -> None:
        self._history.violate(self._at, rule, what)

    def _take(self, event: e.AnyEvent) -> None:
        match event:
            case e.LeaderChosen():
                if event.epoch <= self.epoch:
                    self._violate("I15", f"epoch {event.epoch} after {self.epoch}")
                self.epoch = event.epoch
            case e.RunAdmitted():
                self._admitted(event)
            case e.RunJudged():
                self._judged(event)
            case e.SpoolApplied():
                self._applied(event)
            case e.ReportRefused():
                self.refused[event.code] = self.refused.get(event.code, 0) + 1
            case _:
                self._take_of_job(event)

    def _take_of_job(self, event: e.AnyEvent) -> None:
        match event:
            case e.JobAssigned():
                self._assigned(event)
            case e.JobMoved() if event.cause is JobCause.REQUEUE:
                self._live(event.job)
            case e.JobMoved() | e.JobJudged() if event.cause in _FINAL:
                self._final(event.job, _FINAL[event.cause])
            case e.AttemptEnded():
                self._ended(event.ended.fence, event.ended.outcome)
            case e.AttemptLost():
                self._ended(event.fence, "lost")
            case _:
                return

    def _admitted(self, event: e.RunAdmitted) -> None:
        if event.run in self.runs:
            self._violate("I16", f"{event.run} was admitted twice")
        for run in self.runs.values():
            if event.key and run.key == event.key:
                self._violate("I16", f"key {event.key} was admitted twice")
        jobs = [ids.job_of(event.run, planned.serial) for planned in event.plan.jobs]
        self.runs[event.run] = RunSeen(event.key, list(jobs))
        for name, planned in zip(jobs, event.plan.jobs, strict=True):
            self.jobs[name] = JobSeen(event.plan.specs[planned.spec])
        self.open_jobs += len(jobs)

    def _assigned(self, event: e.JobAssigned) -> None:
        job = self._live(event.job)
        if event.fence <= self._newest:
            self._violate("I4", f"fence {event.fence} after {self._newest}")
        self._newest = event.fence
        if job.fences and not self.attempts[job.fences[-1]].end:
            self._violate("I14", f"{event.job} has two attempts at once")
        job.attempts += 1
        if event.attempt != job.attempts:
            self._violate("I14", f"{event.job}: attempt {event.attempt} is number {job.attempts}")
        job.fences.append(event.fence)
        if event.dut:
            holder = self._held.get(event.dut)
            if holder is not None:
                self._violate("I3", f"{event.dut} is given while {holder} holds it")
            self._held[event.dut] = event.fence
        dut, number = event.dut or "", event.attempt
        self.attempts[event.fence] = AttemptSeen(event.job, event.agent, dut, number, self._at)

    def _ended(self, fence: int, how: str) -> None:
        attempt = self.attempts.get(fence)
        if attempt is None or attempt.end:
            self._violate("I11", f"attempt {fence} ends twice, or was never given")
            return
        attempt.end, attempt.took_s = how, self._at - attempt.began
        if attempt.dut and self._held.get(attempt.dut) == fence:
            del self._held[attempt.dut]
        job = self.jobs[attempt.job]
        if how in ("error", "lost"):
            job.faults += 1
        if job.faults > job.spec.attempts:
            self._violate("I18", f"{attempt.job} has {job.faults} of {job.spec.attempts} faults")

    def _live(self, name: str) -> JobSeen:
        job = self.jobs[name]
        if job.final is not None:
            self._violate("I2", f"{name} moves though it is {job.final}")
        return job

    def _final(self, name: str, state: JobState) -> None:
        self._live(name).final = state
        self.open_jobs -= 1

    def _judged(self, event: e.RunJudged) -> None:
        run = self.runs[event.run]
        if run.judged is not None:
            self._violate("I1", f"{event.run} is judged twice")
        run.judged = event.cause
        open_jobs = [name for name in run.jobs if self.jobs[name].final is None]
        if open_jobs:
            self._violate("I1", f"{event.run} is judged, {open_jobs[0]} has not ended")
        if event.reason.startswith("all: ") and event.cause is not RunCause.PASS:
            self._violate("I13", f"{event.run}: a verdict on other data: {event.reason}")

    def _applied(self, event: e.SpoolApplied) -> None:
        key = (event.agent, event.spool)
        if event.upto <= self.spools.get(key, 0):
            self._violate("I11", f"reports of {event.agent} up to {event.upto} are applied twice")
        self.spools[key] = event.upto
