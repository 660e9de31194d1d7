"""PURE: what happens to a mailbox, as its file keeps it. New fields: last, with a default."""

import msgspec

from tshrag_common.commands import Mate
from tshrag_common.gang_messages import Item
from tshrag_common.ids import Fence


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """The first record: who this is, and who the others are."""

    own: Fence
    mates: tuple[Mate, ...]
    can_speak: bool = True
    socket: str = ""


class Said(msgspec.Struct, frozen=True, kw_only=True, tag="said"):
    """An item is on its way to a mate."""

    to: Fence
    item: Item
    call: str = ""  # that asked for it


class Receipted(msgspec.Struct, frozen=True, kw_only=True, tag="receipted"):
    """A mate has all that was said to it, up to there."""

    by: Fence
    upto: int


class Heard(msgspec.Struct, frozen=True, kw_only=True, tag="heard"):
    """The next item of a mate has come."""

    of: Fence
    item: Item


class Came(msgspec.Struct, frozen=True, kw_only=True, tag="came"):
    """The job has come to a barrier, once more."""

    name: str
    roles: tuple[str, ...]


class Passed(msgspec.Struct, frozen=True, kw_only=True, tag="passed"):
    """All have met at a barrier; the call was told."""

    name: str
    call: str


class Took(msgspec.Struct, frozen=True, kw_only=True, tag="took"):
    """A call was given these messages; they wait no more."""

    call: str
    numbers: tuple[int, ...]


class Closed(msgspec.Struct, frozen=True, kw_only=True, tag="closed"):
    """The job has ended; the mailbox waits until its mates know."""


Record = Opened | Said | Receipted | Heard | Came | Passed | Took | Closed
