"""What people did over channels -> rows; one list of that and of what operators did."""

import sqlite3
from collections.abc import Callable
from typing import Any

from tshrag_common.audit_requests import AuditAnswer, AuditEntry, ListAudit
from tshrag_controller.core.channel_events import ChannelNoted
from tshrag_controller.store.lease_rows import Putting

TABLES = """
    CREATE TABLE channels (
        no INTEGER PRIMARY KEY, at INTEGER NOT NULL, by TEXT NOT NULL, what TEXT NOT NULL,
        kind TEXT NOT NULL, name TEXT NOT NULL, reason TEXT NOT NULL, agent TEXT NOT NULL,
        lease TEXT NOT NULL, session TEXT NOT NULL, phase TEXT NOT NULL,
        up_bytes INTEGER NOT NULL, down_bytes INTEGER NOT NULL
    );
    CREATE INDEX channels_at ON channels (at);
"""
KEPT = 200_000
_COLUMNS = "at, by, what, kind, name, reason, agent, lease, session, phase, up_bytes, down_bytes"
_PUT = f"INSERT INTO channels ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
_TRIM = f"DELETE FROM channels WHERE no <= (SELECT max(no) FROM channels) - {KEPT}"
_ALL = f"""
    SELECT {_COLUMNS}, 0 AS until, no FROM channels
    UNION ALL
    SELECT at, by, what, kind, name, reason, '', '', '', '', 0, 0, until, no FROM audit
"""


def _noted(rows: Putting, event: ChannelNoted) -> None:
    kind, name = ("dut", str(event.dut)) if event.dut else ("agent", str(event.agent))
    reason = f"{event.detail}; {event.end}" if event.end and event.detail else event.detail
    rows.put(
        _PUT, event.told_at or rows.at, f"{event.org}/{event.by}", event.what, kind, name,
        reason or event.end, event.agent, event.lease, event.session, event.phase,
        event.up_bytes, event.down_bytes,
    )  # fmt: skip
    rows.put(_TRIM)


WRITERS: dict[type, Callable[[Any, Any], None]] = {ChannelNoted: _noted}


def audit(db: sqlite3.Connection, asked: ListAudit, org: str = "") -> AuditAnswer:
    """Return what was done, newest first; with `org` only what that org did."""
    tests: list[tuple[str, tuple[object, ...]]] = [
        ("name=?", (asked.name,) if asked.name else ()),
        ("what=?", (asked.what,) if asked.what else ()),
        ("at>=?", (asked.since,) if asked.since else ()),
        ("(by=? OR substr(by, 1, ?)=?)", _by(asked.by)),
        ("(by=? OR substr(by, 1, ?)=?)", _by(org)),
    ]
    given = [(test, values) for test, values in tests if values]
    where = " AND ".join(test for test, _ in given) or "1"
    sql = f"SELECT * FROM ({_ALL}) WHERE {where} ORDER BY at DESC, no DESC LIMIT ? OFFSET ?"
    bound = [value for _, values in given for value in values]
    rows = db.execute(sql, (*bound, asked.limit + 1, asked.offset)).fetchall()
    entries = tuple(_entry(row) for row in rows[: asked.limit])
    return AuditAnswer(entries=entries, more=len(rows) > asked.limit)


def _by(who: str) -> tuple[object, ...]:
    return (who, len(who) + 1, f"{who}/") if who else ()


def _entry(row: tuple[Any, ...]) -> AuditEntry:
    names = (*_COLUMNS.split(", "), "until")
    return AuditEntry(**dict(zip(names, row[:-1], strict=True)))
