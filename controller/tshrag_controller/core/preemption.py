"""PURE: which attempts end so that somebody of higher priority can start; none ends for nothing.

Only what a profile allows (``preemptible``), only for who is far enough above in priority and
stands before it in the line, only where that really frees a place nobody ahead would take, and
only so often. Of those that would do, the one that loses the least work ends. The same search
decides and explains (`note_of`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, nsmallest
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from tshrag_common.ids import AgentId, DutId, Fence, OrgId
from tshrag_controller.core.binding import matched
from tshrag_controller.core.consumables import look_at, scarce
from tshrag_controller.core.decision import Decision, SendCancel
from tshrag_controller.core.gangs import ready_of, set_aside
from tshrag_controller.core.giving_way import Victim, Victims, lives, lost_us
from tshrag_controller.core.lab import Attempt, Job, Lab, NeedKey, Order, Run, is_kept
from tshrag_controller.core.order import Shares, order_of
from tshrag_controller.core.places import Places, free_duts
from tshrag_controller.core.preempt_events import AttemptPreempted
from tshrag_controller.core.quotas import over_quota
from tshrag_controller.core.starting import is_startable
from tshrag_controller.core.taking import Freed, frees

T = TypeVar("T", bound=tuple[Any, ...])

MOST_YOUNG = 32
"""Looked at of those that did not run long enough."""
MOST_HEADS = 64
MOST_OF_QUEUE = 8
"""Those who stand first in their queues; the others come when these have started."""


class Claim(NamedTuple):
    """Somebody who waits. ``keys``: what he needs, all of it at once."""

    score: Order
    run: Run
    name: str
    keys: tuple[NeedKey, ...]
    avoid: tuple[str, ...]
    may: bool  # have others end


@dataclass(slots=True)
class Proposal:
    """What would end, for whom, and when it is worth to look again."""

    ends: list[tuple[Claim, Fence]] = field(default_factory=list)
    pending: dict[str, list[Fence]] = field(default_factory=dict)  # who waits for what is ending
    later: dict[str, int] = field(default_factory=dict)  # who could have something when


def preempt(decision: Decision) -> None:
    """Tell to end what has to give way, and look again when something may."""
    found = propose(decision.lab, decision.now)
    for claim, fence in found.ends:
        attempt = decision.lab.attempts[fence]
        said = f"it gives way to {claim.name} of priority {claim.run.priority}"
        decision.happen(AttemptPreempted(job=attempt.job, fence=fence, by=claim.name, said=said))
        decision.then(SendCancel(attempt.agent, fence))
    for at in found.later.values():
        look_at(decision.lab, at)


def propose(lab: Lab, now: int) -> Proposal:
    """Return what would end now."""
    fences = lab.indexes.preemptible
    for fence in [fence for fence in fences if not lives(lab.attempts.get(fence))]:
        fences.discard(fence)
    if not fences or not lab.policy.preempt_most:
        return Proposal()
    lowest = min(lab.runs[lab.jobs[lab.attempts[fence].job].run].priority for fence in fences)
    claims = _Claims(lab, now, lowest + lab.policy.preempt_gap).first()
    if not any(claim.may for claim in claims):
        return Proposal()
    return _Search(lab, now).run(claims)


def note_of(lab: Lab, job: Job, now: int) -> str:
    """Say what preemption does, or will do, for a job that waits; empty: nothing."""
    run, found = lab.runs[job.run], propose(lab, now)
    names = (job.id, run.id) if is_kept(run.spec(job).need) else (job.id,)
    ending = [fence for name in names for fence in found.pending.get(name, ())]
    ending += [fence for claim, fence in found.ends if claim.name in names]
    if ending:
        jobs = ", ".join(str(lab.attempts[fence].job) for fence in ending)
        return f"{jobs} of lower priority is ended for it"
    later = min((found.later[name] for name in names if name in found.later), default=0)
    if later:
        return f"in {(later - now) / 1e6:.0f} s something of lower priority may be ended for it"
    return ""


class _Claims:
    """All who wait, as far as they stand in front; `enough` is the priority to end anybody."""

    def __init__(self, lab: Lab, now: int, enough: int) -> None:
        self._lab, self._now, self._enough = lab, now, enough
        self._shares = Shares(lab, now)

    def first(self) -> list[Claim]:
        """Return those who stand first, in order."""
        everybody = (*self._jobs(), *self._bindings(), *self._gangs())
        return nsmallest(MOST_HEADS, everybody, key=lambda claim: claim.score)

    def _jobs(self) -> Iterator[Claim]:
        lab = self._lab
        for (key, _), queue in lab.indexes.ready.items():
            for order, name in front(queue, MOST_OF_QUEUE):
                job = lab.jobs.get(name)
                if is_startable(job, self._now):
                    yield self._claim(order, lab.runs[job.run], name, (key,), job.avoid)

    def _bindings(self) -> Iterator[Claim]:
        lab = self._lab
        for (keys, _), runs in lab.indexes.binding.items():
            for order, run_name in front(runs, MOST_OF_QUEUE):
                run = lab.runs.get(run_name)
                if run is not None and run_name in lab.indexes.wants_binding:
                    avoid = tuple(name for names in run.avoid.values() for name in names)
                    yield self._claim(order, run, run_name, keys, avoid)

    def _gangs(self) -> Iterator[Claim]:
        """Yield those that start together: they end nobody, but go before others."""
        lab = self._lab
        for run_name, gang in lab.indexes.gangs:
            jobs = ready_of(lab, run_name, gang, self._now) if run_name in lab.runs else []
            if jobs:
                run = lab.runs[run_name]
                keys = tuple(lab.need_key(run, job) for job in jobs)
                claim = self._claim(order_of(lab, run, jobs[0]), run, run_name, keys, ())
                yield claim._replace(may=False)

    def _claim(
        self, order: Order, run: Run, name: str, keys: tuple[NeedKey, ...], avoid: tuple[str, ...]
    ) -> Claim:
        score = (order[0] + self._shares.points(run.org), *order[1:])
        return Claim(score, run, name, keys, avoid, run.priority >= self._enough)


def front(heap: Sequence[T], most: int) -> list[T]:
    """Return the least of a heap, in order, without a look at the rest."""
    found: list[T] = []
    edge = [(heap[0], 0)] if heap else []
    while edge and len(found) < most:
        each, at = heappop(edge)
        found.append(each)
        for below in (2 * at + 1, 2 * at + 2):
            if below < len(heap):
                heappush(edge, (heap[below], below))
    return found


class _Search:
    """What can be had for those who wait, the first of the line first."""

    def __init__(self, lab: Lab, now: int) -> None:
        self._lab, self._now = lab, now
        self._shares = Shares(lab, now)
        self._more: Counter[OrgId] = Counter()  # DUTs that orgs will have by this
        self._victims = Victims(lab, now)
        self._aside = set_aside(lab, now)
        self._used: set[Fence] = set()
        self._ahead: list[NeedKey] = []  # of those before in the line that have no place
        self._in_vain: dict[tuple[NeedKey, ...], int] = {}  # highest priority that found nothing
        self._found = Proposal()

    def run(self, claims: Iterable[Claim]) -> Proposal:
        for claim in claims:
            if self._is_stopped(claim):
                continue
            if not claim.may or not self._serve(claim):
                self._ahead += [key for key in claim.keys if key not in self._ahead]
        return self._found

    def _serve(self, claim: Claim) -> bool:
        """Find what has to end for a claim, as little as can be; false: nothing helps."""
        if claim.run.priority <= self._in_vain.get(claim.keys, -1):
            return False  # who stands behind one that found nothing finds nothing either
        first = self._lab.indexes.needs[claim.keys[0]]
        if first.group is not None and free_duts(self._lab, first, claim.run):
            return False  # it waits for a setup by its own will
        ending = self._on_duts(claim) if first.wants_dut else self._on_hosts(claim)
        if ending is None:
            if not claim.avoid:
                self._in_vain[claim.keys] = claim.run.priority
            self._look_later(claim, first.wants_dut)
            return False
        if first.wants_dut:
            self._more[claim.run.org] += len(claim.keys)
        for victim in ending:
            fence = victim.attempt.fence
            self._used.add(fence)
            if victim.is_ending:
                self._found.pending.setdefault(claim.name, []).append(fence)
            else:
                self._found.ends.append((claim, fence))
        return True

    def _is_stopped(self, claim: Claim) -> bool:
        """Tell whether it could start nowhere: for want of a licence, or beyond its quota."""
        needs = [self._lab.indexes.needs[key] for key in claim.keys]
        if any(scarce(self._lab, need, self._now) for need in needs):
            return True
        on_duts = sum(need.wants_dut for need in needs)
        more = on_duts + self._more[claim.run.org]
        return bool(on_duts) and bool(over_quota(self._lab, claim.run.org, more))

    def _on_duts(self, claim: Claim) -> list[Victim] | None:
        """Return whose DUTs, with those that are free, make a set for all needs.

        As many candidates a need as there are needs are enough for that.
        """
        most = len(claim.keys)
        of: dict[DutId, Victim] = {}
        candidates: dict[str, list[DutId]] = {}
        for number, key in enumerate(claim.keys):
            fits = (each for each in self._victims.old(key) if self._may(each, claim, key))
            found = {each.attempt.dut: each for each in islice(fits, most) if each.attempt.dut}
            of.update(found)
            candidates[str(number)] = [*self._free(claim, key, most), *found]
        given = matched(candidates)
        if given is None:
            return None
        for dut in sorted(of, key=lambda dut: lost_us(of[dut], self._now), reverse=True):
            less = {role: [d for d in duts if d != dut] for role, duts in candidates.items()}
            spared = matched(less)
            if spared is not None:  # it goes without this one
                candidates, given = less, spared
        return [of[dut] for dut in given.values() if dut in of]

    def _free(self, claim: Claim, key: NeedKey, most: int) -> list[DutId]:
        """Return free DUTs for one of several needs; a single one would have got it."""
        if most < 2:
            return []
        places = Places(self._lab, self._now)
        free = places.duts(key, claim.run, claim.avoid, most=most)
        places.close()
        return free

    def _on_hosts(self, claim: Claim) -> list[Victim] | None:
        """Return who has to leave a host; of all hosts that where the least work is lost."""
        offers: list[tuple[int, AgentId, list[Victim]]] = []
        for host, those in self._victims.on_hosts.items():
            may = [each for each in self._victims.ripe(those) if self._is_below(each, claim)]
            if may:
                offers.append((lost_us(may[0], self._now), host, may))
        best: list[Victim] | None = None
        best_us = 0
        for least_us, host, victims in sorted(offers, key=lambda offer: offer[:2]):
            if best is not None and least_us >= best_us:
                break  # no other host can do with less
            found = self._from_host(claim, host, victims)
            lost = sum(lost_us(each, self._now) for each in found or ())
            if found is not None and (best is None or lost < best_us):
                best, best_us = found, lost
        return best

    def _from_host(
        self, claim: Claim, host: AgentId, victims: Sequence[Victim]
    ) -> list[Victim] | None:
        chosen: list[Victim] = []

        def does(these: Iterable[Victim]) -> bool:
            return self._frees(claim, claim.keys[0], host, None, [each.attempt for each in these])

        if not does(victims):
            return None
        for victim in victims:
            chosen.append(victim)
            if does(chosen):
                break
        for each in reversed(list(chosen)):
            rest = [other for other in chosen if other is not each]
            if rest and does(rest):
                chosen = rest
        return chosen

    def _is_below(self, victim: Victim, claim: Claim) -> bool:
        """Tell whether an attempt is so far below, and so far behind, that it may give way."""
        if victim.attempt.fence in self._used or victim.is_ending:
            return victim.attempt.fence not in self._used
        run = victim.run
        if run.priority + self._lab.policy.preempt_gap > claim.run.priority:
            return False
        order = order_of(self._lab, run, victim.job)
        return (order[0] + self._shares.points(run.org), *order[1:]) > claim.score

    def _may(self, victim: Victim, claim: Claim, key: NeedKey) -> bool:
        """Tell whether the end of an attempt on a DUT gives a claim what it needs."""
        attempt = victim.attempt
        if not self._is_below(victim, claim) or attempt.dut in claim.avoid:
            return False
        if not self._victims.lets_go(victim):
            return False
        return self._frees(claim, key, attempt.agent, attempt.dut, [attempt])

    def _frees(
        self,
        claim: Claim,
        key: NeedKey,
        host: AgentId,
        dut: DutId | None,
        without: Sequence[Attempt],
    ) -> bool:
        freed = Freed(claim.run, key, host, dut, without)
        return frees(self._lab, freed, self._ahead, claim.score, self._aside)

    def _look_later(self, claim: Claim, on_duts: bool) -> None:
        """Note when something that would do has run long enough."""
        found: list[Victim] = []
        for key in claim.keys if on_duts else ():
            young = islice(self._victims.young(key), MOST_YOUNG)
            found += islice((each for each in young if self._may(each, claim, key)), 1)
        for host, those in () if on_duts else self._victims.on_hosts.items():
            young = islice(self._victims.unripe(those), MOST_YOUNG)
            below = (each for each in young if self._is_below(each, claim))
            found += islice((each for each in below if self._fits_host(claim, host)), 1)
        if found:
            began = min(victim.attempt.started_at for victim in found)
            after_us = round(self._lab.policy.preempt_after_s * 1e6)
            self._found.later[claim.name] = began + after_us

    def _fits_host(self, claim: Claim, host: AgentId) -> bool:
        """Tell whether a host would do if all that may give way there were over."""
        those = self._victims.on_hosts[host]
        below = [each.attempt for each in those if self._is_below(each, claim)]
        return self._frees(claim, claim.keys[0], host, None, below)
