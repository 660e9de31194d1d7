"""The LOG from a sequence on: for whoever starts, and for whoever follows."""

from collections.abc import AsyncIterator

from tshrag_common.bus.jetstream import JetStream
from tshrag_common.bus.puller import Puller
from tshrag_common.errors import Unavailable
from tshrag_common.streams import LOG, passing
from tshrag_controller.log.frames import Frame, decode


class LogGap(Unavailable):
    """The LOG was purged before this controller had read it: it begins anew, by the checkpoint."""

    code = "log_gap"


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
    """Yield what `follow` does, without a hole, and end behind sequence `upto`.

    Raises:
        LogGap: the leader has purged frames of these meanwhile.

    """
    if from_seq > upto:
        return
    wanted = from_seq
    async for batch in follow(log, name, from_seq):
        for sequence, _ in batch:
            if sequence > wanted and wanted <= upto:
                raise LogGap("lab.v1.log", f"frames {wanted}..{min(sequence - 1, upto)} are gone")
            wanted = sequence + 1
        yield [(sequence, frame) for sequence, frame in batch if sequence <= upto]
        if batch[-1][0] >= upto:
            return
