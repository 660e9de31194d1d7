"""The command that a console executes now, and how it ended."""

import asyncio
import time

from tshrag_agent.transport.base import Cause, Completed
from tshrag_agent.transport.launch import exit_of
from tshrag_common.ids import Fence

_NOTE = "no lease on the DUT: what runs goes on while the line is lost"


class Running:
    """The command that executes now, for those who want it to end."""

    def __init__(self, fence: Fence, timeout_s: float) -> None:
        self.fence = fence
        self.cause: Cause = "deadline"
        self.limit = asyncio.timeout(timeout_s)
        self.over = asyncio.Event()
        self.may_stop = False  # while it is inside its limit

    def stop(self, cause: Cause) -> None:
        if self.may_stop:
            self.cause, self.may_stop = cause, False
            self.limit.reschedule(asyncio.get_running_loop().time())


def completed(status: int, cause: Cause, began_at: float) -> Completed:
    code, signal = exit_of(status)
    took_s = time.monotonic() - began_at
    return Completed(
        exit_code=code, signal=signal, cause=cause, guarded=False, duration_s=took_s, note=_NOTE
    )
