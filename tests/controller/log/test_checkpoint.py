"""A checkpoint that comes late must not stand before a newer one: the LOG is purged behind that."""

from pathlib import Path

import pytest

from tshrag_common.bus.connection import connect
from tshrag_common.bus.jetstream import JetStream, WrongSequence
from tshrag_common.streams import CHECKPOINT, all_streams
from tshrag_controller.log.checkpoint import Checkpoints


class Slow(JetStream):
    """Somebody else stores a checkpoint while this one is still at it."""

    other: Checkpoints

    async def publish_expect(
        self,
        subject: str,
        data: bytes,
        message_id: str,
        expected_last: int,
        timeout_s: float | None = None,
    ) -> int:
        await self.other.store(b"newer", 20, 7, None)
        return await super().publish_expect(subject, data, message_id, expected_last, timeout_s)


async def test_a_leader_that_was_frozen_does_not_bring_back_an_old_checkpoint(
    tmp_path: Path, nats_url: str
) -> None:
    bus = await connect(nats_url, name="tests", within_s=10)
    log = JetStream(bus)
    for stream in all_streams():
        await log.ensure_stream(stream)
    new = Checkpoints(log, tmp_path)
    await new.store(b"first", 5, 1, None)
    slow = Slow(bus)
    slow.other = new
    with pytest.raises(WrongSequence):
        await Checkpoints(slow, tmp_path).store(b"older", 10, 3, None)
    newest = await new.newest()
    assert newest is not None
    assert newest.sequence == 20
    assert await new.lab(newest) == b"newer"
    assert (await log.stream_info(CHECKPOINT)).messages == 1
    await bus.close()
