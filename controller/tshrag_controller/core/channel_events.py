"""What people did over channels: words of the LOG (see events.py)."""

import msgspec

from tshrag_common.ids import AgentId, DutId, Fence, OrgId
from tshrag_controller.core.event import Event


class ChannelNoted(Event, frozen=True, kw_only=True, array_like=True, tag="channel_noted"):
    """A channel was opened or closed at an agent, by a person; told by the agent."""

    agent: AgentId
    org: OrgId
    by: str
    session: str
    what: str
    detail: str
    phase: str
    dut: DutId | None = None
    fence: Fence = msgspec.field(default=Fence(0))
    lease: str = ""  # with this fence, where it is known still
    up_bytes: int = 0
    down_bytes: int = 0
    end: str = ""  # code of the error that closed it
    told_at: int = 0  # by the clock of the agent


ChannelEvent = ChannelNoted
