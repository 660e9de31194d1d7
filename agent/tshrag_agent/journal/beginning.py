"""A journal is opened, or begun anew beside one that is damaged."""

import logging
import time
from pathlib import Path

from tshrag_agent.journal.salvage import count_readable, saved_fences
from tshrag_agent.journal.store import SpoolCorrupt, Store

logger = logging.getLogger(__name__)


def open_or_begin(path: Path) -> Store:
    """Open the file; set a damaged one aside and begin anew, with the fences that it still tells.

    A new file has new spool ids, so that the controller does not take its numbers for old ones.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return Store(path)
    except SpoolCorrupt as error:
        aside = path.with_name(f"{path.name}.corrupt-{time.time_ns() // 1_000_000}")
        for ending in ("", "-wal", "-shm"):
            part = Path(f"{path}{ending}")
            if part.exists():
                part.rename(f"{aside}{ending}")
        store = Store(path)
        saved = saved_fences(aside)
        store.commit(saved)
        kept = f"{count_readable(aside)} records kept aside in {aside.name}"
        store.damage = f"{error.line}; {kept}"
        logger.error(store.damage, extra={"code": error.code, "set_aside": str(aside)})
        return store
