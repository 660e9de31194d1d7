"""What happened to leases of people: words of the LOG (see events.py)."""

import msgspec

from tshrag_common.commands import Questions
from tshrag_common.ids import AgentId, DutId, Fence, OrgId
from tshrag_controller.core.event import Event


class LeaseAsked(Event, frozen=True, kw_only=True, array_like=True, tag="lease_asked"):
    """Somebody waits for a DUT; the same id again keeps the place in the line."""

    lease: str
    org: OrgId
    by: str
    alive_until: int
    for_us: int
    priority: int = 50
    dut: str = ""
    kind: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    reason: str = ""
    shared: tuple[str, ...] = ()
    idle_us: int = 0


class LeaseWithdrawn(Event, frozen=True, kw_only=True, array_like=True, tag="lease_withdrawn"):
    """Nobody waits for it any more."""

    lease: str
    why: str = ""


class LeaseGranted(Event, frozen=True, kw_only=True, array_like=True, tag="lease_granted"):
    """A person holds a DUT, under a fence never used before."""

    lease: str
    fence: Fence
    dut: DutId
    agent: AgentId
    org: OrgId
    by: str
    until: int
    reason: str = ""
    shared: tuple[str, ...] = ()
    idle_us: int = 0
    questions: Questions | None = None


class LeaseRenewed(Event, frozen=True, kw_only=True, array_like=True, tag="lease_renewed"):
    """The holder keeps it, until a later (or an earlier) instant."""

    fence: Fence
    until: int


class LeaseShared(Event, frozen=True, kw_only=True, array_like=True, tag="lease_shared"):
    """Who else may use the DUT while it is held: all of them, each time."""

    fence: Fence
    shared: tuple[str, ...]


class LeaseHanded(Event, frozen=True, kw_only=True, array_like=True, tag="lease_handed"):
    """Another person holds it from here on, under a fence of their own."""

    fence: Fence
    new: Fence
    org: OrgId
    by: str
    giver: str  # who said so
    reason: str = ""


class LeaseEnded(Event, frozen=True, kw_only=True, array_like=True, tag="lease_ended"):
    """The DUT is free again: released, expired, idle, taken over."""

    fence: Fence
    cause: str
    by: str = ""
    reason: str = ""


class DutReserved(Event, frozen=True, kw_only=True, array_like=True, tag="dut_reserved"):
    """A DUT is promised to a person for a time to come."""

    reservation: str
    dut: DutId
    org: OrgId
    by: str
    start: int
    end: int
    reason: str = ""
    shared: tuple[str, ...] = ()
    idle_us: int = 0


class ReservationEnded(Event, frozen=True, kw_only=True, array_like=True, tag="reservation_ended"):
    """It has become a lease, was given up (``by``), or could not be kept."""

    reservation: str
    why: str = ""
    by: str = ""


LeaseEvent = (
    LeaseAsked
    | LeaseWithdrawn
    | LeaseGranted
    | LeaseRenewed
    | LeaseShared
    | LeaseHanded
    | LeaseEnded
    | DutReserved
    | ReservationEnded
)
