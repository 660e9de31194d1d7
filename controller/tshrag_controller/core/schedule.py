"""PURE: at the end of every turn, what is ready goes to where it fits. Nothing waits for a tick.

Queues hold equal needs, so the work of a pass is the number of queues plus the number of
placements: when the first of a queue finds no place, none behind it does. Among queues the head
with the best order goes first: priority, then admission, then serial.
"""

from heapq import heapify, heappop, heappush
from typing import TypeGuard

from tshrag_common import ids
from tshrag_common.ids import AgentId, DutId, RunId
from tshrag_common.jobs import Need
from tshrag_common.states import JobCause, JobState, RunCause, RunState
from tshrag_controller.core.decision import Decision, SendStart
from tshrag_controller.core.events import JobAssigned, JobMoved, RolesBound, RunMoved
from tshrag_controller.core.follow import after_end
from tshrag_controller.core.lab import Job, Lab, NeedKey, Order, Run, is_kept, roles_to_bind
from tshrag_controller.core.line import serve_line
from tshrag_controller.core.needs import blocked, misfits

MOST_PER_TURN = 4096
"""Assignments in one frame; the next turn goes on."""


def schedule(decision: Decision) -> None:
    """Give everything that can start now a place, and say so in events."""
    _end_own(decision)
    serve_line(decision)
    _bind_runs(decision)
    _start_bound(decision)
    _start_free(decision)


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


def fitting_agents(lab: Lab, key: NeedKey) -> tuple[AgentId, ...]:
    """Return the hosts that fit a need without a DUT, by name; kept until an inventory changes."""
    known = lab.indexes.fitting.get(key)
    if known is None:
        need = lab.indexes.needs[key]
        fits = (name for name, agent in lab.agents.items() if not misfits(need, agent.facts, None))
        known = lab.indexes.fitting[key] = tuple(sorted(fits))
    return known


def free_duts(lab: Lab, need: Need, run: RunId) -> list[DutId]:
    """Return the DUTs that `run` could have now, by name."""
    free: list[DutId] = []
    for name, row in lab.duts.items():
        agent = lab.agents[row.agent]
        if blocked(need, agent, row, run) or misfits(need, agent.facts, row.dut):
            continue
        free.append(name)
    return sorted(free)


def _bind_runs(decision: Decision) -> None:
    """Give runs their DUTs, all roles of a run at once or none: no run waits while it holds.

    Runs that need the same wait in one queue; the best head of all queues goes first.
    """
    binding = decision.lab.indexes.binding
    heads = [(queue[0][0], signature) for signature, queue in binding.items()]
    heapify(heads)
    while heads:
        _, signature = heappop(heads)
        queue = binding[signature]
        if not _bind(decision, queue[0][1]):
            continue  # no DUTs for these needs: none behind it has them either
        heappop(queue)
        if queue:
            heappush(heads, (queue[0][0], signature))
        else:
            del binding[signature]


def _bind(decision: Decision, name: RunId) -> bool:
    """Give a run its DUTs; false: not now."""
    lab = decision.lab
    run = lab.runs.get(name)
    if run is None or name not in lab.indexes.wants_binding:
        return True
    chosen = match_roles(lab, run)
    if chosen:
        decision.happen(RolesBound(run=name, duts=chosen))
    elif chosen is not None:
        lab.indexes.wants_binding.discard(name)
    return chosen is not None


def match_roles(lab: Lab, run: Run) -> tuple[tuple[str, AgentId, DutId], ...] | None:
    """Return a DUT for each open role, no DUT twice; None when that cannot be had now.

    Roles with the fewest candidates choose first, and give way along augmenting paths: when a
    matching exists it is found.
    """
    needs = lab.indexes.needs
    candidates = {
        role: free_duts(lab, needs[key], run.id) for role, key in roles_to_bind(lab, run).items()
    }
    given: dict[DutId, str] = {}

    def find(role: str, tried: set[DutId]) -> bool:
        for dut in candidates[role]:
            if dut not in tried:
                tried.add(dut)
                if dut not in given or find(given[dut], tried):
                    given[dut] = role
                    return True
        return False

    for role in sorted(candidates, key=lambda name: (len(candidates[name]), name)):
        if not find(role, set()):
            return None
    return tuple(sorted((role, lab.duts[dut].agent, dut) for dut, role in given.items()))


