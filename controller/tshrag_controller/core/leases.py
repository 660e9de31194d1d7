"""PURE: a person takes, renews, returns a DUT; what time brings to it; who waits is served.

A lease is refused for the reasons for which a job would wait: the same predicates decide.
"""

from collections.abc import Callable, Iterable

from tshrag_common.errors import NotFound, PolicyDenied, Refused
from tshrag_common.ids import AgentId, DutId, Fence, OrgId
from tshrag_common.jobs import Need
from tshrag_controller.core.decision import Decision, SendHold, SendRelease
from tshrag_controller.core.lab import (
    DutRow,
    Lab,
    set_timer,
)
from tshrag_controller.core.lease_events import (
    LeaseAsked,
    LeaseEnded,
    LeaseHanded,
    LeaseRenewed,
    LeaseShared,
    LeaseWithdrawn,
)
from tshrag_controller.core.line import grant, is_ahead, misfits_of, need_of, next_fence
from tshrag_controller.core.needs import Reason, blocked
from tshrag_controller.core.order import place_of
from tshrag_controller.core.people import Ask, Lease
from tshrag_controller.core.reservations import clash, reason as reservation_reason

S = 1_000_000
ALIVE_US = 60 * S
"""How long a place in the line is kept for somebody who does not ask again."""


def may_use(lease: Lease, org: str, by: str) -> bool:
    """Tell whether a person may use a DUT under `lease`: the owner, and those it is shared with."""
    return f"{org}/{by}" == lease.owner or bool({org, f"{org}/{by}"} & set(lease.shared))


def on_take(
    decision: Decision, asked: LeaseAsked, wait: bool, is_operator: bool = False
) -> Lease | Ask:
    """Give the person a DUT now, or a place in the line; the same id again changes nothing.

    An operator may have one that is out of service: somebody has to mend it.

    Raises:
        NotFound: there is no such DUT.
        Refused: nothing fits, or what fits is not free and nobody wants to wait.

    """
    lab = decision.lab
    known = lab.people.named(asked.lease)
    if known is not None:
        _check_owner(known, asked.org, asked.by)
        return known
    need = need_of(asked.dut, asked.kind, dict(asked.labels))
    fitting = _fitting(lab, need, asked.dut)
    ask = lab.people.asks.get(asked.lease)
    if ask is None:
        mends = is_operator and bool(asked.dut)
        free = next(
            (row for row in fitting if not _in_the_way(lab, need, row, asked.for_us, mends)), None
        )
        mine = place_of(lab, decision.now, asked.priority, lab.admitted + 1)
        if free is not None and not is_ahead(lab, free, mine, decision.now):
            return grant(decision, asked, free)
        if not wait:
            raise _not_free(lab, need, fitting, asked.for_us)
    elif (ask.org, ask.by) != (asked.org, asked.by):
        raise _taken(asked.lease)
    decision.happen(asked)
    return lab.people.asks[asked.lease]


def _fitting(lab: Lab, need: Need, dut: str) -> list[DutRow]:
    if dut and dut not in lab.duts:
        raise NotFound("dut", dut, lab.duts)
    rows = [row for _, row in sorted(lab.duts.items())]
    found = [row for row in rows if not misfits_of(lab, need, row)]
    if not found:
        near = min(rows, key=lambda row: len(misfits_of(lab, need, row)), default=None)
        why = _said(misfits_of(lab, need, near)) if near else "the lab has no DUT"
        fix = f"nearest is {near.dut.id}: {why}" if near else "see 'tshrag dut list'"
        raise Refused("", "no DUT is like that", fix, code="unsatisfiable")
    return found


def _in_the_way(
    lab: Lab, need: Need, row: DutRow, for_us: int, mends: bool = False
) -> tuple[Reason, ...]:
    """Return what is in the way now; who `mends` a DUT may have it though it is out of service."""
    reasons = list(blocked(need, lab.agents[row.agent], row, ""))
    reserved = clash(lab, row.dut.id, lab.indexes.now + for_us)
    if reserved is not None:
        reasons.append(reservation_reason(lab, reserved, for_us))
    return tuple(each for each in reasons if not (mends and each.code in ("intent", "faulty")))


def _not_free(lab: Lab, need: Need, rows: list[DutRow], for_us: int) -> Refused:
    row = rows[0]
    why = [_with_holder(lab, reason, row) for reason in _in_the_way(lab, need, row, for_us)]
    what = "; ".join(why) or f"jobs that were submitted before wait for DUT {row.dut.id}"
    more = f" (and {len(rows) - 1} more DUTs)" if len(rows) > 1 else ""
    return Refused("", f"{what}{more}", "stand in line with --wait", code="not_free")


