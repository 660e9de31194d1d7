"""From checkpoint and LOG to a Lab that can lead, and a projection that can answer."""

import asyncio
import logging
import time
from pathlib import Path

import msgspec

from tshrag_common.bus.jetstream import JetStream, StreamInfo
from tshrag_common.clock import Clock
from tshrag_common.errors import NotFound, Refused
from tshrag_common.streams import LOG, StreamConfig
from tshrag_controller import witness
from tshrag_controller.core.events import LeaderChosen
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.replay import apply_frame
from tshrag_controller.core.revive import recorded, revive
from tshrag_controller.log.checkpoint import Checkpoints
from tshrag_controller.log.follow import replay
from tshrag_controller.log.frames import decode
from tshrag_controller.store.schema import PROJECTION, discard_journals, set_aside, usable
from tshrag_controller.store.store import Store

logger = logging.getLogger(__name__)


class LogBehindProjection(Refused):
    """The LOG was lost or shortened: leading on would give fences twice."""

    code = "log_behind_projection"


async def make_stream(log: JetStream, config: StreamConfig, first_seq: int | None) -> None:
    """Make a stream where there is none; one that is there is left as its leader wants it.

    The sequences of the LOG begin at the milliseconds of now: fences come from them, and a board
    keeps the highest that it has seen, across labs: a lab that is made anew must not begin with
    fences that an earlier one has used.
    """
    try:
        await log.stream_info(config.name)
    except NotFound:
        await log.ensure_stream(msgspec.structs.replace(config, first_seq=first_seq))


async def is_whole(log: JetStream, first_seq: int) -> bool:
    """Tell whether the LOG still begins with the first frame that was ever written to it."""
    found = await log.get(LOG, first_seq)
    if found is None:
        return False
    events = decode(found.data).events
    if not events or not isinstance(events[0], LeaderChosen):
        return False
    return events[0].epoch in (1, first_seq)  # 1: of a lab before epochs began with the LOG


async def restore_projection(log: JetStream, checkpoints: Checkpoints, folder: Path) -> None:
    """Where the projection is gone, damaged or too old, take it from the checkpoint.

    The LOG brings the rest, or all of it where it is whole.
    """
    checkpoint = await checkpoints.newest()
    path = folder / PROJECTION
    applied = await asyncio.to_thread(_applied, path)
    info = await log.stream_info(LOG)
    if checkpoint is None or not checkpoint.projection or applied >= info.first_seq - 1:
        return
    if applied < checkpoint.projected and not await is_whole(log, info.first_seq):
        await asyncio.to_thread(_make_way, path)
        await checkpoints.projection(checkpoint, path)
        logger.warning("the projection was restored", extra={"sequence": checkpoint.projected})


def _make_way(path: Path) -> None:
    if path.exists():
        set_aside(path)


def _applied(path: Path) -> int:
    """Return how far the projection is; what cannot be read is moved out of the way."""
    if not path.exists():
        discard_journals(path)
    found = usable(path)
    if found is None:
        kept = set_aside(path)
        logger.error("the projection was damaged", extra={"kept": str(kept)})
    return found or 0


async def recover(
    log: JetStream,
    checkpoints: Checkpoints,
    store: Store,
    name: str,
    clock: Clock,
) -> Lab:
    """Return the Lab at the end of the LOG; the projection has followed as far.

    Raises:
        LogBehindProjection: the LOG ends before what was projected once.
        Refused: the LOG begins behind what the checkpoint covers.
        LogGap: it was purged while we read it; the next try finds a newer checkpoint.

    """
    began = time.monotonic()
    info = await log.stream_info(LOG)
    checkpoint = await checkpoints.newest()
    lab = revive(await checkpoints.lab(checkpoint), clock.now()) if checkpoint else Lab()
    known = max(store.applied, lab.sequence)
    begin = min(lab.sequence, store.applied) + 1
    if known > info.last_seq:
        raise _behind(f"the projection is at {known}, the LOG ends at {info.last_seq}")
    if begin < info.first_seq and begin <= info.last_seq:
        await _explain_gap(log, info, begin, known)
    frames = 0
    async for batch in replay(log, name, max(begin, info.first_seq), info.last_seq):
        await store.project([entry for entry in batch if entry[0] > store.applied])
        for sequence, frame in batch:
            if sequence > lab.sequence:
                apply_frame(lab, sequence, frame.at, frame.ev_hi, frame.events)
                frames += 1
                witness.note_frame(frame, sequence)
    lab.sequence = info.last_seq
    took = round(time.monotonic() - began, 3)
    logger.info("recovered", extra={"sequence": lab.sequence, "frames": frames, "seconds": took})
    # Indexes are made anew, without what was queued on the way; what became due is due now.
    return revive(recorded(lab), max(lab.at, clock.now()))


async def _explain_gap(log: JetStream, info: StreamInfo, begin: int, known: int) -> None:
    """Raise for frames that are missing; a LOG that still begins with its first frame has all."""
    if not known and not info.messages:
        return
    if await is_whole(log, info.first_seq):
        if known and known < info.first_seq:
            raise _behind(f"the LOG begins anew at {info.first_seq}, we were at {known}")
        return
    if not info.messages:
        raise _behind(f"the LOG is empty, we were at {known}")
    what = f"it begins at {info.first_seq}, frames from {begin} on are needed"
    raise Refused("lab.v1.log", what, "restore the store of the checkpoint", code="log_gap")


def _behind(what: str) -> LogBehindProjection:
    fix = "bring the LOG's store back, see docs/how-to/recover.md"
    return LogBehindProjection("lab.v1.log", what, fix)
