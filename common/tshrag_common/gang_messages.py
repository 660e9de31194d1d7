"""Agent -> agent: what the jobs of a gang say to each other, and what was heard of it.

Both ends are named by fences, so that nothing of an older attempt is taken for one of this; the
server vouches for the agent that says it (`subjects.gang`). Messages may be lost: what is not
receipted is sent again, in order, and counted on both sides.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from tshrag_common.ids import Fence

MAX_NAME = 64
MAX_VALUE_BYTES = 64 << 10

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME, pattern=r"^[A-Za-z0-9._:-]+$")]
Role = Annotated[str, Meta(min_length=1, max_length=128)]


class Here(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="here"):
    """It has begun. ``can_speak``: it runs on its host, where ``tshrag-sync`` is."""

    address: Annotated[str, Meta(max_length=255)] = ""
    can_speak: bool = True


class Note(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="note"):
    """A message of one role to another."""

    key: Name
    value: Annotated[bytes, Meta(max_length=MAX_VALUE_BYTES)]


class Arrival(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="arrival"):
    """It has come to a barrier, once more; ``roles`` are all whom it waits for, itself too."""

    name: Name
    roles: tuple[Role, ...]


class Over(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="over"):
    """It has ended: nothing comes behind this."""

    outcome: Annotated[str, Meta(max_length=32)]


Item = Here | Note | Arrival | Over


class Parcel(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One thing said by the attempt ``of`` to the attempt ``to``; ``seq`` counts from 1."""

    to: Fence
    of: Fence
    seq: int
    item: Item


class Receipt(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The attempt ``of`` has all that the attempt ``to`` said to it, up to there."""

    to: Fence
    of: Fence
    upto: int


class GangMail(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One message from an agent to another."""

    parcels: tuple[Parcel, ...] = ()
    receipts: tuple[Receipt, ...] = ()
