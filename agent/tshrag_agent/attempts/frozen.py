"""A board that is handed over as it is, because a criterion failed: it is asked first.

An attempt that fails asks its board itself (`capture`). That a criterion fails is told after the
end of the attempt, with the lease of who has submitted: what it asks is asked under its fence, and
lies among the artifacts of the attempt. An agent that is started in the middle of it goes on with
what is not answered yet.
"""

import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tshrag_agent.attempts import workdir
from tshrag_agent.attempts.capture import capture
from tshrag_agent.boards.boards import Boards
from tshrag_agent.leases import Leases
from tshrag_common.commands import HoldDut, Questions
from tshrag_common.errors import LabError
from tshrag_common.ids import DutId

logger = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None], str], object]


class Frozen:
    """Asks the boards whose leases bring questions with them."""

    def __init__(self, store: Path, leases: Leases, boards: Boards, spawn: Spawn) -> None:
        self._store, self._leases, self._boards, self._spawn = store, leases, boards, spawn

    def resume(self) -> None:
        """Ask what an earlier agent has been told to ask and had no time for."""
        for held in self._leases:
            self.taken(held.hold.dut)

    def taken(self, dut: DutId) -> None:
        """Hear of a lease; `Leases` calls this for each that is new."""
        hold = self._leases.of(dut)
        if hold is not None and hold.questions is not None and self._boards.knows(dut):
            self._spawn(self._ask(hold, hold.questions), f"questions to {dut}")

    async def _ask(self, hold: HoldDut, questions: Questions) -> None:
        folder = workdir.place_of(self._store, questions.job, questions.attempt).frozen
        facts = {"dut": hold.dut, "job": questions.job}
        try:
            board = self._boards.board(hold.dut)
            transport = self._boards.transport(hold.dut, questions.runtime)
            await capture(board, transport, hold.fence, questions.asked, folder)
        except (LabError, OSError) as error:
            logger.error("a board was not asked", extra={**facts, "why": str(error)})
            return
        logger.info("a frozen board has been asked", extra=facts)
