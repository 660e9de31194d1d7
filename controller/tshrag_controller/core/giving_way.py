"""PURE: the attempts that may give way, sorted by what is lost with them.

What started together ends together: a gang is one victim that holds several places. Made once a
pass. The places of one class of DUTs, or of one host, stand together, the least loss first: a
search takes the first that does, and looks at no others.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from typing import NamedTuple

from tshrag_common.ids import AgentId, Fence, job_of
from tshrag_common.states import JOB, JobState
from tshrag_controller.core.gangs import is_spoilt, mates_of
from tshrag_controller.core.idle import classes_of
from tshrag_controller.core.lab import PREEMPTED, Attempt, Job, Lab, NeedKey, Run, is_kept
from tshrag_controller.core.queues import roles_to_bind


class Victim(NamedTuple):
    """A job, or all that started together, that may be ended, or that is being ended already."""

    run: Run
    jobs: tuple[Job, ...]
    attempts: tuple[Attempt, ...]  # that live, the lowest fence first
    is_ending: bool
    began_at: int  # the youngest of them
    lost_us: int  # the work that is lost; none where it ends anyway

    @property
    def name(self) -> Fence:
        return self.attempts[0].fence


class Holding(NamedTuple):
    """A place that a victim has."""

    victim: Victim
    attempt: Attempt


@dataclass(slots=True)
class Shelf:
    """The places of one class of DUTs, or of one host."""

    ripe: list[Holding] = field(default_factory=list)  # may end now: the least loss first
    young: list[Holding] = field(default_factory=list)  # ran too short: the next to do first


def lives(attempt: Attempt | None) -> bool:
    return attempt is not None and not attempt.outcome


def _loss(holding: Holding) -> tuple[int, Fence]:
    return holding.victim.lost_us, holding.attempt.fence


def _ripens(holding: Holding) -> tuple[int, Fence]:
    return holding.victim.began_at, holding.attempt.fence


class Victims:
    """All that may give way at an instant."""

    def __init__(self, lab: Lab, now: int) -> None:
        self._lab, self._now = lab, now
        self._old_enough = now - round(lab.policy.preempt_after_s * 1e6)  # who began until then
        self._on_duts: dict[bytes, Shelf] = {}
        self.on_hosts: dict[AgentId, Shelf] = {}
        self.all: list[Victim] = []
        self._lets: dict[Fence, bool] = {}
        seen: set[Fence] = set()
        for fence in sorted(lab.indexes.preemptible):
            victim = self._victim(fence) if fence not in seen else None
            if victim is not None:
                seen.update(each.fence for each in victim.attempts)
                self._shelve(victim)
        for shelf in (*self._on_duts.values(), *self.on_hosts.values()):
            shelf.ripe.sort(key=_loss)
            shelf.young.sort(key=_ripens)
        self.all.sort(key=lambda victim: (victim.lost_us, victim.name))

    def _victim(self, fence: Fence) -> Victim | None:
        """Return what would end with an attempt; None where not all of it may."""
        lab = self._lab
        job = lab.jobs[lab.attempts[fence].job]
        run = lab.runs[job.run]
        jobs = tuple(mates_of(lab, job)) or (job,)
        if job.fence != fence or any(not self._may(run, each) for each in jobs):
            return None
        tries = [lab.attempts[each.fence] for each in jobs]
        living = tuple(sorted(filter(lives, tries), key=lambda each: each.fence))
        is_ending = any(each.stop == PREEMPTED for each in jobs)
        if not is_ending and any(
            each.stop or not lab.attempts[each.fence].started_at for each in jobs
        ):
            return None
        lost_us = 0 if is_ending else sum(self._now - each.started_at for each in tries)
        began_at = max(each.started_at for each in tries)
        return Victim(run, jobs, living, is_ending, began_at, lost_us)

    def _may(self, run: Run, job: Job) -> bool:
        is_over = JOB.is_final(job.state) or job.fence not in self._lab.attempts
        if is_over or not run.spec(job).preemptible:
            return False
        most = self._lab.policy.preempt_most
        return job.stop == PREEMPTED or (job.preempted < most and not is_spoilt(self._lab, job))

    def _shelve(self, victim: Victim) -> None:
        self.all.append(victim)
        for attempt in victim.attempts:
            shelf: Shelf | None = None
            if attempt.dut is None:
                shelf = self.on_hosts.setdefault(attempt.agent, Shelf())
            elif attempt.dut in self._lab.indexes.idle.dut_class:
                key = self._lab.indexes.idle.dut_class[attempt.dut]
                shelf = self._on_duts.setdefault(key, Shelf())
            if shelf is not None:
                those = shelf.ripe if self.is_ripe(victim) else shelf.young
                those.append(Holding(victim, attempt))

    def is_ripe(self, victim: Victim) -> bool:
        """Tell whether it may end now: it ends anyway, or ran long enough."""
        return victim.is_ending or victim.began_at <= self._old_enough

    def ripe(self, key: NeedKey) -> Iterator[Holding]:
        """Yield the fitting DUTs of those who may end now, the least loss first."""
        return merge(*(shelf.ripe for shelf in self._fitting(key)), key=_loss)

    def young(self, key: NeedKey) -> Iterator[Holding]:
        """Yield those of who may not yet, the next to do first."""
        return merge(*(shelf.young for shelf in self._fitting(key)), key=_ripens)

    def _fitting(self, key: NeedKey) -> Iterable[Shelf]:
        fits = classes_of(self._lab, key)
        return [shelf for each, shelf in self._on_duts.items() if each in fits]

    def lets_go(self, holding: Holding) -> bool:
        """Tell whether the run of a victim gives its DUT back: it has done nothing else on it."""
        fence = holding.attempt.fence
        if fence not in self._lets:
            self._lets[fence] = _lets_go(self._lab, holding.victim, holding.attempt)
        return self._lets[fence]


def _lets_go(lab: Lab, victim: Victim, attempt: Attempt) -> bool:
    row, run = lab.duts.get(attempt.dut) if attempt.dut else None, victim.run
    if row is None or row.holder != attempt.fence:
        return False
    if row.kept_by is None:
        return True
    needs = (run.spec(job).need for job in victim.jobs)
    roles = {need.role for need in needs if is_kept(need)}
    is_only = set(run.bound) == roles and not roles_to_bind(lab, run)
    role = run.spec(lab.jobs[attempt.job]).need.role
    if row.kept_by != run.id or not is_only or role not in roles:
        return False
    own = {job.id for job in victim.jobs}
    jobs = (lab.jobs[job_of(run.id, planned.serial)] for planned in run.plan.jobs)
    return all(
        each.state is JobState.WAITING or each.id in own
        for each in jobs
        if run.spec(each).need.role == role and is_kept(run.spec(each).need)
    )
