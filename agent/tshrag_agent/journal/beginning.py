"""A journal is opened, or begun anew beside a damaged one; what of its disk it may take."""

import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from tshrag_agent.journal.records import SpoolName
from tshrag_agent.journal.salvage import count_readable, saved_fences
from tshrag_agent.journal.store import SpoolCorrupt, Store

logger = logging.getLogger(__name__)

_LITTLE_BYTES = 16 << 20


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


def within_disk(path: Path, quota_bytes: Mapping[SpoolName, int]) -> Mapping[SpoolName, int]:
    """Return the quotas, each a quarter of what the disk has for us at most.

    A journal that has filled its disk is stuck: to take away what was confirmed needs room, too.
    A disk that others have filled will have room again: then a spool has a little all the same.
    """
    disk = shutil.disk_usage(path.parent)
    parts = [part for part in path.parent.glob(f"{path.name}*") if part.is_file()]
    ours = disk.free + sum(part.stat().st_size for part in parts)
    most = max(ours // 4, min(_LITTLE_BYTES, disk.total // 4))
    return {name: min(quota, most) for name, quota in quota_bytes.items()}
