"""PURE: at the end of every turn, what is ready goes to where it fits. Nothing waits for a tick.

Queues hold equal needs, so the work of a pass is the number of queues plus the number of
placements: when the first of a queue finds no place, none behind it does. Among the heads of all
queues, of jobs and of runs that want DUTs to keep, the best goes first (`order`).
"""

from collections.abc import Sized
from heapq import heapify, heappop, heappush, heapreplace

from tshrag_common import ids
from tshrag_common.errors import ErrorReport
from tshrag_common.ids import RunId
from tshrag_common.jobs import Group
from tshrag_common.states import JobCause
from tshrag_controller.core.binding import match_roles
from tshrag_controller.core.consumables import look_again, scarce
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.events import RolesBound
from tshrag_controller.core.follow import end_job
from tshrag_controller.core.gangs import (
    consumed_by,
    is_broken,
    ready_of,
)
from tshrag_controller.core.groups import ready_carrier
from tshrag_controller.core.health import serve_checks
from tshrag_controller.core.lab import Job, NeedKey, Order, Run, is_kept
from tshrag_controller.core.line import serve_line
from tshrag_controller.core.on_reserve import serve_reservations
from tshrag_controller.core.order import Shares, order_of
from tshrag_controller.core.places import Places, is_free, may_fit
from tshrag_controller.core.preemption import preempt
from tshrag_controller.core.quotas import over_quota
from tshrag_controller.core.seating import seat
from tshrag_controller.core.starting import (
    JobQueue,
    RunQueue,
    assign,
    end_own,
    is_startable,
    start_kept,
    start_kept_of,
)
from tshrag_controller.core.teardown import serve_teardowns
from tshrag_controller.core.ways import way_for

MOST_PER_TURN = 4096
"""Assignments in one frame; the next turn goes on."""

MOST_BEHIND = 64
"""How far a pass looks behind the first of a queue, for one short enough for what is reserved."""


def schedule(decision: Decision) -> None:
    """Give everything that can start now a place, and say so in events."""
    end_own(decision)
    serve_teardowns(decision)
    serve_reservations(decision)
    serve_line(decision)
    start_kept(decision)
    indexes = decision.lab.indexes
    if indexes.ready or indexes.binding or indexes.gangs:
        _Pass(decision).run()
    if indexes.preemptible:
        preempt(decision)
    serve_checks(decision)


class _Head:
    """The first of a queue, as a pass compares it with the others."""

    __slots__ = ("gang", "group", "jobs", "key", "runs", "score")

    def __init__(
        self,
        key: NeedKey | None,
        jobs: JobQueue,
        runs: RunQueue,
        group: Group | None = None,
        gang: int = 0,
    ) -> None:
        self.key, self.jobs, self.runs, self.group, self.gang = key, jobs, runs, group, gang
        self.score: Order = (0, 0, 0, 0)

    def __lt__(self, other: "_Head") -> bool:
        return self.score < other.score


