"""Frames -> rows. The sequence of a frame stands in the same transaction as its rows.

So the projection is at every instant the image of a prefix of the LOG, and applying a frame
twice is impossible: frames at or below ``applied_seq`` are skipped.
"""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from tshrag_common import ids
from tshrag_common.states import JOB, RUN, JobCause, JobState, RunState
from tshrag_controller.core import events as e
from tshrag_controller.core.freeze_events import BoardKept, BoardLetGo
from tshrag_controller.core.sched_events import PolicySet, RoleReleased
from tshrag_controller.core.specs import what_it_does
from tshrag_controller.log.frames import Frame
from tshrag_controller.store import (
    channel_rows,
    intent_rows,
    lease_rows,
    live_rows,
    preempt_rows,
    setup_rows,
    sign_rows,
    suspend_rows,
    tended_rows,
)
from tshrag_controller.store.own_counters import own_counter

_JSON = msgspec.json.Encoder()

JOB_AFTER: dict[JobCause, JobState] = {
    JobCause.ASSIGN: JobState.ASSIGNED,
    JobCause.PREPARE: JobState.PREPARING,
    JobCause.START: JobState.RUNNING,
    JobCause.COLLECT: JobState.COLLECTING,
    JobCause.REQUEUE: JobState.WAITING,
    JobCause.PASS: JobState.PASSED,
    JobCause.FAIL: JobState.FAILED,
    JobCause.BREAK: JobState.ERROR,
    JobCause.TIME_OUT: JobState.TIMEOUT,
    JobCause.CANCEL: JobState.CANCELLED,
    JobCause.EXPIRE: JobState.EXPIRED,
    JobCause.SKIP: JobState.SKIPPED,
}
"""Every cause leads to one state, wherever it starts: tests compare this with the table."""

Rows = dict[str, list[tuple[Any, ...]]]


