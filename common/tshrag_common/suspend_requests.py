"""Requests that hold runs back, let them go, move their windows (see requests.py)."""

from typing import Annotated

import msgspec

from tshrag_common.ids import Whole


class Hold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Let nothing of this run (or this job) start until it is let go; what runs goes on."""

    id: str
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


class LetGo(msgspec.Struct, frozen=True, kw_only=True):
    """Let it start again."""

    id: str


class HeldAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs that wait and were held, or let go."""

    run: str
    jobs: tuple[str, ...]


class Reschedule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Move the window of a run; None leaves an end as it is, 0 takes it away."""

    run: str
    not_before: Whole | None = None
    deadline: Whole | None = None


class WindowAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The window as it is now."""

    run: str
    not_before: int = 0
    deadline: int = 0
