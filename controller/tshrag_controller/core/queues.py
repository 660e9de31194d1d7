"""PURE: where ready jobs wait: one queue for equal needs of one org. Part of `apply`."""

from heapq import heapify, heappush

import msgspec

from tshrag_common.ids import RunId
from tshrag_common.states import JobState
from tshrag_controller.core.idle import forget_need
from tshrag_controller.core.lab import Job, Lab, NeedKey, Run, is_kept, set_timer
from tshrag_controller.core.order import order_of, place_of

_ENCODER = msgspec.msgpack.Encoder(order="deterministic")


def index_run(lab: Lab, run: Run) -> None:
    """Add the parts of the indexes that follow from the plan alone."""
    keys: list[NeedKey] = []
    for spec in run.plan.specs:
        key = _ENCODER.encode(spec.need)
        lab.indexes.needs.setdefault(key, spec.need)
        keys.append(key)
    for key in set(keys):
        users = lab.indexes.need_users
        users[key] = users.get(key, 0) + 1
    lab.indexes.need_keys[run.id] = tuple(keys)
    children: dict[int, list[int]] = {}
    for planned in run.plan.jobs:
        for before in planned.after:
            children.setdefault(before, []).append(planned.serial)
    lab.indexes.children[run.id] = children
    gates = {number for number, spec in enumerate(run.plan.specs) if spec.when is not None}
    if gates:
        lab.indexes.gated[run.id] = sum(planned.spec in gates for planned in run.plan.jobs)
    for planned in run.plan.jobs:
        if planned.gang:
            gang = lab.indexes.gang_jobs.setdefault((run.id, planned.gang), [])
            gang.append(planned.serial)


def unindex_run(lab: Lab, run: Run) -> None:
    """Drop what `index_run` added; a need that nobody else has goes with it."""
    indexes = lab.indexes
    indexes.children.pop(run.id, None)
    indexes.gated.pop(run.id, None)
    for gang in {planned.gang for planned in run.plan.jobs if planned.gang}:
        indexes.gang_jobs.pop((run.id, gang), None)
        indexes.gangs.pop((run.id, gang), None)
    for key in set(indexes.need_keys.pop(run.id, ())):
        indexes.need_users[key] -= 1
        if not indexes.need_users[key]:
            del indexes.need_users[key], indexes.needs[key]
            indexes.ready.pop((key, run.org), None)  # nobody waits there any more
            forget_need(lab, key)


def enqueue(lab: Lab, run: Run, job: Job, now: int) -> None:
    """Put a job whose dependencies are met where the scheduler looks; a window may hold it."""
    held_until = max(job.not_before, run.not_before)
    spec = run.spec(job)
    indexes = lab.indexes
    if job.held or (spec.when is not None and not job.is_open):
        return  # its release, or what opens its gate, puts it here again
    if held_until > now:
        set_timer(lab, held_until, "wake", job.id)
    elif not spec.is_placed:
        indexes.own.append(job.id)
    elif gang := run.plan.jobs[job.serial - 1].gang:
        indexes.gangs.setdefault((run.id, gang), set()).add(job.id)
    elif is_kept(spec.need):
        _enqueue_kept(lab, run, job)
    else:
        queue = indexes.ready.setdefault((lab.need_key(run, job), run.org), [])
        heappush(queue, (order_of(lab, run, job), job.id))


def leave_gang(lab: Lab, run: Run, gang: int, job: Job) -> None:
    """Take a job that has been given a place from those that wait to start together."""
    there = lab.indexes.gangs.get((run.id, gang))
    if there is not None:
        there.discard(job.id)
        if not there:
            del lab.indexes.gangs[run.id, gang]


def _enqueue_kept(lab: Lab, run: Run, job: Job) -> None:
    indexes = lab.indexes
    heappush(indexes.bound_ready.setdefault(run.id, []), (order_of(lab, run, job), job.id))
    role = run.spec(job).need.role
    if role in run.bound:
        indexes.look.add(run.id)
    else:
        _want_binding(lab, run, job)


def _want_binding(lab: Lab, run: Run, job: Job) -> None:
    indexes = lab.indexes
    if run.id not in indexes.wants_binding:
        indexes.wants_binding.add(run.id)
        signature = tuple(sorted(roles_to_bind(lab, run).values()))
        queue = indexes.binding.setdefault((signature, run.org), [])
        heappush(queue, (order_of(lab, run, job), run.id))


def rebind(lab: Lab, run: Run) -> None:
    """Let a run wait for DUTs once more, where a queued job of it has none."""
    for _, name in lab.indexes.bound_ready.get(run.id, ()):
        job = lab.jobs[name]
        if job.state is JobState.WAITING and is_waiting_for_binding(run, job):
            _want_binding(lab, run, job)
            return


def roles_to_bind(lab: Lab, run: Run) -> dict[str, NeedKey]:
    """Return the roles that some open job of `run` needs and that have no DUT yet."""
    roles: dict[str, NeedKey] = {}
    keys = lab.indexes.need_keys[run.id]
    for number, spec in enumerate(run.plan.specs):
        role = spec.need.role
        if not is_kept(spec.need) or role in run.bound:
            continue
        if lab.indexes.role_users.get((run.id, role), 0):
            roles.setdefault(role, keys[number])
    return roles


def is_waiting_for_binding(run: Run, job: Job) -> bool:
    """Tell whether the run of a job that keeps its DUT has none for it yet."""
    need = run.spec(job).need
    return is_kept(need) and need.role not in run.bound


def reorder(lab: Lab) -> None:
    """Put all queues into the order of a new policy."""
    indexes = lab.indexes
    for waiting in (*indexes.ready.values(), *indexes.bound_ready.values()):
        there = [lab.jobs[name] for _, name in waiting if name in lab.jobs]
        waiting[:] = [(order_of(lab, lab.runs[job.run], job), job.id) for job in there]
        heapify(waiting)
    for queue in indexes.binding.values():
        queue[:] = [_reordered(lab, entry) for entry in queue if entry[1] in lab.runs]
        heapify(queue)


def _reordered(
    lab: Lab, entry: tuple[tuple[int, int, int, int], RunId]
) -> tuple[tuple[int, int, int, int], RunId]:
    (_, deadline, order, serial), name = entry
    run = lab.runs[name]
    points = place_of(lab, run.created_at, run.priority, order)[0]
    return (points, deadline, order, serial), name