def _start_bound(decision: Decision) -> None:
    """Start jobs on the DUTs that their runs keep."""
    lab = decision.lab
    keepers = {row.kept_by for row in lab.duts.values() if row.kept_by and not row.holder}
    for run_name in sorted(keepers, key=lambda name: lab.runs[name].order):
        run, queue = lab.runs[run_name], lab.indexes.bound_ready.get(run_name, [])
        free = {role for role, (_, dut) in run.bound.items() if _is_idle(lab, dut)}
        waiting: list[tuple[Order, ids.JobId]] = []
        while queue and free:  # of a thousand jobs for one board all but one stay where they are
            entry = heappop(queue)
            job = lab.jobs.get(entry[1])
            if not _is_startable(job, decision.now):
                continue
            role = run.spec(job).need.role
            if role in free and _start_on_kept(decision, run, job):
                free.discard(role)
            else:
                waiting.append(entry)
        for entry in waiting:
            heappush(queue, entry)
        if not queue:
            lab.indexes.bound_ready.pop(run_name, None)


def _is_idle(lab: Lab, dut: DutId) -> bool:
    row = lab.duts.get(dut)
    return row is not None and not row.holder


def _start_on_kept(decision: Decision, run: Run, job: Job) -> bool:
    lab = decision.lab
    need = run.spec(job).need
    place = run.bound.get(need.role)
    if place is None:
        return False
    agent, dut = place
    row = lab.duts.get(dut)
    if row is None or blocked(need, lab.agents[agent], row, run.id):
        return False
    _assign(decision, run, job, agent, dut)
    return True


def _start_free(decision: Decision) -> None:
    """Start jobs that any fitting place will do for, the best head of all queues first."""
    lab = decision.lab
    heads = [(queue[0][0], key) for key, queue in lab.indexes.ready.items() if queue]
    heapify(heads)
    pools = _Pools()
    first = lab.turn_fences
    while heads and lab.turn_fences - first < MOST_PER_TURN:
        _, key = heappop(heads)
        queue = lab.indexes.ready[key]
        job = lab.jobs.get(queue[0][1])
        if _is_startable(job, decision.now) and not _start_anywhere(decision, key, job, pools):
            _start_on_own(decision, key, queue)
            continue  # no other place for this need: none behind it has one either
        heappop(queue)
        if queue:
            heappush(heads, (queue[0][0], key))
        else:
            del lab.indexes.ready[key]


def _start_on_own(decision: Decision, key: NeedKey, queue: list[tuple[Order, ids.JobId]]) -> None:
    """Start jobs that are not first in their queue on a DUT which their own run keeps."""
    lab, need = decision.lab, decision.lab.indexes.needs[key]
    for name, row in sorted(lab.duts.items()):
        keeper = row.kept_by
        if keeper is None or key not in lab.indexes.need_keys[keeper]:
            continue
        agent = lab.agents[row.agent]
        if blocked(need, agent, row, keeper) or misfits(need, agent.facts, row.dut):
            continue
        own = [entry for entry in queue if ids.run_of(entry[1]) == keeper]
        for entry in sorted(own):
            job = lab.jobs[entry[1]]
            if _is_startable(job, decision.now):
                _assign(decision, lab.runs[keeper], job, row.agent, name)
                break


def _is_startable(job: Job | None, now: int) -> TypeGuard[Job]:
    """Tell whether a queued job still wants a place: queues may hold what has moved on."""
    if job is None or job.state is not JobState.WAITING:
        return False
    return job.not_before <= now