class _Pass:
    """One look at the heads of all queues."""

    def __init__(self, decision: Decision) -> None:
        self._decision, self._lab = decision, decision.lab
        self._shares = Shares(decision.lab, decision.now)
        self._places = Places(decision.lab, decision.now)

    def run(self) -> None:
        """Give places to the best heads until nothing fits any more."""
        indexes, first = self._lab.indexes, self._lab.turn_fences
        heads = [
            _Head(None, [], queue, self._group_of(*keys))
            for (keys, _), queue in indexes.binding.items()
            if all(may_fit(self._lab, key) for key in keys)
        ]
        heads += [
            _Head(key, queue, [], self._group_of(key))
            for (key, _), queue in indexes.ready.items()
            if may_fit(self._lab, key)
        ]
        heads += self._gangs()
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

    def _gangs(self) -> list[_Head]:
        """Return the gangs that could start, each as a queue of its one run."""
        lab, found = self._lab, list[_Head]()
        for name, gang in list(lab.indexes.gangs):
            run = lab.runs.get(name)
            waiting = ready_of(lab, name, gang, self._decision.now) if run is not None else []
            for job in waiting if waiting and is_broken(lab, waiting[0]) else ():
                what = "one of those that start together has ended"
                error = ErrorReport(code="gang", message=what)
                end_job(self._decision, job, JobCause.CANCEL, error)
            if run is None or not waiting or is_broken(lab, waiting[0]):
                continue
            found.append(_Head(None, [], [(order_of(lab, run, waiting[0]), name)], gang=gang))
        return found

    def _group_of(self, *keys: NeedKey) -> Group | None:
        need = self._lab.indexes.needs.get(keys[0]) if len(keys) == 1 else None
        return need.group if need is not None else None

    def _scored(self, head: _Head) -> bool:
        """Drop what has moved on from the front of a queue, and score what stands there."""
        lab = self._lab
        while head.jobs and not is_startable(lab.jobs.get(head.jobs[0][1]), self._decision.now):
            heappop(head.jobs)
        while head.runs and not head.gang and not self._wants(head.runs[0][1]):
            heappop(head.runs)
        if head.jobs:
            (points, *rest), run = head.jobs[0][0], lab.runs[ids.run_of(head.jobs[0][1])]
        elif head.runs:
            (points, *rest), run = head.runs[0][0], lab.runs[head.runs[0][1]]
        else:
            return False
        deadline, order, serial = rest
        points += self._shares.points(run.org)
        if head.group is not None and ready_carrier(lab, head.group, self._decision.now):
            points -= round(lab.policy.setup_points)
        head.score = (points, deadline, order, serial)
        return True

    def _wants(self, name: RunId) -> bool:
        return name in self._lab.runs and name in self._lab.indexes.wants_binding

    def _give(self, head: _Head) -> bool:
        """Give the first of a queue a place; false: there is none now for any of the queue."""
        if head.gang:
            return self._start_gang(self._lab.runs[head.runs.pop()[1]], head.gang)
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

    def _start_gang(self, run: Run, gang: int) -> bool:
        """Give all jobs of a gang their places, or none of them any."""
        lab, now = self._lab, self._decision.now
        jobs = ready_of(lab, run.id, gang, now)
        asked = consumed_by(run, jobs)
        if scarce(lab, asked, now):
            look_again(lab, asked, now)
            return False
        seats = seat(lab, run, jobs, self._places)
        if seats is None:
            return False
        fresh = [s for s in seats if s.dut and lab.duts[s.dut].kept_by != run.id]
        if over_quota(lab, run.org, len(fresh)):
            return False
        kept = [s for s in fresh if is_kept(run.spec(s.job).need)]
        if kept:
            chosen = [(run.spec(s.job).need.role, s.agent, s.dut) for s in kept if s.dut]
            self._decision.happen(RolesBound(run=run.id, duts=tuple(sorted(chosen))))
        for each in sorted(seats, key=lambda each: each.job.serial):
            assign(self._decision, run, each.job, each.agent, each.dut)
        return True

    def _bind(self, run: Run) -> bool:
        """Give a run its DUTs, all roles at once or none, and let it begin on them."""
        chosen = match_roles(self._lab, run, self._decision.now, self._places)
        if chosen is None or over_quota(self._lab, run.org, len(chosen)):
            return False
        if chosen:
            self._decision.happen(RolesBound(run=run.id, duts=chosen))
            start_kept_of(self._decision, run)
        else:
            self._lab.indexes.wants_binding.discard(run.id)
        return True

    def _start(self, key: NeedKey, queue: JobQueue) -> bool:
        aside: JobQueue = []
        started = False
        while queue and not started:
            entry = queue[0]
            job = self._lab.jobs.get(entry[1])
            if not is_startable(job, self._decision.now):
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
                assign(self._decision, run, job, agent, None)
            return agent is not None
        found = self._places.duts(key, run, job.avoid)
        if not found:
            return False
        row = lab.duts[found[0]]
        if not row.kept_by and over_quota(lab, run.org, 1):
            return False
        way = way_for(lab, need, row, run.id) or row.agent
        assign(self._decision, run, job, way, found[0])
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
                if is_startable(job, self._decision.now):
                    way = way_for(lab, need, row, keeper) or row.agent
                    assign(self._decision, run, job, way, name)
                    break
