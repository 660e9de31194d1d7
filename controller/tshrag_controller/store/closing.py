"""All that is alive in a projection whose LOG is gone ends, in error: nobody can say more of it."""

import sqlite3
from collections.abc import Iterable

import msgspec

from tshrag_common.errors import ErrorReport
from tshrag_common.states import JOB, RUN, JobState, RunState

CODE = "log_lost"
WHY = "the LOG was lost; nobody knows how far it had come"


def _listed(states: Iterable[str]) -> str:
    return ", ".join(f"'{state}'" for state in states)


_OPEN_RUNS = _listed(state for state in RunState if not RUN.is_final(state))
_OPEN_JOBS = _listed(state for state in JobState if not JOB.is_final(state))
_END_ATTEMPTS = (
    "UPDATE attempts SET state='lost', ended_at=?, reason=? WHERE state NOT IN ('ended', 'lost')"
)
_END_JOBS = f"UPDATE jobs SET state='error', ended_at=?, error=? WHERE state IN ({_OPEN_JOBS})"
_END_RUN = (
    "UPDATE runs SET state='error', ended_at=?, reason=?, evidence=coalesce(evidence, '[]') "
    "WHERE no=?"
)


def close_all(db: sqlite3.Connection, sequence: int, now: int) -> tuple[int, tuple[str, ...]]:
    """Bring the projection to `sequence`, nothing alive; return the number of runs, who ended."""
    error = msgspec.json.encode(ErrorReport(code=CODE, message=WHY))
    alive = db.execute(f"SELECT no, id FROM runs WHERE state IN ({_OPEN_RUNS})").fetchall()
    db.execute(_END_ATTEMPTS, (now, WHY))
    db.execute(_END_JOBS, (now, error))
    for number, (no, _) in enumerate(alive):
        db.execute(_END_RUN, (now, f"{CODE}: {WHY}", no))
        row = (no, sequence, number, now, RunState.ERROR, f"{CODE}: {WHY}")
        db.execute("INSERT INTO timeline VALUES (?,?,?,?,?,?)", row)
    db.execute("UPDATE leases SET ended_at=?, cause='lost', why=? WHERE ended_at=0", (now, WHY))
    db.execute("INSERT OR REPLACE INTO meta VALUES ('applied_seq', ?)", (sequence,))
    count = db.execute("SELECT coalesce(max(no), 0) FROM runs").fetchone()
    return int(count[0]), tuple(str(run) for _, run in alive)
