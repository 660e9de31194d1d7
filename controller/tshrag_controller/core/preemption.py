"""PURE: which attempts end so that somebody of higher priority can start; none ends for nothing.

Only what a profile allows (``preemptible``), only for who is far enough above in priority and
stands before it in the line, only where that really frees a place nobody ahead would take, and
only so often. Of those that would do, the one that loses the least work ends. A gang gives way as
a whole, and has as many end as all of it needs, or nobody. The same search decides and explains
(`note_of`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from tshrag_common.ids import AgentId, DutId, Fence, OrgId
from tshrag_controller.core.aside import set_aside
from tshrag_controller.core.binding import matched
from tshrag_controller.core.claims import Claim, Claims
from tshrag_controller.core.consumables import look_at, scarce
from tshrag_controller.core.decision import Decision, SendCancel
from tshrag_controller.core.freeing import MOST_TOGETHER, Room
from tshrag_controller.core.gangs import consumed_by, mates_of
from tshrag_controller.core.giving_way import Holding, Victim, Victims, lives
from tshrag_controller.core.lab import Attempt, Job, Lab, NeedKey, Way, is_kept
from tshrag_controller.core.order import Shares, order_of
from tshrag_controller.core.places import Places, free_duts
from tshrag_controller.core.preempt_events import AttemptPreempted
from tshrag_controller.core.quotas import over_quota
from tshrag_controller.core.taking import Freed, frees

MOST_YOUNG = 32
"""Looked at of those that did not run long enough."""


class End(NamedTuple):
    """Who ends, for whom; ``way``: the places that are for him then, where it is not one alone."""

    claim: Claim
    victim: Victim
    way: Way | None


@dataclass(slots=True)
class Proposal:
    """What would end, for whom, and when it is worth to look again."""

    ends: list[End] = field(default_factory=list)
    pending: dict[str, list[Victim]] = field(default_factory=dict)  # who waits for what is ending
    later: dict[str, int] = field(default_factory=dict)  # who could have something when


def preempt(decision: Decision) -> None:
    """Tell to end what has to give way, and look again when something may."""
    found = propose(decision.lab, decision.now)
    for claim, victim, way in found.ends:
        said = f"it gives way to {claim.name} of priority {claim.run.priority}"
        duts, slots = (way.duts, way.slots) if way is not None else ((), ())
        for job in victim.jobs:  # of a gang also those that have passed: they go again too
            name, fence = claim.name, job.fence
            decision.happen(
                AttemptPreempted(
                    job=job.id, fence=fence, by=name, said=said, duts=duts, slots=slots
                )
            )
        for attempt in victim.attempts:
            decision.then(SendCancel(attempt.agent, attempt.fence))
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
    claims = Claims(lab, now, lowest + lab.policy.preempt_gap).first()
    if not any(claim.may for claim in claims):
        return Proposal()
    return _Search(lab, now).run(claims)


def note_of(lab: Lab, job: Job, now: int) -> str:
    """Say what preemption does, or will do, for a job that waits; empty: nothing."""
    run, found = lab.runs[job.run], propose(lab, now)
    mates = mates_of(lab, job)
    names: set[str] = {mate.id for mate in mates} if mates else {job.id}
    if not mates and is_kept(run.spec(job).need):
        names.add(run.id)
    ending = [victim for name in names for victim in found.pending.get(name, ())]
    ending += [end.victim for end in found.ends if end.claim.name in names]
    if ending:
        jobs = ", ".join(str(job.id) for victim in ending for job in victim.jobs)
        return f"{jobs} of lower priority is ended for it"
    later = min((found.later[name] for name in names if name in found.later), default=0)
    if later:
        return f"in {(later - now) / 1e6:.0f} s something of lower priority may be ended for it"
    return ""


class _Found(NamedTuple):
    """Who has to end, and the places that are had then."""

    victims: list[Victim]
    duts: tuple[DutId, ...] = ()
    slots: tuple[tuple[AgentId, int], ...] = ()


class _Search:
    """What can be had for those who wait, the first of the line first."""

    def __init__(self, lab: Lab, now: int) -> None:
        self._lab, self._now = lab, now
        self._shares = Shares(lab, now)
        self._more: Counter[OrgId] = Counter()  # DUTs that orgs will have by this
        self._victims = Victims(lab, now)
        self._all_aside = set_aside(lab, now)
        self._aside: frozenset[DutId] = frozenset()  # for who stands before this one
        self._used: set[Fence] = set()
        self._ahead: list[NeedKey] = []  # of those before in the line that have no place
        self._in_vain: dict[tuple[NeedKey, ...], int] = {}  # highest priority that found nothing
        self._found = Proposal()

    def run(self, claims: Iterable[Claim]) -> Proposal:
        for claim in claims:
            if self._is_stopped(claim):
                continue
            aside = self._all_aside.items()
            self._aside = frozenset(dut for dut, order in aside if order < claim.order)
            if not claim.may or not self._serve(claim):
                self._ahead += [key for key in claim.keys if key not in self._ahead]
        return self._found

    def _serve(self, claim: Claim) -> bool:
        """Find what has to end for a claim, as little as can be; false: nothing helps."""
        if not claim.gang and claim.run.priority <= self._in_vain.get(claim.keys, -1):
            return False  # who stands behind one that found nothing finds nothing either
        first = self._lab.indexes.needs[claim.keys[0]]
        if not claim.gang and first.group is not None and free_duts(self._lab, first, claim.run):
            return False  # it waits for a setup by its own will
        found = self._search(claim)
        if found is None:
            if not claim.avoid and not claim.gang:
                self._in_vain[claim.keys] = claim.run.priority
            return False
        needs = [self._lab.indexes.needs[key] for key in claim.keys]
        self._more[claim.run.org] += sum(need.wants_dut for need in needs)
        way = Way(claim.name, found.duts, found.slots) if len(claim.keys) > 1 else None
        for victim in found.victims:
            self._used.add(victim.name)
            if victim.is_ending:
                self._found.pending.setdefault(claim.name, []).append(victim)
            else:
                self._found.ends.append(End(claim, victim, way))
        return True

    def _search(self, claim: Claim) -> _Found | None:
        """Find who has to end; where nobody helps now, note when somebody may."""
        on_duts = self._lab.indexes.needs[claim.keys[0]].wants_dut
        if claim.gang:
            return self._for_gang(claim)
        found = self._on_duts(claim) if on_duts else self._on_hosts(claim)
        if found is None:
            self._look_later(claim, on_duts)
        return found

    def _is_stopped(self, claim: Claim) -> bool:
        """Tell whether it could start nowhere: for want of a licence, or beyond its quota."""
        needs = [self._lab.indexes.needs[key] for key in claim.keys]
        if any(scarce(self._lab, need, self._now) for need in needs):
            return True
        if claim.gang and scarce(self._lab, consumed_by(claim.run, claim.gang), self._now):
            return True
        on_duts = sum(need.wants_dut for need in needs)
        more = on_duts + self._more[claim.run.org]
        return bool(on_duts) and bool(over_quota(self._lab, claim.run.org, more))

    def _for_gang(self, claim: Claim) -> _Found | None:
        """Return who has to end so that all of a gang have places; none of these can be spared."""
        room = Room(self._lab, claim, self._aside, self._may, self._frees)
        useful = [each for each in self._victims.all if self._is_below(each, claim)]
        useful = [each for each in useful if room.is_useful(each)]
        ripe = [each for each in useful if self._victims.is_ripe(each)][:MOST_TOGETHER]
        victims = room.fewest(ripe)
        if victims is None:
            if room.seats(useful[:MOST_TOGETHER]) is not None:
                began_at = (each.began_at for each in useful if not self._victims.is_ripe(each))
                self._note_later(claim, began_at)
            return None
        return _Found(victims, *room.places(victims))

    def _on_duts(self, claim: Claim) -> _Found | None:
        """Return whose DUTs, with those that are free, make a set for all needs.

        As many candidates a need as there are needs are enough for that.
        """
        most = len(claim.keys)
        of: dict[DutId, Victim] = {}
        candidates: dict[str, list[DutId]] = {}
        for number, key in enumerate(claim.keys):
            fits = (each for each in self._victims.ripe(key) if self._may(each, claim, key))
            found = {dut: each.victim for each in islice(fits, most) if (dut := each.attempt.dut)}
            of.update(found)
            candidates[str(number)] = [*self._free(claim, key, most), *found]
        given = matched(candidates)
        if given is None:
            return None
        victims = {victim.name: victim for victim in of.values()}
        for name, _ in sorted(victims.items(), key=lambda each: each[1].lost_us, reverse=True):
            theirs = {dut for dut, victim in of.items() if victim.name == name}
            less = {role: [d for d in duts if d not in theirs] for role, duts in candidates.items()}
            spared = matched(less)
            if spared is not None:  # it goes without this one
                candidates, given = less, spared
        ending = {of[dut].name for dut in given.values() if dut in of}
        return _Found([victims[name] for name in sorted(ending)], tuple(sorted(given.values())))

    def _free(self, claim: Claim, key: NeedKey, most: int) -> list[DutId]:
        """Return free DUTs for one of several needs; a single one would have got it."""
        if most < 2:
            return []
        places = Places(self._lab, self._now)
        free = places.duts(key, claim.run, claim.avoid, most=most)
        places.close()
        return free

    def _on_hosts(self, claim: Claim) -> _Found | None:
        """Return who has to leave a host; of all hosts that where the least work is lost."""
        offers: list[tuple[int, AgentId, list[Victim]]] = []
        for host, shelf in self._victims.on_hosts.items():
            may = _once(each.victim for each in shelf.ripe if self._is_below(each.victim, claim))
            if may:
                offers.append((may[0].lost_us, host, may))
        best: list[Victim] | None = None
        best_us = 0
        for least_us, host, victims in sorted(offers, key=lambda offer: offer[:2]):
            if best is not None and least_us >= best_us:
                break  # no other host can do with less
            found = self._from_host(claim, host, victims)
            lost = sum(each.lost_us for each in found or ())
            if found is not None and (best is None or lost < best_us):
                best, best_us = found, lost
        return _Found(best) if best is not None else None

    def _from_host(
        self, claim: Claim, host: AgentId, victims: Sequence[Victim]
    ) -> list[Victim] | None:
        chosen: list[Victim] = []

        def does(these: Iterable[Victim]) -> bool:
            attempts = [attempt for each in these for attempt in each.attempts]
            return self._frees(claim, claim.keys[0], host, None, attempts)

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
        if victim.name in self._used or victim.is_ending:
            return victim.name not in self._used
        run = victim.run
        if run.priority + self._lab.policy.preempt_gap > claim.run.priority:
            return False
        order = order_of(self._lab, run, victim.jobs[0])
        return (order[0] + self._shares.points(run.org), *order[1:]) > claim.score

    def _may(self, holding: Holding, claim: Claim, key: NeedKey) -> bool:
        """Tell whether the end of an attempt on a DUT gives a claim what it needs."""
        attempt = holding.attempt
        if not self._is_below(holding.victim, claim) or attempt.dut in claim.avoid:
            return False
        if not self._victims.lets_go(holding):
            return False
        return self._frees(claim, key, attempt.agent, attempt.dut, holding.victim.attempts)

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
        found: list[Holding] = []
        for key in claim.keys if on_duts else ():
            young = islice(self._victims.young(key), MOST_YOUNG)
            found += islice((each for each in young if self._may(each, claim, key)), 1)
        for host, shelf in () if on_duts else self._victims.on_hosts.items():
            young = islice(shelf.young, MOST_YOUNG)
            below = (each for each in young if self._is_below(each.victim, claim))
            found += islice((each for each in below if self._fits_host(claim, host)), 1)
        self._note_later(claim, (each.victim.began_at for each in found))

    def _note_later(self, claim: Claim, began_at: Iterable[int]) -> None:
        first = min(began_at, default=None)
        if first is not None:
            after_us = round(self._lab.policy.preempt_after_s * 1e6)
            self._found.later[claim.name] = first + after_us

    def _fits_host(self, claim: Claim, host: AgentId) -> bool:
        """Tell whether a host would do if all that may give way there were over."""
        shelf = self._victims.on_hosts[host]
        those = _once(each.victim for each in (*shelf.ripe, *shelf.young))
        below = [each for each in those if self._is_below(each, claim)]
        attempts = [attempt for each in below for attempt in each.attempts]
        return self._frees(claim, claim.keys[0], host, None, attempts)


def _once(victims: Iterable[Victim]) -> list[Victim]:
    """Return them without those that came before: a gang may have several places on a host."""
    return list({victim.name: victim for victim in victims}.values())
