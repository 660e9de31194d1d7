"""Requests about channels: bytes between a person and an agent, opened by the controller."""

import msgspec

from tshrag_common.channel.wants import AnyWant


class OpenChannel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Open a channel to the agent of a DUT (or, without one, to ``agent``).

    ``session`` is made by the client: 32 random hexadecimal digits. The same again is the same
    channel. ``write`` asks for the right to change the DUT: that takes its lease.
    """

    session: str
    want: AnyWant
    dut: str = ""
    agent: str = ""
    write: bool = False


class OpenChannelAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The agent was told. ``person`` is how the bus knows who asked; 0 as fence: only to watch."""

    agent: str
    person: str
    fence: int = 0
    until: int = 0  # when the lease ends, 0 where there is none
