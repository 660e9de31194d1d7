"""Requests of those who wait: how does it look, who stands in the line, why there (requests.py)."""

import msgspec


class SpanView(msgspec.Struct, frozen=True, kw_only=True):
    """An instant that nobody knows: early, likely, late. Microseconds UTC."""

    low: int
    mid: int
    high: int


class HolderView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A place that could serve it, what holds it, and when it will be free."""

    host: str
    dut: str = ""
    holder: str = ""  # empty: it is free
    until: int = 0  # when the hold ends by itself
    free: SpanView | None = None  # None: nobody can say


class ChangeView(msgspec.Struct, frozen=True, kw_only=True):
    """What would start it sooner, and when it would start then."""

    what: str
    start: SpanView


class OutlookAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How it looks for a job that waits.

    ``start`` None: nobody can say. ``observed``: jobs that did the same have ended before, so
    that it is known how long such a thing takes; else time limits stand in for it.
    """

    job: str
    state: str
    reason: str
    sentence: str
    ahead: int = 0
    start: SpanView | None = None
    observed: bool = False
    holders: tuple[HolderView, ...] = ()
    changes: tuple[ChangeView, ...] = ()


class QueueClass(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everybody who waits for the same kind of place."""

    target: str
    waiting: int  # jobs, and roles of runs that take DUTs for all their jobs
    people: int = 0
    orgs: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    head: str = ""  # a job, a run or a lease
    since: int = 0  # when the one who waits longest came
    places: int = 0  # that could ever serve them
    free: int = 0
    next: SpanView | None = None  # when the head starts
    last: SpanView | None = None  # when somebody who came now would start


class QueueAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The lines, the longest first; ``more`` are left out."""

    classes: tuple[QueueClass, ...] = ()
    more: int = 0


class PlaceThen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A place, and what spoke against it when the attempt was assigned."""

    host: str
    dut: str = ""
    chosen: bool = False
    why: str = ""


class PlacementAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an attempt went where it went, made again from what was recorded."""

    job: str
    attempt: int
    at: int
    target: str
    rule: str
    places: tuple[PlaceThen, ...] = ()
    note: str = ""
