"""PURE: at the end of every turn, what is ready goes to where it fits. Nothing waits for a tick.

Queues hold equal needs, so the work of a pass is the number of queues plus the number of
placements: when the first of a queue finds no place, none behind it does. Among the heads of all
queues, of jobs and of runs that want DUTs to keep, the best goes first (`order`).
"""

from collections.abc import Sized
from heapq import heapify, heappop, heappush, heapreplace
from typing import TypeGuard

from tshrag_common import ids
from tshrag_common.ids import AgentId, DutId, RunId
from tshrag_common.states import JobCause, JobState, RunCause, RunState
from tshrag_controller.core.binding import match_roles
from tshrag_controller.core.consumables import look_again, scarce
from tshrag_controller.core.decision import Decision, SendStart
from tshrag_controller.core.events import JobAssigned, JobMoved, RolesBound, RunMoved
from tshrag_controller.core.follow import after_end
from tshrag_controller.core.health import serve_checks
from tshrag_controller.core.lab import Job, Lab, NeedKey, Order, Run
from tshrag_controller.core.line import serve_line
from tshrag_controller.core.on_reserve import serve_reservations
from tshrag_controller.core.order import Shares
from tshrag_controller.core.places import Places, is_free
from tshrag_controller.core.quotas import Quotas
from tshrag_controller.core.ways import way_for

MOST_PER_TURN = 4096
"""Assignments in one frame; the next turn goes on."""

MOST_BEHIND = 64
"""How far a pass looks behind the first of a queue, for one short enough for what is reserved."""

JobQueue = list[tuple[Order, ids.JobId]]
RunQueue = list[tuple[Order, RunId]]


def schedule(decision: Decision) -> None:
    """Give everything that can start now a place, and say so in events."""
    _end_own(decision)
    serve_reservations(decision)
    serve_line(decision)
    _start_kept(decision)
    indexes = decision.lab.indexes
    if indexes.ready or indexes.binding:
        _Pass(decision).run()
    serve_checks(decision)


def _end_own(decision: Decision) -> None:
    """End comments and nops at once, let sleeps begin: no agent is needed for these."""
    lab = decision.lab
    own = lab.indexes.own
    while own:
        job = lab.jobs.get(own.popleft())
        if job is None or job.state is not JobState.WAITING:
            continue
        run = lab.runs[job.run]
        _start_run(decision, run)
        spec = run.spec(job)
        if spec.kind == "sleep" and spec.sleep_s > 0:
            until = decision.now + round(spec.sleep_s * 1e6)
            decision.happen(JobMoved(job=job.id, cause=JobCause.START, until=until))
        else:
            decision.happen(JobMoved(job=job.id, cause=JobCause.PASS))
            after_end(decision, job)


def _start_run(decision: Decision, run: Run) -> None:
    if run.state is RunState.WAITING:
        decision.happen(RunMoved(run=run.id, cause=RunCause.START))


def _start_kept(decision: Decision) -> None:
    """Start jobs on the DUTs that their runs keep, where something has changed since."""
    lab = decision.lab
    look = [name for name in lab.indexes.look if name in lab.runs]
    for name in sorted(look, key=lambda name: lab.runs[name].order):
        if not _start_kept_of(decision, lab.runs[name]):
            lab.indexes.look.discard(name)


def _start_kept_of(decision: Decision, run: Run) -> bool:
    """Start what can be; tell whether to look again though nothing of the run changes."""
    lab = decision.lab
    queue = lab.indexes.bound_ready.get(run.id, [])
    free = {role for role, (_, dut) in run.bound.items() if _is_idle(lab, dut)}
    waiting: JobQueue = []
    while queue and free:  # of a thousand jobs for one board all but one stay where they are
        entry = heappop(queue)
        job = lab.jobs.get(entry[1])
        if not _is_startable(job, decision.now):
            continue
        role = run.spec(job).need.role
        if role in free and _start_on_kept(decision, run, job):
            free = {role for role in free if _is_idle(lab, run.bound[role][1])}
        else:
            waiting.append(entry)
    for entry in waiting:
        heappush(queue, entry)
    if not queue:
        lab.indexes.bound_ready.pop(run.id, None)
    return bool(queue and free)


