"""PURE: a person reserves a DUT; the reservation becomes a lease; or it is given up."""

from collections.abc import Callable

from tshrag_common.errors import NotFound, PolicyDenied, Refused
from tshrag_common.ids import OrgId
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.free_at import held_limit
from tshrag_controller.core.lab import DutRow, Lab
from tshrag_controller.core.lease_events import (
    DutReserved,
    LeaseAsked,
    LeaseRenewed,
    ReservationEnded,
)
from tshrag_controller.core.line import grant, misfits_of, need_of
from tshrag_controller.core.needs import away
from tshrag_controller.core.people import Reservation
from tshrag_controller.core.reservations import MARGIN_US, of_dut


def on_reserve(
    decision: Decision, asked: DutReserved, kind: str, labels: dict[str, str]
) -> Reservation:
    """Promise a DUT for a time to come: the one named, or the first that is free then.

    Raises:
        NotFound: there is no such DUT.
        Refused: nothing fits, or what fits is not free then; each with why.

    """
    lab = decision.lab
    known = lab.people.reservations.get(asked.reservation)
    if known is not None:
        if (known.org, known.by) != (asked.org, asked.by):
            raise Refused("lease", f"{known.id} is taken", "ask under a new id", code="lease_taken")
        return known
    if asked.dut and asked.dut not in lab.duts:
        raise NotFound("dut", asked.dut, lab.duts)
    need = need_of(asked.dut, kind, labels)
    rows = [row for _, row in sorted(lab.duts.items()) if not misfits_of(lab, need, row)]
    taken = [(row, _taken_then(lab, row, asked, decision.now)) for row in rows]
    free = next((row for row, why in taken if not why), None)
    if free is None:
        what = "; ".join(why for _, why in taken[:3]) or "no DUT is like that"
        raise Refused("", what, "another time, or another board", code="not_free")
    decision.happen(_of(asked, free))
    return lab.people.reservations[asked.reservation]


def _of(asked: DutReserved, row: DutRow) -> DutReserved:
    return DutReserved(
        reservation=asked.reservation,
        dut=row.dut.id,
        org=asked.org,
        by=asked.by,
        start=asked.start,
        end=asked.end,
        reason=asked.reason,
        shared=asked.shared,
        idle_us=asked.idle_us,
    )


def _taken_then(lab: Lab, row: DutRow, asked: DutReserved, now: int) -> str:
    """Say why a DUT cannot be promised for that time; empty: it can."""
    name = row.dut.id
    for each in of_dut(lab, name):
        if each.start < asked.end and asked.start < each.end:
            return f"DUT {name} is reserved for {each.owner} then"
    lease = lab.people.leases.get(row.holder)
    if lease is not None and lease.until > asked.start and lease.owner != _owner(asked):
        return f"DUT {name} is leased by {lease.owner} until after that"
    if held_limit(lab, row, now) + MARGIN_US > asked.start and row.holder in lab.attempts:
        return f"DUT {name} may still be at work for a job then"
    return ""


def _owner(asked: DutReserved) -> str:
    return f"{asked.org}/{asked.by}"


def reservation_named(lab: Lab, org: OrgId, by: str, name: str) -> Reservation | None:
    """Return the reservation of this id, or the only one of this person on the DUT of this name."""
    found = lab.people.reservations
    if name in found:
        return found[name]
    own = [each for each in found.values() if (each.org, each.by, each.dut) == (org, by, name)]
    return own[0] if len(own) == 1 and lab.people.named(name) is None else None


def on_give_up(decision: Decision, org: OrgId, by: str, found: Reservation) -> Reservation:
    """Give a reservation up that has not begun.

    Raises:
        PolicyDenied: it is somebody else's.

    """
    if (found.org, found.by) != (org, by):
        raise PolicyDenied("lease", f"{found.id} is of {found.owner}")
    decision.happen(ReservationEnded(reservation=found.id, by=f"{org}/{by}"))
    return found


def serve_reservations(decision: Decision) -> None:
    """Let what has begun become a lease, before anybody else; drop what is over."""
    lab = decision.lab
    for each in sorted(lab.people.reservations.values(), key=lambda each: (each.start, each.id)):
        if each.start > decision.now:
            continue
        row = lab.duts.get(each.dut)
        if each.end <= decision.now:
            why = "its DUT was not there" if row is None else "its DUT was not free in time"
            decision.happen(ReservationEnded(reservation=each.id, why=why))
        elif row is not None:
            _begin(decision, each, row)


def _begin(decision: Decision, each: Reservation, row: DutRow) -> None:
    lab = decision.lab
    lease = lab.people.leases.get(row.holder)
    if lease is not None and lease.owner == each.owner:  # they have it already: it goes on
        decision.happen(ReservationEnded(reservation=each.id, why="its owner has it already"))
        if lease.until < each.end:
            decision.happen(LeaseRenewed(fence=lease.fence, until=each.end))
        return
    if row.holder or away(lab.agents[row.agent], row):
        return  # late: it is served as soon as the DUT is free and well
    decision.happen(ReservationEnded(reservation=each.id, why="it has begun"))
    asked = LeaseAsked(
        lease=each.id,
        org=each.org,
        by=each.by,
        alive_until=0,
        for_us=each.end - decision.now,
        reason=each.reason,
        shared=each.shared,
        idle_us=each.idle_us,
    )
    grant(decision, asked, row)


TIMERS: dict[str, Callable[[Decision, str], None]] = {
    "reserve": lambda decision, name: serve_reservations(decision)
}
