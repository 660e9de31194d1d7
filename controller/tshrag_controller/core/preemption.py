"""PURE: which attempts end so that somebody of higher priority can start; none ends for nothing.

Only what a profile allows (``preemptible``), only for who is far enough above in priority and
stands before it in the line, only where that really frees a place nobody ahead would take, and
only so often. Of those that would do, the one that loses the least work ends. The same search
decides and explains (`note_of`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import NamedTuple

from tshrag_common.ids import AgentId, DutId, Fence, OrgId, job_of
from tshrag_common.states import JobState
from tshrag_controller.core.binding import matched
from tshrag_controller.core.consumables import look_at, scarce
from tshrag_controller.core.decision import Decision, SendCancel
from tshrag_controller.core.gangs import ready_of
from tshrag_controller.core.lab import (
    PREEMPTED,
    Attempt,
    Job,
    Lab,
    NeedKey,
    Order,
    Run,
    is_kept,
)
from tshrag_controller.core.order import Shares, order_of
from tshrag_controller.core.places import Places, free_duts
from tshrag_controller.core.preempt_events import AttemptPreempted
from tshrag_controller.core.queues import roles_to_bind
from tshrag_controller.core.quotas import over_quota
from tshrag_controller.core.starting import is_startable
from tshrag_controller.core.taking import Freed, frees

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
    for fence in [fence for fence in fences if not _lives(lab.attempts.get(fence))]:
        fences.discard(fence)
    if not fences or not lab.policy.preempt_most:
        return Proposal()
    search = _Search(lab, now)
    try:
        return search.run()
    finally:
        search.places.close()


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


def _lives(attempt: Attempt | None) -> bool:
    return attempt is not None and not attempt.outcome


class _Victim(NamedTuple):
    attempt: Attempt
    job: Job
    run: Run
    score: Order


class _Search:
    """One look at all who wait, the first of the line first."""

    def __init__(self, lab: Lab, now: int) -> None:
        self._lab, self._now, self._policy = lab, now, lab.policy
        self._shares = Shares(lab, now)
        self._more: Counter[OrgId] = Counter()  # DUTs that orgs will have by this
        self.places = Places(lab, now)
        self._victims = [self._victim(fence) for fence in sorted(lab.indexes.preemptible)]
        self._lowest = min(victim.run.priority for victim in self._victims)
        self._used: set[Fence] = set()
        self._ahead: list[NeedKey] = []  # of those before in the line that have no place
        self._found = Proposal()

    def run(self) -> Proposal:
        for claim in self._claims():
            if self._is_stopped(claim):
                continue
            if not claim.may or not self._serve(claim):
                self._ahead += claim.keys
        return self._found

    def _victim(self, fence: Fence) -> _Victim:
        attempt = self._lab.attempts[fence]
        job = self._lab.jobs[attempt.job]
        run = self._lab.runs[job.run]
        return _Victim(attempt, job, run, self._scored(order_of(self._lab, run, job), run))

    def _scored(self, order: Order, run: Run) -> Order:
        return (order[0] + self._shares.points(run.org), *order[1:])

    def _claims(self) -> list[Claim]:
        return nsmallest(MOST_HEADS, self._all(), key=lambda claim: claim.score)

    def _all(self) -> Iterator[Claim]:
        yield from self._jobs()
        yield from self._bindings()
        yield from self._gangs()

    def _jobs(self) -> Iterator[Claim]:
        lab = self._lab
        for (key, _), queue in lab.indexes.ready.items():
            for order, name in nsmallest(MOST_OF_QUEUE, queue):
                job = lab.jobs.get(name)
                if is_startable(job, self._now):
                    yield self._claim(order, lab.runs[job.run], name, (key,), job.avoid)

    def _bindings(self) -> Iterator[Claim]:
        lab = self._lab
        for (keys, _), runs in lab.indexes.binding.items():
            for order, run_name in nsmallest(MOST_OF_QUEUE, runs):
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
                score = self._scored(order_of(lab, run, jobs[0]), run)
                yield Claim(score, run, run_name, keys, (), may=False)

    def _claim(
        self, order: Order, run: Run, name: str, keys: tuple[NeedKey, ...], avoid: tuple[str, ...]
    ) -> Claim:
        may = run.priority >= self._lowest + self._policy.preempt_gap
        return Claim(self._scored(order, run), run, name, keys, avoid, may)

    def _serve(self, claim: Claim) -> bool:
        """Find what has to end for a claim, as little as can be; false: nothing helps."""
        first = self._lab.indexes.needs[claim.keys[0]]
        if first.group is not None and free_duts(self._lab, first, claim.run):
            return False  # it waits for a setup by its own will
        ending = self._on_duts(claim) if first.wants_dut else self._on_hosts(claim)
        if ending is None:
            return False
        if first.wants_dut:
            self._more[claim.run.org] += len(claim.keys)
        for victim in ending:
            fence = victim.attempt.fence
            self._used.add(fence)
            if victim.job.stop:
                self._found.pending.setdefault(claim.name, []).append(fence)
            else:
                self._found.ends.append((claim, fence))
        self._found.later.pop(claim.name, None)
        return True

    def _is_stopped(self, claim: Claim) -> bool:
        """Tell whether it could start nowhere: for want of a licence, or beyond its quota."""
        needs = [self._lab.indexes.needs[key] for key in claim.keys]
        if any(scarce(self._lab, need, self._now) for need in needs):
            return True
        on_duts = sum(need.wants_dut for need in needs)
        more = on_duts + self._more[claim.run.org]
        return bool(on_duts) and bool(over_quota(self._lab, claim.run.org, more))

    def _on_duts(self, claim: Claim) -> list[_Victim] | None:
        """Return whose DUTs, with those that are free, make a set for all needs."""
        of: dict[DutId, _Victim] = {}
        candidates: dict[str, list[DutId]] = {}
        for number, key in enumerate(claim.keys):
            free: list[DutId] = []
            if len(claim.keys) > 1:
                free = self.places.duts(key, claim.run, claim.avoid, most=len(claim.keys))
            found = {}
            for victim in self._giving(claim):
                dut = victim.attempt.dut
                if dut is not None and self._frees(victim, claim, key):
                    found[dut] = victim
            of.update(found)
            ranked = sorted(found, key=lambda dut: self._lost(found[dut]))
            candidates[str(number)] = [*free, *ranked]
        given = matched(candidates)
        if given is None:
            return None
        for dut in sorted(of, key=lambda dut: self._lost(of[dut]), reverse=True):
            less = {role: [d for d in duts if d != dut] for role, duts in candidates.items()}
            spared = matched(less)
            if spared is not None:  # it goes without this one
                candidates, given = less, spared
        return [of[dut] for dut in given.values() if dut in of]

    def _on_hosts(self, claim: Claim) -> list[_Victim] | None:
        """Return who has to leave a host; of all hosts that where the least work is lost."""
        by_host: dict[AgentId, list[_Victim]] = {}
        for victim in self._giving(claim):
            by_host.setdefault(victim.attempt.agent, []).append(victim)
        best: list[_Victim] | None = None
        for host, victims in sorted(by_host.items()):
            found = self._from_host(claim, host, sorted(victims, key=self._lost))
            if found is not None and (best is None or self._sum(found) < self._sum(best)):
                best = found
        return best

    def _from_host(
        self, claim: Claim, host: AgentId, victims: Sequence[_Victim]
    ) -> list[_Victim] | None:
        chosen: list[_Victim] = []

        def does(these: Iterable[_Victim]) -> bool:
            attempts = [each.attempt for each in these]
            freed = Freed(claim.run, claim.keys[0], host, None, attempts)
            return frees(self._lab, freed, self._ahead, claim.score, self._now)

        for victim in victims:
            chosen.append(victim)
            if does(chosen):
                for each in reversed(list(chosen)):
                    rest = [other for other in chosen if other is not each]
                    if rest and does(rest):
                        chosen = rest
                return chosen
        return None

    def _giving(self, claim: Claim) -> Iterator[_Victim]:
        """Yield who may have to give way to a claim, and note who may later."""
        policy = self._policy
        for victim in self._victims:
            attempt, job = victim.attempt, victim.job
            if attempt.fence in self._used or (job.stop and job.stop != PREEMPTED):
                continue
            if job.stop == PREEMPTED:
                yield victim  # it ends anyway
                continue
            is_below = victim.run.priority + policy.preempt_gap <= claim.run.priority
            if not is_below or victim.score <= claim.score or job.fence != attempt.fence:
                continue
            if job.preempted >= policy.preempt_most or not attempt.started_at:
                continue
            may_from = attempt.started_at + round(policy.preempt_after_s * 1e6)
            if may_from <= self._now:
                yield victim
            elif any(self._frees(victim, claim, key) for key in claim.keys):
                known = self._found.later.get(claim.name, may_from)
                self._found.later[claim.name] = min(known, may_from)

    def _frees(self, victim: _Victim, claim: Claim, key: NeedKey) -> bool:
        attempt = victim.attempt
        if attempt.dut is not None and attempt.dut in claim.avoid:
            return False
        if attempt.dut is not None and not self._lets_go(victim):
            return False
        freed = Freed(claim.run, key, attempt.agent, attempt.dut, [attempt])
        return frees(self._lab, freed, self._ahead, claim.score, self._now)

    def _lets_go(self, victim: _Victim) -> bool:
        """Tell whether the run of a victim gives its DUT back: it has done nothing else on it."""
        lab, run, attempt = self._lab, victim.run, victim.attempt
        row = lab.duts.get(attempt.dut) if attempt.dut else None
        if row is None or row.holder != attempt.fence:
            return False
        if row.kept_by is None:
            return True
        role = run.spec(victim.job).need.role
        is_only = set(run.bound) == {role} and not roles_to_bind(lab, run)
        if row.kept_by != run.id or not is_only or not is_kept(run.spec(victim.job).need):
            return False
        serials = (planned.serial for planned in run.plan.jobs)
        others = (lab.jobs[job_of(run.id, serial)] for serial in serials)
        return all(
            each.state is JobState.WAITING or each is victim.job
            for each in others
            if run.spec(each).need.role == role and is_kept(run.spec(each).need)
        )

    def _lost(self, victim: _Victim) -> tuple[int, Fence]:
        """Return the work that is lost; none where it ends anyway."""
        if victim.job.stop:
            return (0, victim.attempt.fence)
        return (self._now - victim.attempt.started_at, victim.attempt.fence)

    def _sum(self, victims: Sequence[_Victim]) -> int:
        return sum(self._lost(victim)[0] for victim in victims)