def _with_holder(lab: Lab, reason: Reason, row: DutRow) -> str:
    return held_by(lab, row) if reason.code == "held" else reason.text


def held_by(lab: Lab, row: DutRow) -> str:
    """Say who holds a DUT: a job or a person; empty: nobody does."""
    lease = lab.people.leases.get(row.holder)
    if lease is not None:
        why = f" ({lease.reason})" if lease.reason else ""
        return f"DUT {row.dut.id} is leased by {lease.owner}{why}"
    attempt = lab.attempts.get(row.holder)
    if attempt is None:
        return f"DUT {row.dut.id} is held under fence {row.holder}" if row.holder else ""
    run = lab.runs[lab.jobs[attempt.job].run]
    return f"DUT {row.dut.id} is held by {attempt.job} ({run.name}) of {run.org}"


def _said(reasons: Iterable[Reason]) -> str:
    return "; ".join(reason.text for reason in reasons)


def on_take_over(decision: Decision, asked: LeaseAsked, is_operator: bool) -> Lease:
    """Give the DUT of somebody's lease to another person, who has said why.

    What the first one has open there ends: the fence is a new one. An operator takes over any
    lease, everybody those of their own org; a job is not taken over, it is cancelled.

    Raises:
        NotFound: there is no such DUT.
        PolicyDenied: it is of another org.
        Refused: no reason is given, or no person holds it.

    """
    lab = decision.lab
    row = lab.duts.get(DutId(asked.dut))
    if row is None:
        raise NotFound("dut", asked.dut, lab.duts)
    if not asked.reason.strip():
        raise Refused("reason", "a takeover needs one", "say why by --reason", code="reason")
    lease = lab.people.leases.get(row.holder)
    if lease is None:
        what = held_by(lab, row) or f"DUT {row.dut.id} is free"
        raise Refused("", f"no person holds it: {what}", "take it, or --wait", code="not_leased")
    if lease.org != asked.org and not is_operator:
        what = f"DUT {row.dut.id} is leased by {lease.owner}, of another org"
        raise PolicyDenied("lease", what, "ask them, or an operator")
    taker = f"{asked.org}/{asked.by}"
    hand_over(decision, lease, (asked.org, asked.by), taker, asked.reason)
    decision.happen(LeaseRenewed(fence=lease.fence, until=decision.now + asked.for_us))
    return lease


def on_renew(decision: Decision, org: OrgId, by: str, name: str, for_us: int) -> Lease:
    """Let the holder keep it for `for_us` from now on."""
    lease = owned(decision.lab, org, by, name)
    reserved = clash(decision.lab, lease.dut, decision.now + for_us, lease.id)
    if reserved is not None and reserved.owner != lease.owner:
        why = reservation_reason(decision.lab, reserved, for_us).text
        raise Refused("", why, "renew it for a shorter time", code="reserved")
    decision.happen(LeaseRenewed(fence=lease.fence, until=decision.now + for_us))
    decision.then(SendHold(lease.agent, lease.fence))
    return lease


def on_release(decision: Decision, org: OrgId, by: str, name: str) -> Lease | Ask:
    """Free the DUT; or leave the line. The next in line has it in this very turn."""
    ask = decision.lab.people.asks.get(name)
    if ask is not None:
        if (ask.org, ask.by) != (org, by):
            raise PolicyDenied("lease", f"{name} is of {ask.org}/{ask.by}")
        decision.happen(LeaseWithdrawn(lease=name, why=f"by {org}/{by}"))
        return ask
    lease = owned(decision.lab, org, by, name)
    end(decision, lease, "released", f"{org}/{by}")
    return lease


def on_share(decision: Decision, org: OrgId, by: str, name: str, shared: tuple[str, ...]) -> Lease:
    """Let others use the DUT too, or nobody else any more."""
    lease = owned(decision.lab, org, by, name)
    decision.happen(LeaseShared(fence=lease.fence, shared=shared))
    decision.then(SendHold(lease.agent, lease.fence))
    return lease


def on_transfer(
    decision: Decision, giver: tuple[OrgId, str], name: str, taker: tuple[OrgId, str], reason: str
) -> Lease:
    """Hand the DUT to another person, under a new fence: what the giver has open there ends."""
    lease = owned(decision.lab, *giver, name)
    hand_over(decision, lease, taker, "/".join(giver), reason)
    return lease


