"""Requests about stored samples: queries over all of them, and what the store may be told to do.

Instants are integer microseconds UTC. A query sees what its org may see.
"""

from typing import Annotated, Literal

import msgspec

from tshrag_common.ids import Whole

QueryFormat = Literal["rows", "csv", "json", "parquet", "arrow"]


class Query(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One SELECT over the views samples, series, runs and jobs; ``$name`` are its arguments.

    ``since`` (included), ``until`` (not included), ``run`` and ``key`` (a GLOB) bound what the
    views show: less is read. A ``format`` other than rows makes a file, which is fetched in parts.
    """

    sql: Annotated[str, msgspec.Meta(max_length=20_000)]
    arguments: dict[str, str | float | int] = msgspec.field(
        default_factory=dict[str, str | float | int]
    )
    since: Whole = 0
    until: Whole = 0  # 0: no end
    run: str = ""
    key: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=50_000)] = 1000
    format: QueryFormat = "rows"


class QueryAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Rows, as far as they fit into a message (``more``: there are others), or the file of them.

    Instants are ISO text; a number that is not finite is text.
    """

    names: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    rows: tuple[tuple[object, ...], ...] = ()
    more: bool = False
    file: str = ""
    size: int = 0
    took_us: int = 0


class QueryPart(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of the file of a query, from ``offset``."""

    file: str
    offset: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] = 0


class QueryPartAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """As many bytes as fit into a message; ``size`` is that of the whole file."""

    data: bytes
    size: int


class PlaceFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What rests in one place: ``tail`` (not sealed), ``local`` (sealed), ``cold``, ``cache``."""

    place: str
    parts: int
    samples: int
    bytes: int
    first_day: str = ""
    last_day: str = ""


class StoreDeed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an operator had done, and what came of it."""

    at: int
    by: str
    what: str
    told: str = ""


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The samples of the whole lab, place by place; ``trouble``: why they are not moved."""

    places: tuple[PlaceFacts, ...]
    cold_url: str
    hot_days: int
    cold_days: int
    trouble: str = ""
    counters: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    deeds: tuple[StoreDeed, ...] = ()  # by operators, newest first


class StoreDo(msgspec.Struct, frozen=True, kw_only=True):
    """Do at once what is else done in time.

    ``seal``: all that is open; ``gc``: what the rules say is due; ``verify``: read every segment
    and compare; ``import``: take up segments that the registry does not know. An operator's.
    """

    what: Literal["seal", "gc", "verify", "import"]


class StoreDone(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was done, by name; ``problems`` names what is missing or damaged."""

    counts: dict[str, int]
    problems: tuple[str, ...] = ()


class StoreAbout(msgspec.Struct, frozen=True, kw_only=True):
    """How does the store stand?"""
