"""The work that a lab has had, as the projection has it: jobs with their times and their needs."""

import sqlite3
from typing import Any

import msgspec

from tshrag_common.ids import OrgId
from tshrag_common.jobs import JobSpec
from tshrag_common.reports import Ended
from tshrag_common.work import YEAR_S, WorkLine
from tshrag_common.work_requests import AskWork, WorkRow

_SPEC = msgspec.json.Decoder(JobSpec)
_ENDED = msgspec.json.Decoder(Ended)
_COLUMNS = (
    "r.id, r.org, r.priority, r.created_at, j.serial, j.name, j.after, j.gang, j.state, "
    "j.started_at, j.ended_at, s.spec, a.started_at, a.ended_at, a.ended"
)


def rows(
    db: sqlite3.Connection, org: OrgId | None, asked: AskWork, until: int
) -> tuple[list[WorkRow], bool]:
    """Return a page, and whether there is more; of all orgs where `org` is None."""
    where = "r.created_at >= ? AND r.created_at < ?"
    arguments: list[object] = [asked.since, until]
    if org is not None:
        where, arguments = f"{where} AND r.org = ?", [*arguments, org]
    if asked.after_run:
        where += " AND (r.no, j.serial) > ((SELECT no FROM runs WHERE id = ?), ?)"
        arguments += [asked.after_run, asked.after_serial]
    found = db.execute(
        f"SELECT {_COLUMNS} FROM runs r JOIN jobs j ON j.run = r.no "
        "JOIN specs s ON s.run = r.no AND s.no = j.spec "
        "LEFT JOIN attempts a ON a.fence = j.fence AND j.fence > 0 "
        f"WHERE {where} AND r.ended_at > 0 ORDER BY r.no, j.serial LIMIT ?",
        (*arguments, asked.limit + 1),
    ).fetchall()
    return [_row(each, asked.since) for each in found[: asked.limit]], len(found) > asked.limit


def _row(row: tuple[Any, ...], since: int) -> WorkRow:
    run, org, priority, created_at, serial, name, after, gang, state, *rest = row
    job_began, job_ended, spec_json, began, until, ended_json = rest
    spec = _SPEC.decode(spec_json)
    ended = _ENDED.decode(ended_json) if ended_json else None
    ran_us = until - began if began and until else 0
    if not spec.is_placed and job_began and job_ended:
        ran_us = job_ended - job_began
    group = spec.need.group
    setup_us = ended.setup_us if ended is not None and group is not None else 0
    if ended is not None and ended.setup == "made":
        ran_us = max(0, ran_us - setup_us)
    line = WorkLine(
        at=min(YEAR_S, max(0, created_at - since) / 1e6),
        seconds=min(YEAR_S, max(0, ran_us) / 1e6),
        setup_s=setup_us / 1e6,
        name=name,
        org=org,
        priority=priority,
        run=run,
        serial=serial,
        after=tuple(map(int, after.split(","))) if after else (),
        gang=gang,
        what="job" if spec.is_placed else "sleep",
        outcome="passed" if state == "passed" else "failed",
        need=spec.need if spec.is_placed else WorkLine(at=0, seconds=0).need,
        preemptible=spec.preemptible,
    )
    return WorkRow(line=line, ran=bool(ran_us) or not spec.is_placed)
