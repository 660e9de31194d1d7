"""Requests about leases, and their answers (see requests.py).

A lease is named by its id or by its DUT; the id is a ULID of the caller (``lease-…``), so that
the same request again is the same lease.
"""

from typing import Annotated

import msgspec

from tshrag_common.ids import Whole

LEAST_S, MOST_S = 1.0, 30 * 86400.0
Held = Annotated[float, msgspec.Meta(ge=LEAST_S, le=MOST_S)]
Text = Annotated[str, msgspec.Meta(max_length=500)]
Name = Annotated[str, msgspec.Meta(max_length=130)]


class LeaseTake(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Give me a DUT: the one named, or any of this kind and these labels.

    With ``wait_s`` > 0 the answer comes when it is there, or after that time with the place in
    the line: ask again with the same id to keep it. Who does not ask again within a minute
    leaves the line.
    """

    lease: Name
    dut: Name = ""
    kind: Name = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    for_s: Held = 7200.0
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=25)] = 0.0
    priority: Annotated[int, msgspec.Meta(ge=0, le=100)] = 50
    reason: Text = ""
    share: tuple[Name, ...] = ()
    idle_s: Annotated[float, msgspec.Meta(ge=0, le=MOST_S)] = 0.0
    takeover: bool = False  # end the lease of somebody else; ``reason`` says why


class LeaseReserve(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Promise me a DUT for a time to come; at ``start`` it becomes my lease."""

    lease: Name
    start: Whole
    dut: Name = ""
    kind: Name = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    for_s: Held = 7200.0
    reason: Text = ""
    share: tuple[Name, ...] = ()
    idle_s: Annotated[float, msgspec.Meta(ge=0, le=MOST_S)] = 0.0


class LeaseShare(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """These may use it too: ``org/name``, or ``org`` for all of it. Nobody: not shared any more."""

    lease: Name
    share: Annotated[tuple[Name, ...], msgspec.Meta(max_length=50)] = ()


class LeaseTransfer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """It is theirs from now on: ``org/name``, or a name of my own org."""

    lease: Name
    to: Name
    reason: Text = ""


class LeaseRenew(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """I keep it for so long from now on."""

    lease: Name
    for_s: Held = 7200.0


class LeaseRelease(msgspec.Struct, frozen=True, kw_only=True):
    """I give it back, or leave the line."""

    lease: Name


class LeaseAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A lease as it stands now. Without ``fence`` it is not held: ``ahead`` stand before it."""

    lease: str
    dut: str = ""
    agent: str = ""
    fence: int = 0
    until: int = 0
    owner: str = ""  # org/name
    since: int = 0
    state: str = "held"  # held, waiting, reserved, ended
    reason: str = ""
    shared: tuple[str, ...] = ()
    idle_s: float = 0.0
    ahead: int = 0
    target: str = ""  # what is waited for
    mine: bool = False  # of who asks


class ListLeases(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is held and waited for; or, with ``ended``, what was."""

    ended: bool = False
    dut: Name = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 200
    offset: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] = 0


class EndedLease(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A lease that was, and how it ended."""

    lease: str
    dut: str
    agent: str
    fence: int
    owner: str
    since: Whole
    ended_at: Whole
    cause: str
    reason: str = ""
    ended_by: str = ""
    why: str = ""


class LeasesAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is held first, then who waits, in the order of the line."""

    leases: tuple[LeaseAnswer, ...] = ()
    ended: tuple[EndedLease, ...] = ()
    more: bool = False
