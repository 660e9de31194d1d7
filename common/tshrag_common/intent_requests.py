"""Requests of operators about hosts and DUTs: out of service and back (see requests.py)."""

from typing import Annotated, Literal

import msgspec

from tshrag_common.ids import Whole

Kind = Literal["agent", "dut"]
Wanted = Literal["cordoned", "draining", "maintenance", "quarantined", "in_service"]
Names = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=1000)]


class SetIntent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Take these out of service, or back (``in_service``). All of them, or none.

    ``until`` 0: until it is undone. With ``now`` what is at work there is ended, and begins again
    elsewhere.
    """

    kind: Kind
    names: Names
    what: Wanted
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""
    until: Whole = 0
    now: bool = False


class IntentView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A host or a DUT, what is wanted of it, and the jobs that are still at work there."""

    kind: Kind
    name: str
    what: str = ""  # empty: in service
    by: str = ""
    since: int = 0
    until: int = 0
    reason: str = ""
    jobs: tuple[str, ...] = ()
    changed: bool = True


class IntentsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Each of them, as it stands now."""

    things: tuple[IntentView, ...]
