"""Ends attempts whose lease is over: who is not answered may not go on with what is shared.

A lease counts from the moment at which the last answered heartbeat was *sent*, by our monotonic
clock: the controller, which counts from when it was processed, gives nothing away before. The
shepherd holds the same instants for host processes, so that they end when this agent is frozen.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from tshrag_agent.attempts.roster import Living
from tshrag_common import contact
from tshrag_common.clock import Clock
from tshrag_common.errors import ErrorReport, LabError
from tshrag_common.ids import Fence

logger = logging.getLogger(__name__)

CODE = "lease_over"
_SHEPHERD_S = 3.0
_AGAIN_S = 1.0
_LEAST_S = 0.001


class Renewing(Protocol):
    """The part of the shepherd that is needed here."""

    async def renew(self, leases: Mapping[str, float], *, timeout_s: float) -> set[str]: ...


class Contact:
    """The leases of one agent. `renew` is told of answered heartbeats, `run` ends what is over."""

    def __init__(self, live: Mapping[Fence, Living], shepherd: Renewing, clock: Clock) -> None:
        self._live, self._shepherd, self._clock = live, shepherd, clock
        self._renewed_at = clock.monotonic()  # who sends us commands is there now
        self._keys: dict[str, float] = {}  # of the shepherd -> lease in seconds
        self._changed = asyncio.Event()
        self._to_tell = asyncio.Event()

    def renew(self, sent_at: float) -> None:
        """Count from `sent_at` on: a heartbeat that was sent then has been answered."""
        self._renewed_at = max(self._renewed_at, sent_at)
        self._changed.set()
        self._to_tell.set()

    def entered(self) -> None:
        """Look again: an attempt has begun."""
        self._changed.set()

    def left_s(self, lease_s: float) -> float | None:
        """Return what is left of a lease, for the shepherd; None where there is none."""
        if not lease_s:
            return None
        ends_at = contact.ends_at(lease_s, self._renewed_at)
        return max(_LEAST_S, ends_at - self._clock.monotonic())

    def hold(self, key: str, lease_s: float) -> None:
        """Keep the shepherd's lease of `key` in step from now on."""
        if lease_s:
            self._keys[key] = lease_s

    def drop(self, key: str) -> None:
        self._keys.pop(key, None)

    async def run(self) -> None:
        """End what is over and tell the shepherd of renewals, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._end_over(), name="leases that are over")
            group.create_task(self._tell_shepherd(), name="leases of the shepherd")

    async def _end_over(self) -> None:
        while True:
            self._changed.clear()
            due_s = self._end_due()
            try:
                async with asyncio.timeout(due_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _end_due(self) -> float | None:
        """End what is due; return in how many seconds the next one is."""
        now = self._clock.monotonic()
        nearest: float | None = None
        for attempt in list(self._live.values()):
            lease_s = attempt.start.lease_s
            if not lease_s:
                continue
            left_s = contact.ends_at(lease_s, self._renewed_at) - now
            if left_s > 0:
                nearest = left_s if nearest is None else min(nearest, left_s)
            else:
                attempt.interrupt(_over(lease_s, now - self._renewed_at))
        return nearest

    async def _tell_shepherd(self) -> None:
        while True:
            await self._to_tell.wait()
            self._to_tell.clear()
            asked = {key: self.left_s(lease_s) or 0.0 for key, lease_s in self._keys.items()}
            try:
                if asked:
                    await self._shepherd.renew(asked, timeout_s=_SHEPHERD_S)
            except LabError as error:
                logger.warning("leases were not renewed", extra={"why": error.line})
                await asyncio.sleep(_AGAIN_S)
                self._to_tell.set()


def _over(lease_s: float, silent_s: float) -> ErrorReport:
    message = (
        f"no heartbeat was answered for {silent_s:.0f} s; the lease of {lease_s:g} s is over, "
        "what it held may be given to another"
    )
    return ErrorReport(code=CODE, message=message, retryable=True)
