"""Begin the LOG anew where it is gone for good; what this controller knows becomes a checkpoint.

Runs that have ended stay as they are. What was alive cannot be gone on with, for nobody knows how
far it had come: it ends in error, as ``log_lost``, and so does every attempt. Fences of the new
LOG begin above all that were ever given, its epochs too, so agents and boards need no reset: what
still runs there ends by the first Sync, or by the next fence.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

import msgspec

from tshrag_common.bus.jetstream import JetStream, StreamInfo
from tshrag_common.clock import Clock
from tshrag_common.errors import Refused
from tshrag_common.ids import Epoch
from tshrag_common.streams import LOG, StreamConfig, all_streams
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.people import People
from tshrag_controller.core.revive import recorded, revive
from tshrag_controller.log.checkpoint import Checkpoint, Checkpoints, Copy
from tshrag_controller.recover import make_stream, restore_projection
from tshrag_controller.settings import ControllerSettings
from tshrag_controller.store.closing import close_all
from tshrag_controller.store.store import Store


class Reseeded(NamedTuple):
    """What came of it: where the LOG begins, how many runs are kept, which of them were alive."""

    first: int
    runs: int
    lost: tuple[str, ...]

    @property
    def line(self) -> str:
        """Return it as a person reads it."""
        lost = f"{len(self.lost)} that were alive ended in error" if self.lost else "none was alive"
        return f"the LOG begins anew at {self.first}; {self.runs} runs are kept, {lost}"


async def reseed(log: JetStream, settings: ControllerSettings, clock: Clock) -> Reseeded:
    """Store a checkpoint at the beginning of an empty LOG; the next start leads from it.

    Raises:
        Refused: the LOG is not lost (``log_in_use``), or there is nothing to begin it with
            (``nothing_known``).

    """
    streams = {each.name: each for each in all_streams(settings.sizes, settings.nats.replicas)}
    for stream in streams.values():
        await make_stream(log, stream, clock.now() // 1000 if stream.name == LOG else None)
    info = await log.stream_info(LOG)
    if info.messages:
        raise _in_use(f"it holds {info.messages} frames, and may be another lab's")
    folder, checkpoints = settings.state / "store", Checkpoints(log, settings.state)
    await restore_projection(log, checkpoints, folder)
    store = await Store.open(folder)
    try:
        if not store.applied:
            fix = "start it: a lab without a past makes its LOG by itself"
            raise Refused(str(folder), "it knows of no run", fix, code="nothing_known")
        newest = await checkpoints.newest()
        covered = newest.sequence if newest else 0
        known = max(store.applied, covered)
        if known <= info.last_seq and min(store.applied, covered) + 1 >= info.first_seq:
            raise _in_use("it is whole: nothing came after the newest checkpoint")
        sequence = await _begin(log, streams[LOG], info, known, clock)
        return await _from(store, checkpoints, newest, sequence, clock.now())
    finally:
        await store.close()


def _in_use(what: str) -> Refused:
    return Refused("lab.v1.log", what, "see docs/how-to/recover.md", code="log_in_use")


async def _from(
    store: Store, checkpoints: Checkpoints, newest: Checkpoint | None, sequence: int, now: int
) -> Reseeded:
    """Make what this store knows the checkpoint before the first frame."""
    runs, lost = await store.change(lambda db: close_all(db, sequence, now))
    lab = await _people_of(checkpoints, newest, now)
    # an epoch behind the first frame tells a LOG that follows a checkpoint from a whole one
    lab.sequence, lab.epoch, lab.admitted, lab.at = sequence, Epoch(sequence + 1), runs, now
    with tempfile.TemporaryDirectory(prefix="reseed-", dir=store.folder) as name:
        copy = Path(name, "projection.db")
        await store.backup(copy)
        await checkpoints.store(recorded(lab), sequence, 0, Copy(copy, sequence))
    return Reseeded(sequence + 1, runs, lost)


async def _begin(
    log: JetStream, config: StreamConfig, info: StreamInfo, known: int, clock: Clock
) -> int:
    """Return the sequence before the first of the LOG: above all that were ever given."""
    if info.first_seq > known:
        return info.first_seq - 1
    await log.delete_stream(LOG)
    first = max(known + 1, clock.now() // 1000)
    await log.ensure_stream(msgspec.structs.replace(config, first_seq=first))
    return first - 1


async def _people_of(checkpoints: Checkpoints, newest: Checkpoint | None, now: int) -> Lab:
    """Return a lab with what people want of hosts and DUTs, as far as that is known."""
    if newest is None:
        return Lab()
    before = revive(await checkpoints.lab(newest), now)
    return Lab(people=People(intents=before.people.intents), policy=before.policy)
