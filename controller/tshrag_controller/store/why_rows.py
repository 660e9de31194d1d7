"""What the projection tells to those who ask why: durations, and who held what at an instant."""

import sqlite3
from typing import NamedTuple

import msgspec

from tshrag_common import ids
from tshrag_common.errors import NotFound, Refused
from tshrag_common.ids import JobId, OrgId
from tshrag_common.jobs import JobSpec

RECENT = 5000
_SPEC = msgspec.json.Decoder(JobSpec)


class Then(NamedTuple):
    """An assignment, and the lab at that instant as far as it is recorded."""

    spec: JobSpec
    attempt: int
    at: int
    agent: str
    dut: str
    held: dict[str, str]  # dut/NAME -> who had it
    away: dict[str, str]  # dut/NAME, agent/NAME -> who had taken it out of service
    busy: dict[str, int]  # host -> attempts there that took slots
    wrong: frozenset[str]  # hosts and DUTs of its earlier attempts


def durations(db: sqlite3.Connection) -> list[tuple[str, int]]:
    """Return (what a job does, microseconds it took) of the newest that ended, oldest first."""
    rows = db.execute(
        "SELECT s.what, a.ended_at - a.started_at FROM attempts a "
        "JOIN jobs j ON j.run = a.run AND j.serial = a.serial AND j.fence = a.fence "
        "JOIN specs s ON s.run = j.run AND s.no = j.spec "
        "WHERE a.started_at > 0 AND a.ended_at > 0 AND j.state IN ('passed', 'failed') "
        "ORDER BY a.fence DESC LIMIT ?",
        (RECENT,),
    ).fetchall()
    return [(str(what), int(took)) for what, took in reversed(rows)]


def then(db: sqlite3.Connection, org: OrgId, job: JobId) -> Then:
    """Return the newest assignment of a job.

    Raises:
        NotFound: there is no such job in this org.
        Refused: it was never assigned.

    """
    run, serial = ids.run_of(job), ids.serial_of(job)
    row = db.execute(
        "SELECT r.no, r.org, s.spec FROM runs r JOIN jobs j ON j.run = r.no AND j.serial = ? "
        "JOIN specs s ON s.run = r.no AND s.no = j.spec WHERE r.id = ?",
        (serial, run),
    ).fetchone()
    if row is None or row[1] != org:
        raise NotFound("job", job)
    attempts = db.execute(
        "SELECT fence, number, agent, dut, assigned_at FROM attempts "
        "WHERE run = ? AND serial = ? ORDER BY fence DESC",
        (row[0], serial),
    ).fetchall()
    if not attempts:
        raise Refused(job, "it went nowhere yet", "see 'tshrag why'", code="unassigned")
    fence, number, agent, dut, at = attempts[0]
    held, busy = _holds(db, fence, at)
    return Then(
        spec=_SPEC.decode(row[2]),
        attempt=number,
        at=at,
        agent=agent,
        dut=dut,
        held=held,
        away=_away(db, at),
        busy=busy,
        wrong=frozenset(each[3] or each[2] for each in attempts[1:]),
    )


def _holds(db: sqlite3.Connection, fence: int, at: int) -> tuple[dict[str, str], dict[str, int]]:
    """Return who had which DUT, and how many attempts each host had, when `fence` was given."""
    held: dict[str, str] = {}
    busy: dict[str, int] = {}
    rows = db.execute(
        "SELECT a.agent, a.dut, r.id, a.serial, r.org FROM attempts a JOIN runs r ON r.no = a.run "
        "WHERE a.fence < ? AND (a.ended_at = 0 OR a.ended_at > ?)",
        (fence, at),
    )
    for agent, dut, run, serial, org in rows:
        if dut:
            held[f"dut/{dut}"] = f"{ids.job_of(ids.RunId(run), serial)} of {org} had it"
        else:
            busy[agent] = busy.get(agent, 0) + 1
    leases = db.execute(
        "SELECT dut, org, by FROM leases WHERE fence < ? AND (ended_at = 0 OR ended_at > ?)",
        (fence, at),
    )
    held.update((f"dut/{dut}", f"{org}/{by} had leased it") for dut, org, by in leases)
    return held, busy


def _away(db: sqlite3.Connection, at: int) -> dict[str, str]:
    """Return what was out of service at an instant, and who had said so."""
    found: dict[str, str] = {}
    rows = db.execute(
        "SELECT kind, name, what, by, reason FROM audit "
        "WHERE at <= ? AND what NOT IN ('reserved', 'unreserved') ORDER BY no",
        (at,),
    )
    for kind, name, what, by, reason in rows:
        found.pop(f"{kind}/{name}", None)
        if what != "in_service":
            found[f"{kind}/{name}"] = f"{what} by {by}" + (f": {reason}" if reason else "")
    return found
