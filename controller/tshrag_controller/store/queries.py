"""What API and CLI ask of the projection: runs, jobs, attempts, counters. Reads only.

Every question carries the org: nobody sees another's runs.
"""

import sqlite3
from collections.abc import Iterable
from typing import Any

import msgspec

from tshrag_common import ids
from tshrag_common.criteria import Evidence
from tshrag_common.errors import ErrorReport, NotFound, Refused, nearest, shown
from tshrag_common.ids import THE_LAB, OrgId, RunId
from tshrag_common.jobs import JobSpec, LoadRef
from tshrag_common.reports import Ended
from tshrag_common.requests import JobsAnswer, ListJobs, ListRuns, RunsAnswer
from tshrag_common.states import JobState, RunState
from tshrag_common.views import AttemptView, JobView, RunView
from tshrag_controller.store.own_counters import own_counter

_EVIDENCE = msgspec.json.Decoder(tuple[Evidence, ...])
_LOADS = msgspec.json.Decoder(tuple[LoadRef, ...])
_ERROR = msgspec.json.Decoder(ErrorReport)
_LABELS_DECODER = msgspec.json.Decoder(dict[str, str])
_ENDED = msgspec.json.Decoder(Ended)
_SPEC = msgspec.json.Decoder(JobSpec)


def list_runs(db: sqlite3.Connection, org: OrgId, asked: ListRuns) -> RunsAnswer:
    """Return a page of runs, newest first."""
    where, arguments = "org=?", [str(org)]
    if asked.state:
        _check_state(asked.state, RunState)
        where += " AND state=?"
        arguments.append(asked.state)
    if asked.states:
        for state in asked.states:
            _check_state(state, RunState)
        where += f" AND state IN ({','.join('?' * len(asked.states))})"
        arguments += asked.states
    for name, value in asked.labels.items():
        where += f" AND json_extract({_LABELS}, ?) = ?"
        arguments += [_path(name), value]
    if asked.people:
        where += " AND by <> ?"
        arguments.append(THE_LAB)
    if asked.name:
        where += " AND instr(lower(name), ?) > 0"
        arguments.append(asked.name.lower())
    sql = f"SELECT {_RUN_COLUMNS} FROM runs WHERE {where} ORDER BY no DESC LIMIT ? OFFSET ?"
    rows = db.execute(sql, (*arguments, asked.limit + 1, asked.offset)).fetchall()
    runs = tuple(_run(db, row) for row in rows[: asked.limit])
    return RunsAnswer(runs=runs, more=len(rows) > asked.limit)


def _path(label: str) -> str:
    """Return the path of JSON that leads to a label; it has no words for a quote in a name."""
    if '"' in label or "\\" in label:
        raise Refused("labels", f"{shown(label)} is no name of a label", code="filter")
    return f'$."{label}"'


def _check_state(text: str, states: Iterable[str]) -> None:
    known = [str(state) for state in states]
    if text not in known:
        near = nearest(text, known)
        fix = f"nearest: {', '.join(near)}" if near else f"one of {', '.join(known)}"
        raise Refused("state", f"{shown(text)} is no state", fix, code="filter")


def get_run(db: sqlite3.Connection, org: OrgId, name: str) -> RunView:
    """Return one run; raise NotFound with the nearest ids where there is none."""
    row = db.execute(f"SELECT {_RUN_COLUMNS} FROM runs WHERE id=?", (name,)).fetchone()
    if row is None or row[2] != org:
        known = db.execute("SELECT id FROM runs WHERE org=? ORDER BY no DESC LIMIT 200", (org,))
        raise NotFound("run", name, [str(found[0]) for found in known])
    return _run(db, row)


def owner_of(db: sqlite3.Connection, run: str) -> str | None:
    """Return the org of a run, whoever asks; None where there is none."""
    row = db.execute("SELECT org FROM runs WHERE id=?", (run,)).fetchone()
    return str(row[0]) if row else None


def run_by_key(db: sqlite3.Connection, org: OrgId, key: str) -> str | None:
    """Return the newest run that was submitted under `key`."""
    sql = "SELECT id FROM runs WHERE org=? AND key=? ORDER BY no DESC LIMIT 1"
    row = db.execute(sql, (org, key)).fetchone()
    return str(row[0]) if row else None


def profile_of(db: sqlite3.Connection, run: str) -> bytes:
    return bytes(db.execute("SELECT profile FROM runs WHERE id=?", (run,)).fetchone()[0])


