"""Signs of consoles -> rows, the newest of them: boots, prompts and crashes of every DUT."""

import sqlite3
from collections.abc import Callable
from typing import Any

from tshrag_common.console_requests import ListSigns, SignsAnswer, SignView
from tshrag_controller.core import console_events as e
from tshrag_controller.store.lease_rows import Putting

TABLES = """
    CREATE TABLE signs (
        no INTEGER PRIMARY KEY, at INTEGER NOT NULL, seen_at INTEGER NOT NULL,
        agent TEXT NOT NULL, dut TEXT NOT NULL, sign TEXT NOT NULL, text TEXT NOT NULL,
        boot INTEGER NOT NULL, job TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX signs_dut ON signs (dut, no);
"""
KEPT = 20_000
_SIGN = (
    "INSERT INTO signs (at, seen_at, agent, dut, sign, text, boot, job) VALUES (?,?,?,?,?,?,?,?)"
)
_TRIM = f"DELETE FROM signs WHERE no <= (SELECT max(no) FROM signs) - {KEPT}"
_COLUMNS = "at, seen_at, agent, dut, sign, text, boot, job"


def _signed(rows: Putting, event: e.DutSigned) -> None:
    rows.put(
        _SIGN, rows.at, event.seen_at, event.agent, event.dut, event.sign, event.text, event.boot,
        event.job or "",
    )  # fmt: skip
    rows.put(_TRIM)


WRITERS: dict[type, Callable[[Any, Any], None]] = {e.DutSigned: _signed}


def signs(db: sqlite3.Connection, asked: ListSigns) -> SignsAnswer:
    """Return the newest signs, newest first."""
    tests = [("dut=?", asked.dut), ("sign=?", asked.sign), ("seen_at>=?", asked.since)]
    given = [(test, value) for test, value in tests if value]
    where = " AND ".join(test for test, _ in given) or "1"
    sql = f"SELECT {_COLUMNS} FROM signs WHERE {where} ORDER BY no DESC LIMIT ?"
    rows = db.execute(sql, (*(value for _, value in given), asked.limit)).fetchall()
    return SignsAnswer(signs=tuple(_view(row) for row in rows))


def held_by(db: sqlite3.Connection, org: str) -> list[tuple[str, int, int]]:
    """Return (dut, since, until) of all attempts and leases of `org`; until 0: it still has it."""
    sql = (
        "SELECT dut, assigned_at, ended_at FROM attempts JOIN runs ON runs.no=attempts.run "
        "WHERE dut<>'' AND org=? "
        "UNION ALL SELECT dut, since, ended_at FROM leases WHERE org=?"
    )
    return db.execute(sql, (org, org)).fetchall()


def _view(row: tuple[Any, ...]) -> SignView:
    at, seen_at, agent, dut, sign, text, boot, job = row
    return SignView(
        at=at, seen_at=seen_at, agent=agent, dut=dut, sign=sign, text=text, boot=boot, job=job
    )
