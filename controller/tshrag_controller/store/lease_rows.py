"""Leases -> rows: who had which DUT, from when to when, and how it ended."""

import sqlite3
from collections.abc import Callable
from typing import Any, Protocol

from tshrag_common.lease_requests import EndedLease, LeasesAnswer, ListLeases
from tshrag_controller.core import lease_events as e

TABLES = """
    CREATE TABLE leases (
        fence INTEGER PRIMARY KEY, lease TEXT NOT NULL, dut TEXT NOT NULL,
        agent TEXT NOT NULL, org TEXT NOT NULL, by TEXT NOT NULL, since INTEGER NOT NULL,
        until INTEGER NOT NULL, reason TEXT NOT NULL DEFAULT '',
        ended_at INTEGER NOT NULL DEFAULT 0, cause TEXT NOT NULL DEFAULT '',
        ended_by TEXT NOT NULL DEFAULT '', why TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX leases_dut ON leases (dut, fence);
"""


class Putting(Protocol):
    """What takes the rows of one frame (see projection.py)."""

    @property
    def at(self) -> int: ...

    def put(self, sql: str, *row: object) -> None: ...

    def count(self, name: str, more: int = 1) -> None: ...


_GRANT = (
    "INSERT INTO leases (fence, lease, dut, agent, org, by, since, until, reason) "
    "VALUES (?,?,?,?,?,?,?,?,?)"
)
_RENEW = "UPDATE leases SET until=? WHERE fence=?"
_END = "UPDATE leases SET ended_at=?, cause=?, ended_by=?, why=? WHERE fence=?"
_HAND = (
    "INSERT INTO leases (fence, lease, dut, agent, org, by, since, until, reason) "
    "SELECT ?, lease, dut, agent, ?, ?, ?, until, ? FROM leases WHERE fence=?"
)
_AUDIT = "INSERT INTO audit (at, by, what, kind, name, reason, until) VALUES (?,?,?,?,?,?,?)"
_AUDIT_HAND = (
    "INSERT INTO audit (at, by, what, kind, name, reason, until) "
    "SELECT ?, ?, ?, 'dut', dut, ?, until FROM leases WHERE fence=?"
)
_COLUMNS = "lease, dut, agent, fence, org, by, since, ended_at, cause, reason, ended_by, why"


def _granted(rows: Putting, event: e.LeaseGranted) -> None:
    rows.put(
        _GRANT, event.fence, event.lease, event.dut, event.agent, event.org, event.by, rows.at,
        event.until, event.reason,
    )  # fmt: skip
    rows.count("leases")


def _renewed(rows: Putting, event: e.LeaseRenewed) -> None:
    rows.put(_RENEW, event.until, event.fence)


def _handed(rows: Putting, event: e.LeaseHanded) -> None:
    rows.put(_HAND, event.new, event.org, event.by, rows.at, event.reason, event.fence)
    rows.put(_END, rows.at, "handed", event.giver, event.reason, event.fence)
    taker = f"{event.org}/{event.by}"
    is_taken = event.giver == taker
    what = "taken_over" if is_taken else "handed_over"
    why = event.reason if is_taken else f"to {taker}" + f": {event.reason}" * bool(event.reason)
    rows.put(_AUDIT_HAND, rows.at, event.giver, what, why, event.fence)


def _ended(rows: Putting, event: e.LeaseEnded) -> None:
    rows.put(_END, rows.at, event.cause, event.by, event.reason, event.fence)


def _reserved(rows: Putting, event: e.DutReserved) -> None:
    by = f"{event.org}/{event.by}"
    rows.put(_AUDIT, rows.at, by, "reserved", "dut", event.dut, event.reason, event.end)


def _unreserved(rows: Putting, event: e.ReservationEnded) -> None:
    rows.put(_AUDIT, rows.at, event.by, "unreserved", "lease", event.reservation, event.why, 0)


def _nothing(rows: Putting, event: object) -> None:
    """Leave no row: the line is asked of the Lab."""


WRITERS: dict[type, Callable[[Any, Any], None]] = {
    e.LeaseAsked: _nothing,
    e.LeaseWithdrawn: _nothing,
    e.LeaseGranted: _granted,
    e.LeaseRenewed: _renewed,
    e.LeaseShared: _nothing,
    e.LeaseHanded: _handed,
    e.LeaseEnded: _ended,
    e.DutReserved: _reserved,
    e.ReservationEnded: _unreserved,
}


def ended(db: sqlite3.Connection, asked: ListLeases) -> LeasesAnswer:
    """Return a page of the leases that have ended, newest first."""
    where = "ended_at > 0" + (" AND dut=?" if asked.dut else "")
    arguments = (asked.dut,) if asked.dut else ()
    sql = f"SELECT {_COLUMNS} FROM leases WHERE {where} ORDER BY fence DESC LIMIT ? OFFSET ?"
    rows = db.execute(sql, (*arguments, asked.limit + 1, asked.offset)).fetchall()
    return LeasesAnswer(
        ended=tuple(_ended_lease(row) for row in rows[: asked.limit]), more=len(rows) > asked.limit
    )


def _ended_lease(row: tuple[Any, ...]) -> EndedLease:
    lease, dut, agent, fence, org, by, since, ended_at, cause, reason, ended_by, why = row
    return EndedLease(
        lease=lease,
        dut=dut,
        agent=agent,
        fence=fence,
        owner=f"{org}/{by}",
        since=since,
        ended_at=ended_at,
        cause=cause,
        reason=reason,
        ended_by=ended_by,
        why=why,
    )