def number_of(db: sqlite3.Connection, org: OrgId, run: str) -> int:
    """Return the short number of a run of `org`; raise NotFound."""
    get_run(db, org, run)
    return int(db.execute("SELECT no FROM runs WHERE id=?", (run,)).fetchone()[0])


def last_passed(db: sqlite3.Connection, org: OrgId, name: str) -> str | None:
    """Return the newest run of that name that passed."""
    sql = "SELECT id FROM runs WHERE org=? AND name=? AND state='passed' ORDER BY no DESC LIMIT 1"
    found = db.execute(sql, (org, name)).fetchone()
    return str(found[0]) if found else None


def list_jobs(db: sqlite3.Connection, org: OrgId, asked: ListJobs) -> JobsAnswer:
    """Return a page of the jobs of a run, or the one job that is named."""
    is_job = asked.id.startswith("job-")
    run = str(ids.run_of(ids.job_id(asked.id))) if is_job else asked.id
    try:
        number = number_of(db, org, run)
    except NotFound:
        if is_job:
            raise NotFound("job", asked.id) from None
        raise
    where, arguments = "j.run=?", [number]
    if asked.id.startswith("job-"):
        where += " AND j.serial=?"
        arguments.append(ids.serial_of(ids.job_id(asked.id)))
    filters: list[Any] = list(arguments)
    if asked.state:
        _check_state(asked.state, JobState)
        where += " AND j.state=?"
        filters.append(asked.state)
    sql = f"SELECT {_JOB_COLUMNS} WHERE {where} ORDER BY j.serial LIMIT ? OFFSET ?"
    rows = db.execute(sql, (*filters, asked.limit + 1, asked.offset)).fetchall()
    if not rows and asked.id.startswith("job-"):
        serials = db.execute("SELECT serial FROM jobs WHERE run=? LIMIT 1000", (number,))
        raise NotFound("job", asked.id, (ids.job_of(RunId(run), one) for (one,) in serials))
    page = rows[: asked.limit]
    attempts = _attempts(db, number, [int(row[0]) for row in page])
    jobs = tuple(_job(RunId(run), row, attempts.get(int(row[0]), ())) for row in page)
    return JobsAnswer(jobs=jobs, more=len(rows) > asked.limit)


def counters(db: sqlite3.Connection) -> dict[str, int]:
    """Return the maintained counters of the lab; those of single orgs are not among them."""
    rows = db.execute(
        "SELECT * FROM counters WHERE name NOT GLOB '@*' UNION ALL SELECT * FROM hot.totals"
    )
    return {str(name): int(value) for name, value in rows}


def counters_of(db: sqlite3.Connection, org: OrgId) -> dict[str, int]:
    """Return the maintained counters of what is of one org: nobody is told of another's work."""
    begins = own_counter(org, "")
    rows = db.execute(
        "SELECT substr(name, ?), value FROM counters WHERE name >= ? AND name < ?",
        (len(begins) + 1, begins, f"{begins[:-1]}0"),  # what follows a slash
    )
    return {str(name): int(count) for name, count in rows}


def spec_of(db: sqlite3.Connection, number: int, serial: int) -> JobSpec:
    row = db.execute(
        "SELECT s.spec FROM jobs j JOIN specs s ON s.run=j.run AND s.no=j.spec "
        "WHERE j.run=? AND j.serial=?",
        (number, serial),
    ).fetchone()
    return _SPEC.decode(row[0])


def newest_attempt(db: sqlite3.Connection, number: int, serial: int) -> tuple[int, str]:
    """Return number and state of a job's newest attempt; (0, "") before the first."""
    sql = "SELECT number, state FROM attempts WHERE run=? AND serial=? ORDER BY number DESC LIMIT 1"
    row = db.execute(sql, (number, serial)).fetchone()
    return (int(row[0]), str(row[1])) if row else (0, "")


def _run(db: sqlite3.Connection, row: tuple[Any, ...]) -> RunView:
    counts = db.execute("SELECT state, count(*) FROM jobs WHERE run=? GROUP BY state", (row[0],))
    return RunView(
        id=row[1],
        org=row[2],
        by=row[3],
        key=row[4],
        name=row[5],
        state=row[6],
        priority=row[7],
        created_at=row[8],
        started_at=row[9],
        ended_at=row[10],
        total=row[11],
        reason=row[12],
        evidence=_EVIDENCE.decode(row[13]) if row[13] else (),
        loads=_LOADS.decode(row[14]) if row[14] else (),
        retry_of=row[15],
        seed=row[16],
        counts={str(state): int(count) for state, count in counts},
        labels=_LABELS_DECODER.decode(row[17]) if row[17] else {},
    )


