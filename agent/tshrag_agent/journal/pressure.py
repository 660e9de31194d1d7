"""How far the samples of this host are ahead of the store: who floods waits, others do not notice.

Samples of all attempts go through one spool in order, so that a flood would hold up what others
say behind it. While more than `HIGH_BYTES` wait and the lab takes them, whoever has sent much
already is not listened to: a load then waits in its own ``send``. Without the lab nobody waits: the
spool is there for that.
"""

import asyncio
import contextlib
from collections.abc import Callable

HIGH_BYTES = 4 << 20
MUCH_BYTES = 256 << 10
"""An attempt that has sent less never waits."""

STUCK_S = 10.0
"""Nothing was stored for so long: waiting does not help, the spool takes what comes."""

LOOK_S = 0.05
_ASK_S = 0.25


class Pressure:
    """Of one journal; belongs to one event loop."""

    def __init__(self, waiting_bytes: Callable[[], int]) -> None:
        self._waiting_bytes = waiting_bytes
        self._flows: Callable[[], bool] = lambda: False
        self._ask: Callable[[], None] = lambda: None
        self._asked_at = self._moved_at = 0.0
        self._least = 0  # bytes that waited when it moved last
        self.held = 0
        """How often somebody was held."""

    def serve(self, flows: Callable[[], bool], ask: Callable[[], None]) -> None:
        """Learn whether the lab takes samples, and how to ask what it has stored."""
        self._flows, self._ask = flows, ask

    def holds(self, sent_bytes: int) -> bool:
        """Tell whether one who has sent so much has to wait now."""
        if sent_bytes < MUCH_BYTES:
            return False
        now, waiting = asyncio.get_running_loop().time(), self._waiting_bytes()
        if waiting < HIGH_BYTES or waiting < self._least:
            self._moved_at = now
        self._least = waiting
        if waiting < HIGH_BYTES or now - self._moved_at > STUCK_S or not self._flows():
            return False
        if now - self._asked_at >= _ASK_S:
            self._asked_at = now
            self._ask()
        self.held += 1
        return True

    async def eased(self, sent_bytes: int, over: asyncio.Event | None = None) -> None:
        """Return when one who has sent so much may go on, or is over."""
        over = over or asyncio.Event()
        while not over.is_set() and self.holds(sent_bytes):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await over.wait()
