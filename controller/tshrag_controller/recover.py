"""From checkpoint and LOG to a Lab that can lead, and a projection that can answer."""

import logging
import time
from pathlib import Path

from tshrag_common.bus.jetstream import JetStream
from tshrag_common.errors import Refused
from tshrag_common.streams import LOG
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.replay import apply_frame
from tshrag_controller.core.revive import recorded, revive
from tshrag_controller.log.checkpoint import Checkpoint, Checkpoints
from tshrag_controller.log.follow import replay
from tshrag_controller.store.store import Store

logger = logging.getLogger(__name__)

PROJECTION = "projection.db"


class LogBehindProjection(Refused):
    """The LOG was lost or shortened: leading on would give fences twice."""

    code = "log_behind_projection"


async def restore_projection(log: JetStream, checkpoints: Checkpoints, folder: Path) -> None:
    """Where the projection is gone, take it from the checkpoint; the LOG brings the rest."""
    checkpoint = await checkpoints.newest()
    path = folder / PROJECTION
    if checkpoint is None or not checkpoint.projection or _exists(path):
        return
    info = await log.stream_info(LOG)
    if info.first_seq > 1:  # else the LOG is whole and makes it anew
        await checkpoints.projection(checkpoint, path)
        logger.warning("the projection was restored", extra={"sequence": checkpoint.projected})


def _exists(path: Path) -> bool:
    return path.exists()


async def recover(log: JetStream, checkpoints: Checkpoints, store: Store, name: str) -> Lab:
    """Return the Lab at the end of the LOG; the projection has followed as far.

    Raises:
        LogBehindProjection: the LOG ends before what was projected once.
        Refused: the LOG begins behind what the checkpoint covers.

    """
    began = time.monotonic()
    info = await log.stream_info(LOG)
    if store.applied > info.last_seq:
        what = f"the projection is at {store.applied}, the LOG ends at {info.last_seq}"
        fix = "bring the LOG's store back, or see 'reseed' in docs/how-to/recover.md"
        raise LogBehindProjection("lab.v1.log", what, fix)
    checkpoint = await checkpoints.newest()
    lab = revive(await checkpoints.lab(checkpoint), 0) if checkpoint else Lab()
    begin = min(lab.sequence, store.applied) + 1
    _check_whole(info.first_seq, info.last_seq, begin, checkpoint)
    frames = 0
    async for batch in replay(log, name, begin, info.last_seq):
        await store.project([entry for entry in batch if entry[0] > store.applied])
        for sequence, frame in batch:
            if sequence > lab.sequence:
                apply_frame(lab, sequence, frame.at, frame.ev_hi, frame.events)
                frames += 1
    lab.sequence = info.last_seq
    took = round(time.monotonic() - began, 3)
    logger.info("recovered", extra={"sequence": lab.sequence, "frames": frames, "seconds": took})
    return revive(recorded(lab), 0)  # indexes made anew, without what was queued on the way


def _check_whole(first: int, last: int, begin: int, checkpoint: Checkpoint | None) -> None:
    if begin <= last and first > begin:
        where = checkpoint.covers if checkpoint else 0
        what = f"it begins at {first}, the checkpoint covers up to {where}"
        raise Refused("lab.v1.log", what, "restore the checkpoint's store", code="log_gap")