def _job(run: RunId, row: tuple[Any, ...], attempts: tuple[AttemptView, ...]) -> JobView:
    return JobView(
        id=ids.job_of(run, row[0]),
        run=run,
        serial=row[0],
        name=row[1],
        state=row[2],
        after=tuple(int(serial) for serial in row[3].split(",") if serial),
        started_at=row[4],
        ended_at=row[5],
        error=_ERROR.decode(row[6]) if row[6] else None,
        kind=row[7],
        what=row[8],
        target=row[9],
        attempts=attempts,
    )


def _attempts(
    db: sqlite3.Connection, number: int, serials: list[int]
) -> dict[int, tuple[AttemptView, ...]]:
    if not serials:
        return {}
    sql = f"SELECT {_ATTEMPT_COLUMNS} FROM attempts WHERE run=? AND serial BETWEEN ? AND ?"
    rows = db.execute(sql + " ORDER BY fence", (number, min(serials), max(serials)))
    found: dict[int, tuple[AttemptView, ...]] = {}
    for row in rows:
        found[int(row[0])] = (*found.get(int(row[0]), ()), _attempt(row))
    for serial, views in _with_refused(db, number, found).items():
        found[serial] = views
    return found


def _with_refused(
    db: sqlite3.Connection, number: int, found: dict[int, tuple[AttemptView, ...]]
) -> dict[int, tuple[AttemptView, ...]]:
    """Return the attempts of jobs of whose samples some were not stored, with why not."""
    notes: dict[tuple[int, int], tuple[str, ...]] = {}
    sql = (
        "SELECT serial, attempt, key, count, reason FROM hot.refused WHERE run=? "
        "AND serial BETWEEN ? AND ? ORDER BY serial, attempt, key LIMIT 1000"
    )
    bounds = (number, min(found, default=0), max(found, default=0))
    for serial, attempt, key, count, reason in db.execute(sql, bounds):
        place = (int(serial), int(attempt))
        notes[place] = (*notes.get(place, ()), f"{key}: {count} not stored: {reason}")
    return {
        serial: tuple(
            msgspec.structs.replace(
                view, notices=view.notices + notes.get((serial, view.number), ())
            )
            for view in found[serial]
        )
        for serial in {serial for serial, _ in notes}
        if serial in found
    }


def _attempt(row: tuple[Any, ...]) -> AttemptView:
    _, fence, number, agent, dut, state, assigned, started, ended_at, blob, reason = row
    ended = _ENDED.decode(blob) if blob else None
    view = AttemptView(
        number=number,
        fence=fence,
        agent=agent,
        dut=dut,
        state=state,
        assigned_at=assigned,
        started_at=started,
        ended_at=ended_at,
        error=ErrorReport(code="lost", message=reason) if reason else None,
    )
    return _with_end(view, ended) if ended else view


def _with_end(view: AttemptView, ended: Ended) -> AttemptView:
    return msgspec.structs.replace(
        view,
        outcome=ended.outcome,
        exit_code=ended.exit_code,
        signal=ended.signal,
        error=ended.error,
        stopped=ended.stopped,
        cpu_us=ended.usage.cpu_us,
        max_rss_bytes=ended.usage.max_rss_bytes,
        stdout_bytes=ended.stdout.length_bytes,
        stderr_bytes=ended.stderr.length_bytes,
        cut_bytes=ended.stdout.cut_bytes + ended.stderr.cut_bytes,
        setup=ended.setup,
        setup_us=ended.setup_us,
        clock=ended.clock,
        notices=tuple(f"{note.key}: {note.count} x {note.reason}" for note in ended.notices)
        + ended.dut_notes,
    )


_LABELS = "json_extract(CAST(profile AS TEXT), '$.labels')"
_RUN_COLUMNS = (
    "no, id, org, by, key, name, state, priority, created_at, started_at, ended_at, total, "
    f"reason, evidence, loads, retry_of, seed, {_LABELS}"
)
_JOB_COLUMNS = (
    "j.serial, j.name, j.state, j.after, j.started_at, j.ended_at, j.error, s.kind, s.what, "
    "s.target FROM jobs j JOIN specs s ON s.run=j.run AND s.no=j.spec"
)
_ATTEMPT_COLUMNS = (
    "serial, fence, number, agent, dut, state, assigned_at, started_at, ended_at, ended, reason"
)
