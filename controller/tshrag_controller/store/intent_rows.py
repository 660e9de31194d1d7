"""What operators did -> rows: an audit that stays."""

from collections.abc import Callable
from typing import Any

from tshrag_controller.core import intent_events as e
from tshrag_controller.store.lease_rows import Putting

TABLES = """
    CREATE TABLE audit (
        no INTEGER PRIMARY KEY, at INTEGER NOT NULL, by TEXT NOT NULL, what TEXT NOT NULL,
        kind TEXT NOT NULL, name TEXT NOT NULL, reason TEXT NOT NULL, until INTEGER NOT NULL
    );
    CREATE INDEX audit_name ON audit (kind, name, no);
"""
_AUDIT = "INSERT INTO audit (at, by, what, kind, name, reason, until) VALUES (?,?,?,?,?,?,?)"


def _set(rows: Putting, event: e.IntentSet) -> None:
    rows.put(
        _AUDIT, rows.at, event.by, event.what, event.kind, event.name, event.reason, event.until
    )


def _cleared(rows: Putting, event: e.IntentCleared) -> None:
    rows.put(_AUDIT, rows.at, event.by, "in_service", event.kind, event.name, event.reason, 0)


WRITERS: dict[type, Callable[[Any, Any], None]] = {e.IntentSet: _set, e.IntentCleared: _cleared}
