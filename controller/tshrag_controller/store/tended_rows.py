"""What operators did to the stored samples -> rows of the audit, and back."""

import sqlite3
from collections.abc import Callable
from typing import Any

from tshrag_common.store_requests import StoreDeed
from tshrag_controller.core.store_events import StoreTended
from tshrag_controller.store.lease_rows import Putting

KIND = "store"
MOST = 10

_AUDIT = "INSERT INTO audit (at, by, what, kind, name, reason, until) VALUES (?,?,?,?,?,?,?)"
_DEEDS = "SELECT at, by, what, reason FROM audit WHERE kind=? ORDER BY no DESC LIMIT ?"


def _tended(rows: Putting, event: StoreTended) -> None:
    rows.put(_AUDIT, rows.at, event.by, event.what, KIND, "samples", event.told, 0)


def deeds(db: sqlite3.Connection) -> tuple[StoreDeed, ...]:
    """Return what was done last, newest first."""
    rows = db.execute(_DEEDS, (KIND, MOST))
    return tuple(StoreDeed(at=at, by=by, what=what, told=told) for at, by, what, told in rows)


WRITERS: dict[type, Callable[[Any, Any], None]] = {StoreTended: _tended}
