"""PURE: what a rehearsal is judged by: waits, use of boards, fairness, setups, makespan."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import msgspec

from tshrag_common.inventory import AgentFacts
from tshrag_common.statistics import one_number
from tshrag_controller.rehearsal.stage import Outcome, Played


class Waits(msgspec.Struct, frozen=True):
    """Seconds from when a job could have started until it did."""

    jobs: int
    mean_s: float
    p50_s: float
    p95_s: float
    max_s: float
    served: float  # of the time from ready to end, the share in which it ran


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One policy's figures; shares are 0..1, None where there is nothing to share."""

    policy: str
    makespan_s: float  # from the first submission to the last end
    waits: Waits
    orgs: dict[str, Waits]
    classes: dict[str, Waits]
    fairness: float  # Jain's index over what orgs are served: 1: all alike, 1/n: one has all
    boards_busy: float | None
    slots_busy: float | None
    setups: int
    setups_avoided: int
    setup_saved_s: float
    unfit: dict[str, int]  # why no place of the lab could serve it -> jobs
    left: int  # jobs that never got a place
    took_s: float = 0.0  # of real time
    preempted: int = 0  # attempts that gave way: their work was lost
    faults: int = 0  # attempts that the lab failed: their work was lost
    given_up: int = 0  # jobs that were failed too often
    leases: int = 0  # that people had
    lease_p95_s: float = 0.0  # how long they waited for them
    unleased: int = 0  # leases that were refused, or never got a board


def figures(policy: str, hosts: Sequence[AgentFacts], outcome: Outcome) -> Figures:
    """Return the figures of what was played on `hosts`."""
    played = outcome.played
    orgs = _by(played, lambda each: each.line.org)
    served = {org: _waits(those).served for org, those in orgs.items()}
    first = min((each.ready_s for each in played), default=0.0)
    makespan_s = max((each.ended_s for each in played), default=0.0) - first
    unfit: dict[str, int] = defaultdict(int)
    for why in outcome.unfit:
        unfit[why] += 1
    boards = sum(len(host.duts) for host in hosts)
    slots = sum(host.slots for host in hosts)
    found = [each for each in played if each.setup == "found"]
    return Figures(
        policy=policy,
        makespan_s=makespan_s,
        waits=_waits(played),
        orgs={org: _waits(those) for org, those in sorted(orgs.items())},
        classes={name: _waits(those) for name, those in sorted(_by(played, _class).items())},
        fairness=jain(served.values()),
        boards_busy=_busy([(1, each) for each in played if each.on_dut], boards, makespan_s),
        slots_busy=_busy(
            [(each.line.need.slots, each) for each in played if not each.on_dut], slots, makespan_s
        ),
        setups=sum(each.setup == "made" for each in played),
        setups_avoided=len(found),
        setup_saved_s=sum(each.line.setup_s for each in found),
        unfit=dict(unfit),
        left=outcome.left,
        preempted=outcome.preempted,
        faults=outcome.faults,
        given_up=outcome.given_up,
        leases=len(outcome.leases),
        lease_p95_s=one_number("p95", (), sorted(outcome.leases)) or 0.0,
        unleased=outcome.unleased,
    )


def jain(shares: Iterable[float]) -> float:
    """Return Jain's index of fairness: (sum x)^2 / (n * sum x^2); 1 for none or one."""
    given = list(shares)
    squares = sum(share * share for share in given)
    return sum(given) ** 2 / (len(given) * squares) if squares else 1.0


def _class(each: Played) -> str:
    need = each.line.need
    if not each.on_dut:
        return "host"
    return each.line.kind or need.target.kind or need.role or "any DUT"


def _by(played: Sequence[Played], key: Callable[[Played], str]) -> dict[str, list[Played]]:
    found: dict[str, list[Played]] = defaultdict(list)
    for each in played:
        found[key(each)].append(each)
    return found


def _waits(played: Sequence[Played]) -> Waits:
    if not played:
        return Waits(0, 0.0, 0.0, 0.0, 0.0, 1.0)
    waits = sorted(each.began_s - each.ready_s for each in played)
    ran_s = sum(each.ended_s - each.began_s for each in played)
    whole_s = sum(each.ended_s - each.ready_s for each in played)
    return Waits(
        jobs=len(played),
        mean_s=sum(waits) / len(waits),
        p50_s=one_number("p50", (), waits) or 0.0,
        p95_s=one_number("p95", (), waits) or 0.0,
        max_s=waits[-1],
        served=ran_s / whole_s if whole_s else 1.0,
    )


def _busy(taken: Sequence[tuple[int, Played]], places: int, span_s: float) -> float | None:
    if not places or not span_s:
        return None
    return sum(each * (one.ended_s - one.began_s) for each, one in taken) / (places * span_s)
