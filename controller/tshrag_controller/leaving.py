"""The end of a term in order: to a standby where there is one, else behind a checkpoint."""

import asyncio
import logging

from tshrag_common.clock import Clock
from tshrag_common.errors import LabError
from tshrag_controller.engine import Engine
from tshrag_controller.projecting import Projecting
from tshrag_controller.pulses import Pulses

logger = logging.getLogger(__name__)

LEAVE_S = 5.0
CHECKPOINT_S = 10.0


class Leaving:
    """Asked when the process is told to end."""

    def __init__(
        self, engine: Engine, pulses: Pulses, projecting: Projecting, clock: Clock
    ) -> None:
        self._engine, self._pulses = engine, pulses
        self._projecting, self._clock = projecting, clock

    @property
    def has_others(self) -> bool:
        """Tell whether other controllers of this lab are there."""
        return bool(self._pulses.electorate.others(self._clock.monotonic()))

    async def leave(self) -> None:
        """Make the last frame and say so; alone, store a checkpoint instead."""
        if self._engine.follows:
            await self._pulses.leave()
        elif self.has_others:
            try:
                async with asyncio.timeout(LEAVE_S):
                    await self._engine.finish()
                await self._pulses.leave()
            except TimeoutError:  # the LOG is away: whoever leads next goes by our silence
                logger.warning("left in the middle of a turn")
        else:
            await self._checkpoint()

    async def _checkpoint(self) -> None:
        """Store a checkpoint; without it a start only takes longer."""
        try:
            async with asyncio.timeout(CHECKPOINT_S):
                await self._projecting.checkpoint()
        except (LabError, OSError) as error:
            logger.warning("no checkpoint at the end", extra={"why": str(error)})
