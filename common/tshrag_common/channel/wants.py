"""What a channel is opened for: one struct each, a union for the wire.

The agent serves a want by a handler of its own; a new want is a struct here and a handler there.
"""

import msgspec


class ConsoleWant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="console"):
    """The console of a DUT: first the last ``scrollback_bytes``, then what happens."""

    scrollback_bytes: int = 4096
    take: bool = False  # the right to write, from another who shares the lease


class EchoWant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="echo"):
    """All that is said comes back: measures the way to an agent."""


AnyWant = ConsoleWant | EchoWant
