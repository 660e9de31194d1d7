"""PURE: what events of leases do to the Lab. Part of `apply`."""

from collections.abc import Callable
from typing import Any

from tshrag_common.ids import Fence
from tshrag_controller.core import lease_events as e
from tshrag_controller.core.groups import set_carried
from tshrag_controller.core.holds import let_go
from tshrag_controller.core.idle import note_dut
from tshrag_controller.core.lab import NO_FENCE, Lab, set_timer
from tshrag_controller.core.people import Ask, Lease, Reservation
from tshrag_controller.core.ways import drop_if_gone, settle


def _terms(event: e.LeaseAsked | e.LeaseGranted | e.DutReserved) -> dict[str, Any]:
    """Return who wants a DUT, why, with whom and how idle it may be: the same all along."""
    return {
        "org": event.org,
        "by": event.by,
        "reason": event.reason,
        "shared": event.shared,
        "idle_us": event.idle_us,
    }


def _asked(lab: Lab, event: e.LeaseAsked, at: int) -> None:
    people = lab.people
    known = people.asks.get(event.lease)
    if known is not None:
        known.alive_until = event.alive_until
    else:
        lab.admitted += 1
        people.asks[event.lease] = Ask(
            id=event.lease,
            order=lab.admitted,
            priority=event.priority,
            asked_at=at,
            alive_until=event.alive_until,
            for_us=event.for_us,
            dut=event.dut,
            kind=event.kind,
            labels=dict(event.labels),
            **_terms(event),
        )
    set_timer(lab, event.alive_until, "ask", event.lease)


def _withdrawn(lab: Lab, event: e.LeaseWithdrawn, at: int) -> None:
    lab.people.asks.pop(event.lease, None)


def _granted(lab: Lab, event: e.LeaseGranted, at: int) -> None:
    lab.people.asks.pop(event.lease, None)
    lease = Lease(
        id=event.lease,
        fence=event.fence,
        dut=event.dut,
        agent=event.agent,
        since=at,
        until=event.until,
        touched=at,
        questions=event.questions,
        **_terms(event),
    )
    lab.turn_fences += 1
    _hold(lab, lease)


def _hold(lab: Lab, lease: Lease) -> None:
    lab.people.leases[lease.fence] = lease
    row = lab.duts[lease.dut]
    row.holder = lease.fence
    set_carried(lab, row, (), ())  # people do what they like
    note_dut(lab, row)
    lab.agents[lease.agent].leases.add(lease.fence)
    watch(lab, lease)


def watch(lab: Lab, lease: Lease) -> None:
    """Set the timers of a lease: for its end, and for its being idle."""
    set_timer(lab, lease.until, "lease", str(lease.fence))
    if lease.idle_us:
        set_timer(lab, lease.touched + lease.idle_us, "lease", str(lease.fence))


def _renewed(lab: Lab, event: e.LeaseRenewed, at: int) -> None:
    lease = lab.people.leases[event.fence]
    lease.until, lease.touched, lease.rev = event.until, at, lease.rev + 1
    watch(lab, lease)


def _shared(lab: Lab, event: e.LeaseShared, at: int) -> None:
    lease = lab.people.leases[event.fence]
    lease.shared, lease.touched, lease.rev = event.shared, at, lease.rev + 1


def _handed(lab: Lab, event: e.LeaseHanded, at: int) -> None:
    lease = lab.people.leases.pop(event.fence)
    lab.agents[lease.agent].leases.discard(lease.fence)
    lease.fence, lease.org, lease.by, lease.shared = event.new, event.org, event.by, ()
    lease.since, lease.touched, lease.rev = at, at, 1
    lease.reason = event.reason or lease.reason
    lab.turn_fences += 1
    _hold(lab, lease)


def _ended(lab: Lab, event: e.LeaseEnded, at: int) -> None:
    lease = lab.people.leases.pop(event.fence)
    agent = lab.agents.get(lease.agent)
    if agent is not None:
        agent.leases.discard(lease.fence)
    lab.indexes.active.pop(lease.fence, None)
    row = lab.duts.get(lease.dut)
    if row is not None and row.holder == lease.fence:
        row.holder = Fence(NO_FENCE)
        let_go(lab, row)
        settle(lab, row)
        drop_if_gone(lab, row)


def _reserved(lab: Lab, event: e.DutReserved, at: int) -> None:
    lab.people.reservations[event.reservation] = Reservation(
        id=event.reservation,
        dut=event.dut,
        start=event.start,
        end=event.end,
        made_at=at,
        **_terms(event),
    )
    set_timer(lab, event.start, "reserve", event.reservation)
    set_timer(lab, event.end, "reserve", event.reservation)


def _unreserved(lab: Lab, event: e.ReservationEnded, at: int) -> None:
    lab.people.reservations.pop(event.reservation, None)


APPLY: dict[type, Callable[[Lab, Any, int], None]] = {
    e.LeaseAsked: _asked,
    e.LeaseWithdrawn: _withdrawn,
    e.LeaseGranted: _granted,
    e.LeaseRenewed: _renewed,
    e.LeaseShared: _shared,
    e.LeaseHanded: _handed,
    e.LeaseEnded: _ended,
    e.DutReserved: _reserved,
    e.ReservationEnded: _unreserved,
}
