"""Publishing into streams: each message is sent again until its ack has come."""

import asyncio
import logging
from collections.abc import Callable

from tshrag_common.bus.jetstream import JetStream
from tshrag_common.errors import StorageFull, Unavailable

logger = logging.getLogger(__name__)

MESSAGE_ID = "Nats-Msg-Id"

_ASK_AGAIN_S = 2.0  # an ack takes milliseconds; a lost connection is known without waiting
_PAUSE_S = 0.2


class Publisher:
    """At most `window` messages in flight; whoever wants more waits for its turn.

    With a window of 1 the stream has them in the order of the calls. The message id makes a
    second copy harmless for two minutes (the server's window); readers that must never see one
    twice go by a key of their own.
    """

    def __init__(
        self, jetstream: JetStream, *, window: int = 1, on_full: Callable[[str], None] | None = None
    ) -> None:
        self._jetstream = jetstream
        self._turn = asyncio.Semaphore(window)
        self._on_full = on_full or (lambda line: None)

    async def publish(self, subject: str, data: bytes, message_id: str) -> int:
        """Return the sequence once the message is stored; waits for the bus as long as it takes.

        While the stream is full it goes on trying and says so to `on_full`. Cancelling leaves
        open whether the message was stored.

        Raises:
            Refused: it can never be stored, such as ``payload_too_large``.

        """
        async with self._turn:
            while True:
                try:
                    return await self._jetstream.publish(
                        subject, data, {MESSAGE_ID: message_id}, timeout_s=_ASK_AGAIN_S
                    )
                except StorageFull as full:
                    self._on_full(full.line)
                    await asyncio.sleep(_PAUSE_S * 5)
                except Unavailable as error:
                    logger.debug("not stored yet", extra={"error": str(error)})
                    await asyncio.sleep(_PAUSE_S)