def _is_idle(lab: Lab, dut: DutId) -> bool:
    row = lab.duts.get(dut)
    return row is not None and not row.holder


def _start_on_kept(decision: Decision, run: Run, job: Job) -> bool:
    lab = decision.lab
    need = run.spec(job).need
    if need.consumes and scarce(lab, need, decision.now):
        look_again(lab, need, decision.now)
        return False
    row = lab.duts.get(dut := run.bound[need.role][1])
    agent = way_for(lab, need, row, run.id) if row is not None else None
    if agent is None:
        return False
    _assign(decision, run, job, agent, dut)
    return True


class _Head:
    """The first of a queue, as a pass compares it with the others."""

    __slots__ = ("jobs", "key", "runs", "score")

    def __init__(self, key: NeedKey | None, jobs: JobQueue, runs: RunQueue) -> None:
        self.key, self.jobs, self.runs = key, jobs, runs
        self.score: Order = (0, 0, 0, 0)

    def __lt__(self, other: "_Head") -> bool:
        return self.score < other.score


class _Pass:
    """One look at the heads of all queues."""

    def __init__(self, decision: Decision) -> None:
        self._decision, self._lab = decision, decision.lab
        self._shares = Shares(decision.lab, decision.now)
        self._quotas = Quotas(decision.lab)
        self._places = Places(decision.lab)

    def run(self) -> None:
        """Give places to the best heads until nothing fits any more."""
        indexes, first = self._lab.indexes, self._lab.turn_fences
        heads = [_Head(None, [], queue) for queue in indexes.binding.values()]
        heads += [_Head(key, queue, []) for (key, _), queue in indexes.ready.items()]
        heads = [head for head in heads if self._scored(head)]
        heapify(heads)
        while heads and self._lab.turn_fences - first < MOST_PER_TURN:
            head = heads[0]
            was = head.score
            if not self._scored(head):
                heappop(heads)
            elif was < head.score:  # what stood first has gone, or its org got something
                heapreplace(heads, head)
            elif not self._give(head):
                heappop(heads)  # no place for its first: none behind it has one either
        self._places.close()
        for jobs in [key for key, queue in indexes.ready.items() if not queue]:
            del indexes.ready[jobs]
        for runs in [key for key, queue in indexes.binding.items() if not queue]:
            del indexes.binding[runs]

    def _scored(self, head: _Head) -> bool:
        """Drop what has moved on from the front of a queue, and score what stands there."""
        lab = self._lab
        while head.jobs and not _is_startable(lab.jobs.get(head.jobs[0][1]), self._decision.now):
            heappop(head.jobs)
        while head.runs and not self._wants(head.runs[0][1]):
            heappop(head.runs)
        if head.jobs:
            (points, *rest), run = head.jobs[0][0], lab.runs[ids.run_of(head.jobs[0][1])]
        elif head.runs:
            (points, *rest), run = head.runs[0][0], lab.runs[head.runs[0][1]]
        else:
            return False
        deadline, order, serial = rest
        head.score = (points + self._shares.points(run.org), deadline, order, serial)
        return True

    def _wants(self, name: RunId) -> bool:
        return name in self._lab.runs and name in self._lab.indexes.wants_binding

    def _give(self, head: _Head) -> bool:
        """Give the first of a queue a place; false: there is none now for any of the queue."""
        if head.key is None:
            return self._bind_first(head.runs)
        return self._start(head.key, head.jobs)

    def _bind_first(self, queue: RunQueue) -> bool:
        """Bind the first run of a queue that can be; those that shun a DUT let others have it."""
        aside: RunQueue = []
        bound = False
        while queue and not bound:
            name = queue[0][1]
            if not self._wants(name):
                heappop(queue)
            elif self._bind(self._lab.runs[name]):
                bound = True
            elif self._lab.runs[name].avoid or self._may_be_shorter(aside):
                aside.append(heappop(queue))
            else:
                break
        for entry in aside:
            heappush(queue, entry)
        return bound

    def _may_be_shorter(self, aside: Sized) -> bool:
        """Tell whether to look behind the first: where a DUT is reserved, limits count too."""
        return bool(self._lab.people.reservations) and len(aside) < MOST_BEHIND

    def _bind(self, run: Run) -> bool:
        """Give a run its DUTs, all roles at once or none, and let it begin on them."""
        chosen = match_roles(self._lab, run, self._places)
        if chosen is None or not self._quotas.allows(run.org, len(chosen)):
            return False
        if chosen:
            self._quotas.note(run.org, len(chosen))
            self._decision.happen(RolesBound(run=run.id, duts=chosen))
            _start_kept_of(self._decision, run)
        else:
            self._lab.indexes.wants_binding.discard(run.id)
        return True

    def _start(self, key: NeedKey, queue: JobQueue) -> bool:
        aside: JobQueue = []
        started = False
        while queue and not started:
            entry = queue[0]
            job = self._lab.jobs.get(entry[1])
            if not _is_startable(job, self._decision.now):
                heappop(queue)
            elif self._start_job(key, job):
                started = True
            elif job.avoid or self._may_be_shorter(
                aside
            ):  # others of the queue may go where it went wrong
                aside.append(heappop(queue))
            else:
                break
        if not started:
            self._start_on_own(key, queue)
        for entry in aside:
            heappush(queue, entry)
        return started

    def _start_job(self, key: NeedKey, job: Job) -> bool:
        lab = self._lab
        run, need = lab.runs[job.run], lab.indexes.needs[key]
        if need.consumes and scarce(lab, need, self._decision.now):
            look_again(lab, need, self._decision.now)
            return False
        if not need.wants_dut:
            agent = self._places.host(key, run, job.avoid)
            if agent is not None:
                _assign(self._decision, run, job, agent, None)
            return agent is not None
        found = self._places.duts(key, run, job.avoid)
        if not found:
            return False
        row = lab.duts[found[0]]
        if not row.kept_by:
            if not self._quotas.allows(run.org, 1):
                return False
            self._quotas.note(run.org, 1)
        way = way_for(lab, need, row, run.id) or row.agent
        _assign(self._decision, run, job, way, found[0])
        return True

    def _start_on_own(self, key: NeedKey, queue: JobQueue) -> None:
        """Start jobs that are not first in their queue on a DUT which their own run keeps."""
        lab, need = self._lab, self._lab.indexes.needs[key]
        if not need.wants_dut or scarce(lab, need, self._decision.now):
            return
        for name in sorted(lab.indexes.idle.kept):
            row = lab.duts[name]
            keeper = row.kept_by
            if keeper is None or key not in lab.indexes.need_keys[keeper]:
                continue
            run = lab.runs[keeper]
            own = [entry for entry in queue if ids.run_of(entry[1]) == keeper]
            for entry in sorted(own if is_free(lab, need, run, row) else ()):
                job = lab.jobs[entry[1]]
                if _is_startable(job, self._decision.now):
                    way = way_for(lab, need, row, keeper) or row.agent
                    _assign(self._decision, run, job, way, name)
                    break


def _is_startable(job: Job | None, now: int) -> TypeGuard[Job]:
    """Tell whether a queued job still wants a place: queues may hold what has moved on."""
    if job is None or job.state is not JobState.WAITING:
        return False
    return job.not_before <= now


def _assign(decision: Decision, run: Run, job: Job, agent: AgentId, dut: DutId | None) -> None:
    _start_run(decision, run)
    lab = decision.lab
    fence = ids.fence(lab.sequence + 1, lab.turn_fences)
    attempt = job.attempts + 1
    decision.happen(JobAssigned(job=job.id, fence=fence, agent=agent, attempt=attempt, dut=dut))
    decision.then(SendStart(agent, fence))
