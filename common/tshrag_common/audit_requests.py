"""Requests about what was done in the lab by people: who, what, on which thing, how much."""

from typing import Annotated

import msgspec

from tshrag_common.ids import Whole
from tshrag_common.requests import Limit, Offset

Text = Annotated[str, msgspec.Meta(max_length=200)]


class ListAudit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What people did, newest first. An operator sees all of it, others what their org did."""

    name: Text = ""  # of a DUT or an agent
    by: Text = ""  # a person as ``org/name``, or a whole org
    what: Text = ""  # as ``forward``
    since: Whole = 0
    limit: Limit = 100
    offset: Offset = 0


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was done. A channel has two: ``opened``, then ``closed`` with its bytes."""

    at: int
    by: str
    what: str
    kind: str
    name: str
    reason: str = ""
    until: int = 0
    agent: str = ""
    lease: str = ""
    session: str = ""
    phase: str = ""
    up_bytes: int = 0  # from the person
    down_bytes: int = 0  # to the person


class AuditAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Newest first; ``more`` where the limit has cut it."""

    entries: tuple[AuditEntry, ...] = ()
    more: bool = False
