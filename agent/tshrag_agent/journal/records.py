"""PURE: what the journal is made of: records of spools, attempts, and the changes to them.

A change is one step of a transaction; `journal.write` takes any number of them, and either all
are on the disk when it returns or none is.
"""

import zlib
from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import msgspec

from tshrag_common.ids import DutId, Fence

SpoolName = Literal["reports", "samples", "output"]
SPOOLS: tuple[SpoolName, ...] = get_args(SpoolName)

RECORD_OVERHEAD_BYTES = 32
"""What a record costs on the disk beside its body, roughly: it counts for the quota."""


class Record(msgspec.Struct, frozen=True):
    """A message's worth of a spool; numbers count from 1 and have no gap."""

    seq: int
    body: bytes


class AttemptRow(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt as the disk knows it; ``start`` and ``spec`` are encoded as they came.

    ``stdout`` and ``stderr`` are how far its output lies in the spool, ``files`` (JSON) how far
    each of its CSV files. ``ended_seq`` > 0: it has ended, and that
    is the number of the report that says so.
    """

    fence: Fence
    start: bytes
    spec: bytes
    started_at: int = 0
    files: str = "{}"
    stdout: int = 0
    stderr: int = 0
    samples_upto: int = 0
    output_upto: int = 0
    ended_seq: int = 0


class Append(msgspec.Struct, frozen=True):
    """Put records behind the last one of a spool."""

    spool: SpoolName
    bodies: tuple[bytes, ...]


class Begin(msgspec.Struct, frozen=True):
    """An attempt is taken on; what is known of this fence already stays."""

    row: AttemptRow


class Launched(msgspec.Struct, frozen=True):
    """The first process of an attempt runs."""

    fence: Fence
    started_at: int


class Pumped(msgspec.Struct, frozen=True):
    """Output up to these offsets was appended in the same transaction.

    `marks_samples` and `marks_output` say whether a record of this attempt was among it.
    """

    fence: Fence
    stdout: int
    stderr: int
    files: str = "{}"
    marks_samples: bool = False
    marks_output: bool = False


class End(msgspec.Struct, frozen=True):
    """An attempt has ended; the report that says so was appended in the same transaction."""

    fence: Fence


class Heard(msgspec.Struct, frozen=True):
    """The newest message of commands."""

    epoch: int
    n: int


class DutFence(msgspec.Struct, frozen=True):
    """The highest fence that was accepted for a DUT."""

    dut: DutId
    fence: Fence


class LeaseKept(msgspec.Struct, frozen=True):
    """A person holds a DUT; ``body`` is the command as it came. One a DUT: the newest."""

    dut: DutId
    fence: Fence
    body: bytes


class LeaseGone(msgspec.Struct, frozen=True):
    """The person with this fence holds it no more."""

    fence: Fence


class AgentsOf(msgspec.Struct, frozen=True):
    """So many agents have been killed while an attempt ran."""

    fence: Fence
    killed: int


class HandedOver(msgspec.Struct, frozen=True):
    """The agent leaves in order, and what runs to the next one; or that one has begun."""

    on: bool


class SetupKept(msgspec.Struct, frozen=True):
    """A DUT carries the setup of a group; ``body`` says which. Empty: it carries none."""

    dut: DutId
    body: bytes = b""


class Confirm(msgspec.Struct, frozen=True):
    """The controller has everything up to here for good."""

    spool: SpoolName
    upto: int


Change = (
    Append
    | Begin
    | Launched
    | Pumped
    | End
    | Heard
    | DutFence
    | LeaseKept
    | LeaseGone
    | AgentsOf
    | HandedOver
    | SetupKept
    | Confirm
)


def checksum(seq: int, body: bytes) -> int:
    """Return what is stored beside a body; it covers the number, so that rows cannot swap."""
    return zlib.crc32(body, seq & 0xFFFFFFFF)


def cost_bytes(bodies: Iterable[bytes]) -> int:
    """Return what bodies count for the quota."""
    return sum(len(body) + RECORD_OVERHEAD_BYTES for body in bodies)


def sound(rows: Iterable[tuple[int, bytes, int]], first_seq: int) -> Iterator[Record]:
    """Yield what a spool still holds: from `first_seq` on, up to the first damage or gap."""
    for expected, (seq, body, crc) in enumerate(rows, first_seq):
        if seq != expected or checksum(seq, body) != crc:
            return
        yield Record(seq, body)
