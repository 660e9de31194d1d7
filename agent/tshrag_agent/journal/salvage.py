"""What a damaged journal still gives: its fences, which must never fall back, and a count.

The file itself is kept aside for whoever wants to look; nothing of it is sent, since numbers of
one spool may have no gap.
"""

import logging
import sqlite3
from pathlib import Path

from tshrag_agent.journal.records import SPOOLS, Change, DutFence, Heard, checksum
from tshrag_common.ids import DutId, Fence

logger = logging.getLogger(__name__)


def count_readable(path: Path) -> int:
    """Return how many records a damaged file still gives."""
    count = 0
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error:
        return count
    for name in SPOOLS:
        try:
            for seq, body, crc in db.execute(f"SELECT seq, body, crc FROM {name} ORDER BY seq"):
                count += isinstance(body, bytes) and checksum(seq, body) == crc
        except sqlite3.Error:
            continue  # what is behind the damage is not reached
    db.close()
    return count


def saved_fences(path: Path) -> list[Change]:
    """Return what a damaged file still tells of fences: they must never fall back."""
    changes: list[Change] = []
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error:
        return changes
    try:
        meta = dict(db.execute("SELECT name, value FROM meta WHERE name IN ('epoch', 'n')"))
        changes.append(Heard(int(meta.get("epoch", 0)), int(meta.get("n", 0))))
        for dut, fence in db.execute("SELECT dut, fence FROM duts"):
            changes.append(DutFence(DutId(str(dut)), Fence(int(fence))))
    except (sqlite3.Error, ValueError):
        logger.warning("fences of the damaged journal are lost", extra={"path": str(path)})
    finally:
        db.close()
    return changes
