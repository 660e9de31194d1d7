"""The LOG from a sequence on: for whoever starts, and for whoever follows."""

from collections.abc import AsyncIterator

from tshrag_common.bus.jetstream import JetStream
from tshrag_common.bus.puller import Puller
from tshrag_common.streams import LOG, passing
from tshrag_controller.log.frames import Frame, decode


async def follow(
    log: JetStream, name: str, from_seq: int
) -> AsyncIterator[list[tuple[int, Frame]]]:
    """Yield batches of (sequence, frame) from `from_seq` on, for ever.

    Raises:
        BadFrame: the LOG holds what this build cannot read.

    """
    puller = Puller(log, LOG, passing(name, from_seq))
    async for batch in puller.batches():
        yield [(message.sequence, decode(message.data)) for message in batch]


async def replay(
    log: JetStream, name: str, from_seq: int, upto: int
) -> AsyncIterator[list[tuple[int, Frame]]]:
    """Yield what `follow` does, and end behind sequence `upto`."""
    if from_seq > upto:
        return
    async for batch in follow(log, name, from_seq):
        yield [(sequence, frame) for sequence, frame in batch if sequence <= upto]
        if batch[-1][0] >= upto:
            return
