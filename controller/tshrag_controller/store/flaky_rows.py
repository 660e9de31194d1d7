"""Results of jobs on boards, as the projection has them: what `core/flaky.py` judges."""

import sqlite3
from typing import Any

import msgspec

from tshrag_common.ids import OrgId
from tshrag_common.jobs import LoadRef
from tshrag_controller.core.flaky import Result

MOST = 20_000
_LOADS = msgspec.json.Decoder(tuple[LoadRef, ...])
_BUILD_LABELS = ("build", "app_version_id")


class _Profile(msgspec.Struct):
    labels: dict[str, Any] = {}


_PROFILE = msgspec.json.Decoder(_Profile)


def results(db: sqlite3.Connection, org: OrgId | None, since: int) -> list[Result]:
    """Return how jobs on boards have ended since then, the newest first; None: of every org."""
    where, arguments = "a.dut != '' AND a.assigned_at >= ?", [since]
    if org is not None:
        where += " AND r.org = ?"
    rows = db.execute(
        "SELECT a.dut, r.name, j.name, j.state, a.assigned_at, r.id, r.no FROM attempts a "
        "JOIN jobs j ON j.run = a.run AND j.serial = a.serial AND j.fence = a.fence "
        "JOIN runs r ON r.no = a.run "
        f"WHERE {where} AND j.state IN ('passed', 'failed', 'error', 'timeout') "
        "ORDER BY a.fence DESC LIMIT ?",
        (*arguments, *([org] if org is not None else []), MOST),
    ).fetchall()
    builds: dict[int, str] = {}
    found: list[Result] = []
    for dut, run_name, job_name, state, at, run, number in rows:
        if number not in builds:
            builds[number] = _build(db, number)
        found.append(
            Result(
                dut=dut,
                test=f"{run_name}: {job_name}",
                build=builds[number],
                passed=state == "passed",
                at=at,
                run=run,
                error=state == "error",
            )
        )
    return found


def _build(db: sqlite3.Connection, number: int) -> str:
    """Return what a run says it tests; else the bytes of its loads."""
    row = db.execute("SELECT loads, profile FROM runs WHERE no = ?", (number,)).fetchone()
    try:
        labels = _PROFILE.decode(row[1] or b"{}").labels
    except msgspec.MsgspecError:
        labels = {}
    for name in _BUILD_LABELS:
        if labels.get(name):
            return str(labels[name])
    digests = [load.digest[:8] for load in _LOADS.decode(row[0] or b"[]") if load.digest]
    return "+".join(digests) or "no load"
