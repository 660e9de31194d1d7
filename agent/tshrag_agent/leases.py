"""Which person holds which DUT here, as the controller has said; it ends by our own clock too.

A lease is a fence on a DUT like that of an attempt: a higher one ends it. Who opens a console or
a tunnel asks `check`, tells of its use by `use`, and hears by `on_end` when it must be closed.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator

import msgspec

from tshrag_common.clock import Clock
from tshrag_common.commands import HoldDut
from tshrag_common.digest import lease_mark
from tshrag_common.errors import Refused
from tshrag_common.ids import DutId, Fence

logger = logging.getLogger(__name__)

OnEnd = Callable[[DutId, Fence, str], None]
"""A lease is over: what was opened under this fence is closed; with the reason."""
USED_S = 3600.0
"""A use longer ago than this is not told of any more."""


class NotHeld(Refused):
    """Nobody, or somebody else, holds the DUT."""

    code = "not_held"


class Held(msgspec.Struct):
    """A lease as this agent has it; mutable, and belongs to `Leases`."""

    hold: HoldDut
    ends_at: float  # monotonic
    used_at: float = 0.0  # monotonic; 0: never
    over: bool = False  # by our clock; the controller has not said so yet


class Leases:
    """The leases on the DUTs of this agent."""

    def __init__(self, clock: Clock, kept: Iterable[HoldDut] = ()) -> None:
        """Begin with what the journal has `kept`; that runs by the wall clock, until a Sync."""
        self._clock = clock
        self._held: dict[DutId, Held] = {}
        self._changed = asyncio.Event()
        self._listeners: list[OnEnd] = []
        self._takers: list[Callable[[DutId], None]] = []
        for hold in kept:
            left_s = min(hold.left_us, hold.until - clock.now()) / 1e6
            self._held[hold.dut] = Held(hold, clock.monotonic() + max(0.0, left_s))

    def on_take(self, listener: Callable[[DutId], None]) -> None:
        """Let `listener` hear of every DUT that a person takes; it must not block or raise."""
        self._takers.append(listener)

    def on_end(self, listener: OnEnd) -> None:
        """Let `listener` hear of every lease that ends; it must not block or raise."""
        self._listeners.append(listener)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held.values())

    def of(self, dut: DutId) -> HoldDut | None:
        """Return who holds the DUT now; None: no person does."""
        held = self._held.get(dut)
        return None if held is None or self._is_over(held) else held.hold

    def check(self, dut: DutId, fence: Fence) -> HoldDut:
        """Return the lease with this fence; raise NotHeld where it is not the one in force."""
        hold = self.of(dut)
        if hold is None or hold.fence != fence:
            what = f"it is leased by {hold.owner}" if hold else "no lease of it is in force"
            raise NotHeld(dut, what, "take it with 'tshrag lease take'")
        return hold

    def use(self, dut: DutId) -> None:
        """Note that the holder does something with the DUT: its lease is not idle."""
        held = self._held.get(dut)
        if held is not None:
            held.used_at = self._clock.monotonic()

    def used(self) -> dict[str, float]:
        """Return fence -> seconds since the DUT was last used, for the heartbeat."""
        now = self._clock.monotonic()
        ago = {
            str(held.hold.fence): round(now - held.used_at, 1)
            for held in self._held.values()
            if held.used_at
        }
        return {fence: seconds for fence, seconds in ago.items() if seconds < USED_S}

    @property
    def digest(self) -> int:
        value = 0
        for held in self._held.values():
            value ^= lease_mark(held.hold.fence, held.hold.rev)
        return value

    def take(self, hold: HoldDut) -> bool:
        """Take note of a lease, or of a change of it; false: we know as much, or better."""
        known = self._held.get(hold.dut)
        if known is not None and (hold.fence, hold.rev) < (known.hold.fence, known.hold.rev):
            return False
        is_same = known is not None and known.hold.fence == hold.fence
        if known is not None and not is_same:
            self._end(known, "another one has it now")
        used_at = known.used_at if known is not None and is_same else 0.0
        ends_at = self._clock.monotonic() + hold.left_us / 1e6
        self._held[hold.dut] = Held(hold, ends_at, used_at)
        self._changed.set()
        for listener in self._takers if not is_same else ():
            listener(hold.dut)
        return known is None or known.hold != hold

    def free(self, fence: Fence, why: str = "it was given back") -> DutId | None:
        """Forget a lease; return the DUT that is free now."""
        for dut, held in list(self._held.items()):
            if held.hold.fence == fence:
                del self._held[dut]
                self._end(held, why)
                return dut
        return None

    def supersede(self, dut: DutId, fence: Fence) -> Fence | None:
        """End the lease of a DUT that a newer fence has taken; return the fence of the lease."""
        held = self._held.get(dut)
        if held is None or held.hold.fence >= fence:
            return None
        return held.hold.fence if self.free(held.hold.fence, "a newer holder has it") else None

    async def watch(self) -> None:
        """End what runs out, at its time, for ever."""
        while True:
            self._changed.clear()
            now = self._clock.monotonic()
            for held in self._held.values():
                if not held.over and held.ends_at <= now:
                    held.over = True
                    self._end(held, "its time is over")
            pending = [held.ends_at - now for held in self._held.values() if not held.over]
            try:
                async with asyncio.timeout(min(pending, default=None)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _is_over(self, held: Held) -> bool:
        return held.over or held.ends_at <= self._clock.monotonic()

    def _end(self, held: Held, why: str) -> None:
        hold = held.hold
        logger.info("a lease has ended", extra={"dut": hold.dut, "by": hold.owner, "why": why})
        for listener in self._listeners:
            listener(hold.dut, hold.fence, why)
