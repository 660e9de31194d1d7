"""What groups cost and saved, as the lab counts it."""

import msgspec


class SetupStats(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Since the lab began; ``teardowns``: state -> how many."""

    made: int = 0
    avoided: int = 0
    failed: int = 0
    spent_s: float = 0.0  # on those that were made
    saved_s: float = 0.0  # what those that were avoided would have cost
    teardowns: dict[str, int] = {}
