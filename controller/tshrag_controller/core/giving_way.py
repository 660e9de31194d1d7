"""PURE: the attempts that may give way, sorted by what is lost with them.

Made once a pass. Those of one class of DUTs, or of one host, stand together, the youngest first: a
search takes the first that does, and looks at no others.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from heapq import merge
from typing import NamedTuple

from tshrag_common.ids import AgentId, DutId, Fence, job_of
from tshrag_common.states import JobState
from tshrag_controller.core.idle import classes_of
from tshrag_controller.core.lab import PREEMPTED, Attempt, Job, Lab, NeedKey, Run, is_kept
from tshrag_controller.core.queues import roles_to_bind


class Victim(NamedTuple):
    """An attempt that may be ended, or that is being ended already."""

    attempt: Attempt
    job: Job
    run: Run

    @property
    def is_ending(self) -> bool:
        return self.job.stop == PREEMPTED


def lives(attempt: Attempt | None) -> bool:
    return attempt is not None and not attempt.outcome


def lost_us(victim: Victim, now: int) -> int:
    """Return the work that is lost; none where it ends anyway."""
    return 0 if victim.is_ending else now - victim.attempt.started_at


def _age(victim: Victim) -> int:
    """Return the key of the order: what ends anyway, then the youngest."""
    return -(1 << 62) if victim.is_ending else -victim.attempt.started_at


class Victims:
    """All that may give way at an instant."""

    def __init__(self, lab: Lab, now: int) -> None:
        self._lab = lab
        self.old_enough = now - round(lab.policy.preempt_after_s * 1e6)  # who began until then
        self.on_duts: dict[bytes, list[Victim]] = {}
        self.on_hosts: dict[AgentId, list[Victim]] = {}
        self._lets: dict[Fence, bool] = {}
        for fence in sorted(lab.indexes.preemptible):
            self._add(fence)
        for those in (*self.on_duts.values(), *self.on_hosts.values()):
            those.sort(key=_age)

    def _add(self, fence: Fence) -> None:
        lab = self._lab
        attempt = lab.attempts[fence]
        job = lab.jobs[attempt.job]
        victim = Victim(attempt, job, lab.runs[job.run])
        may = not job.stop and attempt.started_at and job.preempted < lab.policy.preempt_most
        if job.fence != fence or not (may or victim.is_ending):
            return
        if attempt.dut is None:
            self.on_hosts.setdefault(attempt.agent, []).append(victim)
        elif attempt.dut in lab.indexes.idle.dut_class:
            key = lab.indexes.idle.dut_class[attempt.dut]
            self.on_duts.setdefault(key, []).append(victim)

    def old(self, key: NeedKey) -> Iterator[Victim]:
        """Yield those on DUTs that fit who ran long enough, the least loss first."""
        return merge(*(self.ripe(each) for each in self._fitting(key)), key=_age)

    def young(self, key: NeedKey) -> Iterator[Victim]:
        """Yield those on DUTs that fit who do not yet, the next to do first."""
        return merge(*(self.unripe(each) for each in self._fitting(key)), key=lambda v: -_age(v))

    def ripe(self, those: list[Victim]) -> Iterator[Victim]:
        """Yield those who end anyway, then those who ran long enough."""
        for victim in those:
            if not victim.is_ending:
                break
            yield victim
        yield from those[self._first_old(those) :]

    def unripe(self, those: list[Victim]) -> Iterator[Victim]:
        young = those[: self._first_old(those)]
        return (victim for victim in reversed(young) if not victim.is_ending)

    def _first_old(self, those: list[Victim]) -> int:
        return bisect_left(those, -self.old_enough, key=_age)

    def _fitting(self, key: NeedKey) -> Iterable[list[Victim]]:
        fits = classes_of(self._lab, key)
        return [those for each, those in self.on_duts.items() if each in fits]

    def lets_go(self, victim: Victim) -> bool:
        """Tell whether the run of a victim gives its DUT back: it has done nothing else on it."""
        fence = victim.attempt.fence
        if fence not in self._lets:
            self._lets[fence] = _lets_go(self._lab, victim, victim.attempt.dut)
        return self._lets[fence]


def _lets_go(lab: Lab, victim: Victim, dut: DutId | None) -> bool:
    row, run = lab.duts.get(dut) if dut else None, victim.run
    if row is None or row.holder != victim.attempt.fence:
        return False
    if row.kept_by is None:
        return True
    role = run.spec(victim.job).need.role
    is_only = set(run.bound) == {role} and not roles_to_bind(lab, run)
    if row.kept_by != run.id or not is_only or not is_kept(run.spec(victim.job).need):
        return False
    jobs = (lab.jobs[job_of(run.id, planned.serial)] for planned in run.plan.jobs)
    return all(
        each.state is JobState.WAITING or each is victim.job
        for each in jobs
        if run.spec(each).need.role == role and is_kept(run.spec(each).need)
    )