class DutPool:
    """The DUTs that were free for a need when a pass began; within a pass none becomes free.

    So the work of a pass is the number of DUTs plus the number of placements, not their product.
    """

    def __init__(self, lab: Lab, need: Need) -> None:
        self._open: list[DutId] = []
        self._kept: dict[RunId, list[DutId]] = {}
        for name, row in sorted(lab.duts.items(), reverse=True):  # the first one is the last
            agent, keeper = lab.agents[row.agent], row.kept_by
            if not blocked(need, agent, row, keeper or "") and not misfits(
                need, agent.facts, row.dut
            ):
                (self._kept.setdefault(keeper, []) if keeper else self._open).append(name)

    def first(self, lab: Lab, job: Job) -> DutId | None:
        """Return the first by name that is free for `job`; where it went wrong comes last."""
        found: list[DutId] = []
        for names in (self._open, self._kept.get(job.run, [])):
            while names and lab.duts[names[-1]].holder:
                names.pop()
            for name in reversed(names):
                if not lab.duts[name].holder:
                    found.append(name)
                    if name not in job.avoid:
                        break
        return min(found, key=lambda name: (name in job.avoid, name), default=None)


class _Pools:
    """What is free for each need, looked for once in a pass."""

    def __init__(self) -> None:
        self.hosts: dict[NeedKey, list[tuple[int, AgentId]]] = {}
        self.duts: dict[NeedKey, DutPool] = {}


def _start_anywhere(decision: Decision, key: NeedKey, job: Job, pools: _Pools) -> bool:
    lab = decision.lab
    run = lab.runs[job.run]
    need = lab.indexes.needs[key]
    if need.wants_dut:
        if key not in pools.duts:
            pools.duts[key] = DutPool(lab, need)
        dut = pools.duts[key].first(lab, job)
        if dut is None:
            return False
        _assign(decision, run, job, lab.duts[dut].agent, dut)
        return True
    agent = _least_loaded(lab, key, job, pools.hosts)
    if agent is None:
        return False
    _assign(decision, run, job, agent, None)
    return True


def _least_loaded(
    lab: Lab, key: NeedKey, job: Job, pools: dict[NeedKey, list[tuple[int, AgentId]]]
) -> AgentId | None:
    """Return the fitting host with the most free slots; one where it went wrong comes last.

    A pool is a heap of (-free slots, name) made once a pass; an entry that other queues have
    overtaken is put right when it comes up.
    """
    need = lab.indexes.needs[key]
    pool = pools.get(key)
    if pool is None:
        pool = [(-lab.agents[name].free_slots, name) for name in fitting_agents(lab, key)]
        pool = [entry for entry in pool if not blocked(need, lab.agents[entry[1]], None, job.run)]
        heapify(pool)
        pools[key] = pool
    aside: list[tuple[int, AgentId]] = []
    found: AgentId | None = None
    while pool and found is None:
        free, name = heappop(pool)
        now_free = lab.agents[name].free_slots
        if now_free != -free:
            if now_free >= need.slots:
                heappush(pool, (-now_free, name))
        elif now_free >= need.slots:
            if name in job.avoid and pool:
                aside.append((free, name))
            else:
                found = name
                heappush(pool, (free + need.slots, name))
    for entry in aside:
        heappush(pool, entry)
    return found or (aside[0][1] if aside else None)


def _assign(decision: Decision, run: Run, job: Job, agent: AgentId, dut: DutId | None) -> None:
    _start_run(decision, run)
    lab = decision.lab
    fence = ids.fence(lab.sequence + 1, lab.turn_fences)
    attempt = job.attempts + 1
    decision.happen(JobAssigned(job=job.id, fence=fence, agent=agent, attempt=attempt, dut=dut))
    decision.then(SendStart(agent, fence))


def is_waiting_for_binding(run: Run, job: Job) -> bool:
    """Tell whether the run of a job that keeps its DUT has none for it yet."""
    need = run.spec(job).need
    return is_kept(need) and need.role not in run.bound
