"""What consoles of DUTs have told: words of the LOG (see events.py)."""

import msgspec

from tshrag_common.ids import AgentId, DutId, Fence, JobId
from tshrag_controller.core.event import Event


class DutSigned(Event, frozen=True, kw_only=True, array_like=True, tag="dut_signed"):
    """The console of a DUT told of a boot, a login prompt, a crash; seen by its agent."""

    agent: AgentId
    dut: DutId
    sign: str
    text: str
    boot: int = 0
    seen_at: int = 0  # by the clock of the agent
    fence: Fence = msgspec.field(default=Fence(0))  # of the attempt that had it
    job: JobId | None = None


ConsoleEvent = DutSigned