class Projection:
    """Writes frames; lives in the writer's thread. ``applied`` is the newest sequence in it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        row = connection.execute("SELECT value FROM meta WHERE key='applied_seq'").fetchone()
        self.applied = int(row[0]) if row else 0
        last = connection.execute("SELECT coalesce(max(no), 0) FROM runs").fetchone()
        self._last_no = int(last[0])
        self._numbers: dict[str, int] = {}  # of runs that were written to lately
        self._orgs: dict[int, str] = {}  # of the same
        self.places: dict[int, tuple[int, int]] = {}  # fence -> (run, serial), of live attempts
        self._connection = connection

    def apply(self, connection: sqlite3.Connection, frames: Iterable[tuple[int, Frame]]) -> int:
        """Write frames in their order; return the newest sequence that is in now."""
        for sequence, frame in frames:
            if sequence > self.applied:
                _Writing(self, connection, sequence, frame).write()
                self.applied = sequence
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('applied_seq', ?)", (self.applied,))
        return self.applied

    def undo(self, connection: sqlite3.Connection) -> None:
        """Forget what a transaction that was taken back had written."""
        self.__init__(connection)  # type: ignore[misc]  # it is the same reading of the same file

    def number(self, run: str) -> int:
        """Return the short number of a run."""
        known = self._numbers.get(run)
        if known is None:
            row = self._connection.execute("SELECT no FROM runs WHERE id=?", (run,)).fetchone()
            if len(self._numbers) > 100_000:
                self._numbers.clear()
            known = self._numbers[run] = int(row[0])
        return known

    def org(self, number: int) -> str:
        """Return whose run has this number."""
        known = self._orgs.get(number)
        if known is None:
            sql = "SELECT org FROM runs WHERE no=?"
            if len(self._orgs) > 100_000:
                self._orgs.clear()
            known = self._orgs[number] = str(self._connection.execute(sql, (number,)).fetchone()[0])
        return known

    def place(self, fence: int) -> tuple[int, int]:
        """Return run and serial of an attempt."""
        known = self.places.get(fence)
        if known is None:
            row = self._connection.execute(_PLACE, (fence,)).fetchone()
            known = self.places[fence] = (int(row[0]), int(row[1]))
        return known

    def new_number(self, run: str, org: str) -> int:
        self._last_no += 1
        self._numbers[run], self._orgs[self._last_no] = self._last_no, org
        return self._last_no


class _Writing:
    """One frame: rows of one kind are gathered while the kind does not change its table."""

    def __init__(
        self, projection: Projection, connection: sqlite3.Connection, sequence: int, frame: Frame
    ) -> None:
        self._projection, self._connection = projection, connection
        self._sequence, self._at, self._frame = sequence, frame.at, frame
        self.at = frame.at
        self._sql = ""
        self._rows: list[tuple[Any, ...]] = []
        self._line = 0
        self._counts: dict[str, int] = {}

    def write(self) -> None:
        for event in self._frame.events:
            _WRITERS[type(event)](self, event)
        self._flush()
        counts = list(self._counts.items())
        self._connection.executemany(
            "INSERT INTO counters VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            counts,
        )

    def put(self, sql: str, *row: object) -> None:
        """Queue a row; equal statements in a row go as one, the order is kept."""
        if sql is not self._sql:
            self._flush()
            self._sql = sql
        self._rows.append(row)

    def _flush(self) -> None:
        if self._rows:
            self._connection.executemany(self._sql, self._rows)
            self._rows = []

    def count(self, name: str, more: int = 1) -> None:
        self._counts[name] = self._counts.get(name, 0) + more

    def count_of(self, run: int, name: str, more: int = 1) -> None:
        """Count something for the lab, and for the org whose run has this number."""
        self.count(name, more)
        self.count(own_counter(self._projection.org(run), name), more)

    def note(self, run: int, what: str, text: str) -> None:
        self._line += 1
        self.put(_NOTE, run, self._sequence, self._line, self._at, what, text)

    def note_run(self, run: str, what: str, text: str) -> None:
        self.note(self.number(run), what, text)

    def number(self, run: str) -> int:
        return self._projection.number(run)

    def key(self, job: str) -> tuple[int, int]:
        name = ids.JobId(job)
        return self.number(ids.run_of(name)), ids.serial_of(name)

    def run_admitted(self, event: e.RunAdmitted) -> None:
        number = self._projection.new_number(event.run, event.org)
        self.put(
            _RUN, number, event.run, event.org, event.by, event.key, event.name,
            RunState.WAITING, event.priority, self._at, len(event.plan.jobs),
            _JSON.encode(event.loads), _JSON.encode(event.criteria), event.profile,
            event.retry_of, event.seed,
        )  # fmt: skip
        for index, spec in enumerate(event.plan.specs):
            role = spec.need.role or (spec.need.target.runtime if spec.is_placed else "")
            self.put(_SPEC, number, index, spec.kind, what_it_does(spec), role, _JSON.encode(spec))
        for job in event.plan.jobs:
            after = ",".join(map(str, job.after))
            self.put(
                _JOB, number, job.serial, job.name, job.spec, JobState.WAITING, after, job.gang
            )
        self.count_of(number, "runs")
        self.count_of(number, "jobs", len(event.plan.jobs))
        self.note(number, "admitted", f"by {event.by}, {len(event.plan.jobs)} jobs")

    def roles_bound(self, event: e.RolesBound) -> None:
        duts = ", ".join(f"{role} = {dut} on {agent}" for role, agent, dut in event.duts)
        self.note(self.number(event.run), "bound", duts)

    def job_assigned(self, event: e.JobAssigned) -> None:
        run, serial = self.key(event.job)
        self.put(
            _ATTEMPT, event.fence, run, serial, event.attempt, event.agent, event.dut or "",
            "assigned", self._at,
        )  # fmt: skip
        self.put(_JOB_ASSIGN, event.fence, run, serial)
        self._projection.places[event.fence] = (run, serial)
        self.count_of(run, "attempts")

    def job_moved(self, event: e.JobMoved) -> None:
        run, serial = self.key(event.job)
        state = JOB_AFTER[event.cause]
        error = _JSON.encode(event.error) if event.error else None
        if JOB.is_final(state):
            self.put(_JOB_END, state, self._at, error, run, serial)
            self.count_of(run, f"jobs.{state}")
        elif event.cause is JobCause.START:
            self.put(_JOB_START, state, self._at, run, serial)
        else:
            self.put(_JOB_STATE, state, run, serial)
            self.note(
                run, "requeued", f"job {serial}: {event.error.message if event.error else ''}"
            )

    def attempt_accepted(self, event: e.AttemptAccepted) -> None:
        self.put(_ATTEMPT_STATE, "preparing", event.fence)
        self.put(_JOB_PREPARE, *self._projection.place(event.fence), event.fence)

    def attempt_started(self, event: e.AttemptStarted) -> None:
        self.put(_ATTEMPT_START, event.at, event.fence)
        self.put(_JOB_RUN, event.at, *self._projection.place(event.fence), event.fence)

    def attempt_ended(self, event: e.AttemptEnded) -> None:
        ended = event.ended
        blob = _JSON.encode(ended)
        self.put(_ATTEMPT_END, ended.started_at, ended.at, blob, ended.fence)
        place = self._projection.place(ended.fence)
        self.put(_JOB_COLLECT, ended.started_at, *place, ended.fence)
        self._projection.places.pop(ended.fence, None)
        setup_rows.note_setup(self, place[0], ended)

    def attempt_lost(self, event: e.AttemptLost) -> None:
        self.put(_ATTEMPT_LOST, self._at, event.reason, event.fence)
        self._projection.places.pop(event.fence, None)
        self.count("attempts.lost")

    def attempt_resolved(self, event: e.AttemptResolved) -> None:
        run, serial = self._projection.place(event.fence)
        self.note(run, "resolved", f"job {serial}: by {event.by}: {event.reason}")

    def job_judged(self, event: e.JobJudged) -> None:
        run, serial = self.key(event.job)
        state = JOB_AFTER[event.cause]
        error = _JSON.encode(event.error) if event.error else None
        self.put(_JOB_END, state, self._at, error, run, serial)
        self.count_of(run, f"jobs.{state}")

    def run_moved(self, event: e.RunMoved) -> None:
        number = self.number(event.run)
        state = RUN.next(RunState.WAITING, event.cause)
        self.put(_RUN_STATE, state, self._at, number)
        self.note(number, state, "")

    def run_judged(self, event: e.RunJudged) -> None:
        number = self.number(event.run)
        state = RUN.next(RunState.EVALUATING, event.cause)
        evidence = _JSON.encode(event.evidence)
        self.put(_RUN_END, state, self._at, event.reason, evidence, number)
        self.count_of(number, f"runs.{state}")
        self.note(number, state, event.reason)

    def spool_applied(self, event: e.SpoolApplied) -> None:
        self.put(_SPOOL, event.agent, "reports", event.spool, event.upto)

    def nothing(self, event: e.AnyEvent) -> None:
        """Leave no row: agents and DUTs are asked of the Lab."""


_RUN = (
    "INSERT INTO runs (no, id, org, by, key, name, state, priority, created_at, total, loads, "
    "criteria, profile, retry_of, seed) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_SPEC = "INSERT INTO specs VALUES (?,?,?,?,?,?)"
_PLACE = "SELECT run, serial FROM attempts WHERE fence=?"
_JOB = "INSERT INTO jobs (run, serial, name, spec, state, after, gang) VALUES (?,?,?,?,?,?,?)"
_ATTEMPT = (
    "INSERT INTO attempts (fence, run, serial, number, agent, dut, state, assigned_at) "
    "VALUES (?,?,?,?,?,?,?,?)"
)
_JOB_ASSIGN = "UPDATE jobs SET state='assigned', fence=? WHERE run=? AND serial=?"
_JOB_STATE = "UPDATE jobs SET state=? WHERE run=? AND serial=?"
_JOB_START = "UPDATE jobs SET state=?, started_at=? WHERE run=? AND serial=?"
_JOB_END = "UPDATE jobs SET state=?, ended_at=?, error=coalesce(?, error) WHERE run=? AND serial=?"
_OF_FENCE = (
    "WHERE run=? AND serial=? AND fence=? "
    "AND state IN ('assigned','preparing','running','collecting')"
)
_JOB_PREPARE = f"UPDATE jobs SET state='preparing' {_OF_FENCE}"
_JOB_RUN = (
    "UPDATE jobs SET state='running', started_at=CASE WHEN started_at THEN started_at ELSE ? END "
    + _OF_FENCE
)
_JOB_COLLECT = (
    "UPDATE jobs SET state='collecting', "
    "started_at=CASE WHEN started_at THEN started_at ELSE ? END " + _OF_FENCE
)
_ATTEMPT_STATE = "UPDATE attempts SET state=? WHERE fence=?"
_ATTEMPT_START = "UPDATE attempts SET state='running', started_at=? WHERE fence=?"
_ATTEMPT_END = (
    "UPDATE attempts SET state='ended', started_at=max(started_at, ?), ended_at=?, ended=? "
    "WHERE fence=?"
)
_ATTEMPT_LOST = "UPDATE attempts SET state='lost', ended_at=?, reason=? WHERE fence=?"
_RUN_STATE = (
    "UPDATE runs SET state=?, started_at=CASE WHEN started_at THEN started_at ELSE ? END WHERE no=?"
)
_RUN_END = "UPDATE runs SET state=?, ended_at=?, reason=?, evidence=? WHERE no=?"
_NOTE = "INSERT INTO timeline VALUES (?,?,?,?,?,?)"
_SPOOL = "INSERT OR REPLACE INTO spools VALUES (?,?,?,?)"

_WRITERS: dict[type, Callable[[_Writing, Any], None]] = {
    e.LeaderChosen: _Writing.nothing,
    e.RunAdmitted: _Writing.run_admitted,
    e.RolesBound: _Writing.roles_bound,
    e.JobAssigned: _Writing.job_assigned,
    e.JobMoved: _Writing.job_moved,
    e.AttemptAccepted: _Writing.attempt_accepted,
    e.AttemptStarted: _Writing.attempt_started,
    e.AttemptEnded: _Writing.attempt_ended,
    e.AttemptLost: _Writing.attempt_lost,
    e.JobJudged: _Writing.job_judged,
    e.RunMoved: _Writing.run_moved,
    e.RunJudged: _Writing.run_judged,
    e.AgentSeen: _Writing.nothing,
    e.AgentMoved: _Writing.nothing,
    e.DutMarked: _Writing.nothing,
    e.SpoolApplied: _Writing.spool_applied,
    e.ReportRefused: _Writing.nothing,
    PolicySet: _Writing.nothing,
    RoleReleased: _Writing.nothing,
    BoardKept: _Writing.nothing,
    BoardLetGo: _Writing.nothing,
    **lease_rows.WRITERS,
    e.AttemptResolved: _Writing.attempt_resolved,
    **intent_rows.WRITERS,
    **setup_rows.WRITERS,
    **preempt_rows.WRITERS,
    **suspend_rows.WRITERS,
    **sign_rows.WRITERS,
    **channel_rows.WRITERS,
    **live_rows.WRITERS,
    **tended_rows.WRITERS,
}
