"""A drill: this agent dies, or is without the bus for a while, because an operator wants to see it.

Only where ``[agent] drills`` allows it; a command alone, signed as it is, is not enough.
"""

import logging
import os
import signal
from collections.abc import Callable

from tshrag_common.commands import RunDrill

logger = logging.getLogger(__name__)

MOST_S = 600.0


class Drills:
    """What this agent suffers on purpose."""

    def __init__(
        self,
        allowed: bool,
        cut: Callable[[float], None],
        die: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGKILL),
    ) -> None:
        self._allowed, self._cut, self._die = allowed, cut, die
        self.refused = 0

    def suffer(self, command: RunDrill) -> None:
        """Obey, or count what was not allowed."""
        if not self._allowed:
            self.refused += 1
            logger.error("a drill was refused", extra={"fix": "set [agent] drills = true"})
        elif command.what == "kill":
            logger.warning("a drill: this agent dies by SIGKILL")
            self._die()
        else:
            seconds = min(command.seconds, MOST_S)
            logger.warning("a drill: without the bus", extra={"seconds": seconds})
            self._cut(seconds)
