"""The root of all events, apart from them: each area has a room of its own for its events."""

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, array_like=True, omit_defaults=True):
    """The root of all that can stand in a frame."""