def hand_over(
    decision: Decision, lease: Lease, taker: tuple[OrgId, str], giver: str, reason: str
) -> None:
    old, org, by = lease.fence, taker[0], taker[1]
    new = next_fence(decision.lab)
    handed = LeaseHanded(fence=old, new=new, org=org, by=by, giver=giver, reason=reason)
    decision.happen(handed)
    decision.then(SendHold(lease.agent, new))


def owned(lab: Lab, org: OrgId, by: str, name: str) -> Lease:
    """Return the lease of this id or DUT, which this person owns.

    Raises:
        NotFound: there is none.
        PolicyDenied: it is somebody else's.

    """
    lease = lab.people.named(name)
    if lease is None:
        known = [word for each in lab.people.leases.values() for word in (each.id, each.dut)]
        raise NotFound("lease", name, known)
    _check_owner(lease, org, by)
    return lease


def _check_owner(lease: Lease, org: str, by: str) -> None:
    if f"{org}/{by}" != lease.owner:
        fix = f"ask them, or 'tshrag lease take {lease.dut} --takeover --reason WHY'"
        raise PolicyDenied("lease", f"{lease.id} of DUT {lease.dut} is of {lease.owner}", fix)


def _taken(name: str) -> Refused:
    return Refused("lease", f"{name} is taken", "ask under a new id", code="lease_taken")


def end(decision: Decision, lease: Lease, cause: str, by: str = "", reason: str = "") -> None:
    """Free the DUT of a lease."""
    agent, fence = lease.agent, lease.fence
    decision.happen(LeaseEnded(fence=fence, cause=cause, by=by, reason=reason))
    decision.then(SendRelease(agent, fence))


def on_lease_due(decision: Decision, fence: Fence) -> None:
    """End a lease that nobody has renewed, or used for as long as it may be idle."""
    lab = decision.lab
    lease = lab.people.leases.get(fence)
    if lease is None:
        return
    used = max(lease.touched, lab.indexes.active.get(fence, 0))
    if lease.until <= decision.now:
        end(decision, lease, "expired")
    elif lease.idle_us and used + lease.idle_us <= decision.now:
        end(decision, lease, "idle", reason=f"not used for {lease.idle_us / 60e6:g} min")
    elif lease.idle_us and used > lease.touched:
        set_timer(lab, used + lease.idle_us, "lease", str(fence))


def on_ask_due(decision: Decision, name: str) -> None:
    """Take somebody out of the line who has not asked again."""
    ask = decision.lab.people.asks.get(name)
    if ask is not None and ask.alive_until <= decision.now:
        decision.happen(LeaseWithdrawn(lease=name, why="nobody asked again"))


TIMERS: dict[str, Callable[[Decision, str], None]] = {
    "lease": lambda decision, name: on_lease_due(decision, Fence(int(name))),
    "ask": on_ask_due,
}
"""What time brings: the word of a timer, and what comes of it."""


def note_activity(lab: Lab, agent: AgentId, ago_s: dict[str, float], now: int) -> None:
    """Take in what an agent says of the use of its leased DUTs: fence -> seconds ago."""
    for text, seconds in ago_s.items():
        fence = Fence(int(text)) if text.isdigit() else Fence(0)
        lease = lab.people.leases.get(fence)
        if lease is not None and lease.agent == agent:
            used = now - round(seconds * S)
            lab.indexes.active[fence] = max(used, lab.indexes.active.get(fence, 0))


def marks_of(lab: Lab, agent: AgentId) -> list[tuple[Fence, int]]:
    """Return (fence, rev) of the leases that the agent should know of."""
    leases = (lab.people.leases[fence] for fence in lab.agents[agent].leases)
    return [(each.fence, each.rev) for each in leases if not lab.duts[each.dut].gone]


def revive_people(lab: Lab, now: int) -> None:
    """Set the timers that leases and the line had; nobody is idle for want of our knowledge."""
    for lease in lab.people.leases.values():
        set_timer(lab, lease.until, "lease", str(lease.fence))
        if lease.idle_us:
            lab.indexes.active[lease.fence] = now
            set_timer(lab, now + lease.idle_us, "lease", str(lease.fence))
    for ask in lab.people.asks.values():
        set_timer(lab, ask.alive_until, "ask", ask.id)
    for name, intent in lab.people.intents.items():
        if intent.until:
            set_timer(lab, intent.until, "intent", name)
    for each in lab.people.reservations.values():
        set_timer(lab, each.start, "reserve", each.id)
        set_timer(lab, each.end, "reserve", each.id)
