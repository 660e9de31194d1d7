"""What people have of the lab, as it stands: leases, and those who wait for one. Part of `Lab`.

A lease holds a DUT as an attempt does: its fence stands in ``DutRow.holder``. So whatever keeps
two attempts off one DUT keeps a person and an attempt off it too.
"""

from dataclasses import dataclass, field

from tshrag_common.commands import Questions
from tshrag_common.ids import THE_LAB, AgentId, DutId, Fence, OrgId
from tshrag_controller.core.intent_events import Kind

LeaseId = str


@dataclass(slots=True)
class Lease:
    """A person holds a DUT until an instant; ``rev`` counts what has changed of it."""

    id: LeaseId
    fence: Fence
    dut: DutId
    agent: AgentId
    org: OrgId
    by: str
    since: int
    until: int
    rev: int = 1
    reason: str = ""
    shared: tuple[str, ...] = ()  # ``org/name``, or ``org`` for all of it
    idle_us: int = 0  # released after so long without activity; 0: never
    touched: int = 0  # taken or renewed
    questions: Questions | None = None  # its DUT is asked first

    @property
    def owner(self) -> str:
        return f"{self.org}/{self.by}"


@dataclass(slots=True)
class Ask:
    """Somebody waits for a DUT, in one line with the runs: ``order`` is a place among theirs."""

    id: LeaseId
    org: OrgId
    by: str
    order: int
    priority: int
    asked_at: int
    alive_until: int  # nobody has asked again until then: withdrawn
    for_us: int
    dut: str = ""
    kind: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    shared: tuple[str, ...] = ()
    idle_us: int = 0


@dataclass(slots=True)
class Reservation:
    """A DUT is promised to a person for a time to come."""

    id: LeaseId  # of the lease that it becomes
    dut: DutId
    org: OrgId
    by: str
    start: int
    end: int
    made_at: int
    reason: str = ""
    shared: tuple[str, ...] = ()
    idle_us: int = 0

    @property
    def owner(self) -> str:
        return f"{self.org}/{self.by}"


LAB = THE_LAB
"""Who takes out of service what does not pass its health check."""
_HOST = "agent/"


def place_of(kind: Kind, name: str) -> str:
    """Return the name under which the health of a host or a DUT is known."""
    return name if kind == "dut" else _HOST + name


def kind_and_name(place: str) -> tuple[Kind, str]:
    """Undo `place_of`: no name of a DUT has a slash in it."""
    is_host = place.startswith(_HOST)
    return ("agent", place.removeprefix(_HOST)) if is_host else ("dut", place)


@dataclass(slots=True)
class Health:
    """What is known of a DUT, or of a host, from its checks and its attempts."""

    at: int = 0  # of the newest check: when it was ordered, then when it ended
    run: str = ""
    state: str = ""  # how the newest that has ended did so
    faults: int = 0  # infrastructure errors in a row
    crashed: tuple[str, ...] = ()  # runs in a row under which its console told of a crash
    crash: int = 0  # the fence of the newest such attempt
    before: tuple[str, ...] = ()  # what `crashed` was before attempt `ended`, which told of none
    ended: int = 0


@dataclass(slots=True)
class Intent:
    """What people want of a host or a DUT, whatever it is like."""

    what: str  # cordoned, draining, maintenance, quarantined
    by: str
    since: int
    reason: str = ""
    until: int = 0  # 0: until it is undone
    check: str = ""  # the run that looks whether it is well: it alone may come

    @property
    def text(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"{self.what} by {self.by}{why}"


@dataclass(slots=True)
class People:
    """All of it."""

    leases: dict[Fence, Lease] = field(default_factory=dict)
    asks: dict[LeaseId, Ask] = field(default_factory=dict)
    health: dict[str, Health] = field(default_factory=dict)  # by `place_of`
    checks: dict[str, str] = field(default_factory=dict)  # run -> `place_of` what it checks
    reservations: dict[LeaseId, Reservation] = field(default_factory=dict)
    intents: dict[str, Intent] = field(default_factory=dict)  # by ``dut/NAME``, ``agent/NAME``

    def of_dut(self, dut: str) -> Lease | None:
        return next((lease for lease in self.leases.values() if lease.dut == dut), None)

    def named(self, name: str) -> Lease | None:
        """Return the lease with this id, or of the DUT of this name."""
        found = (lease for lease in self.leases.values() if name in (lease.id, lease.dut))
        return next(found, None)
