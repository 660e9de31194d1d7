"""The whole lab in memory, and the indexes that make its questions cheap.

Only what is alive: a run leaves when it is final and none of its attempts lives. `apply` is the
only writer of what is recorded; what `rebuild` makes (queues, timers, holders) are indexes,
derived from the rest, and they may be consumed by the functions that decide.
"""

from collections import deque
from dataclasses import dataclass, field
from heapq import heappush

import msgspec

from tshrag_common.criteria import CompiledCriterion, Evidence
from tshrag_common.errors import ErrorReport
from tshrag_common.ids import AgentId, DutId, Epoch, Fence, JobId, OrgId, RunId
from tshrag_common.inventory import AgentFacts, Dut
from tshrag_common.jobs import JobSpec, LoadRef, Need, Plan
from tshrag_common.states import AgentState, AttemptState, JobState, RunState
from tshrag_controller.core.people import People

Order = tuple[int, int, int]
"""(negative priority, order of the run's admission, serial): the smallest goes first."""
NeedKey = bytes
"""A Need in its canonical form: equal needs wait in one queue."""
NO_FENCE = Fence(0)
NO_EPOCH = Epoch(0)


@dataclass(slots=True)
class Job:
    """A node of a plan, as it stands."""

    id: JobId
    run: RunId
    serial: int
    spec: int
    missing: int  # jobs before it that have not ended
    state: JobState = JobState.WAITING
    attempts: int = 0  # given in all
    faults: int = 0  # attempts that ended in error or were lost
    refusals: int = 0
    fence: Fence = NO_FENCE  # of the newest attempt
    not_before: int = 0
    started_at: int = 0
    ended_at: int = 0
    error: ErrorReport | None = None
    avoid: tuple[str, ...] = ()  # agents and DUTs where it went wrong: others come first


@dataclass(slots=True)
class Attempt:
    """One try of a job under its fence; it holds a slot or a DUT until it has ended."""

    fence: Fence
    job: JobId
    number: int
    agent: AgentId
    dut: DutId | None
    assigned_at: int
    state: AttemptState = AttemptState.ASSIGNED
    started_at: int = 0  # by the clock of the LOG: agents' clocks may be wrong
    samples_upto: int = 0
    output_upto: int = 0
    outcome: str = ""


@dataclass(slots=True)
class Run:
    """One execution of a profile."""

    id: RunId
    org: OrgId
    by: str
    key: str
    name: str
    order: int
    priority: int
    created_at: int
    plan: Plan
    loads: tuple[LoadRef, ...]
    criteria: tuple[CompiledCriterion, ...]
    not_before: int
    deadline: int
    duration_us: int
    seed: int
    state: RunState = RunState.WAITING
    started_at: int = 0
    ended_at: int = 0
    open_jobs: int = 0
    ended: dict[JobState, int] = field(default_factory=dict)  # final states and how many
    live: int = 0  # attempts that hold something
    bound: dict[str, tuple[AgentId, DutId]] = field(default_factory=dict)  # role -> its DUT
    evidence: tuple[Evidence, ...] = ()

    def spec(self, job: Job) -> JobSpec:
        return self.plan.specs[job.spec]


@dataclass(slots=True)
class Agent:
    """A lab host as its agent describes it, and what the lab has given to it."""

    facts: AgentFacts
    state: AgentState = AgentState.ONLINE
    spool: str = ""
    applied: int = 0  # reports of that spool that are in the LOG
    fences: set[Fence] = field(default_factory=set)  # attempts there that hold something
    host_slots: int = 0  # taken
    since: int = 0  # of its state
    retired: tuple[str, ...] = ()  # spools it had before; what still comes of them is stale
    leases: set[Fence] = field(default_factory=set)  # of people, on its DUTs

    @property
    def free_slots(self) -> int:
        return self.facts.slots - self.host_slots


@dataclass(slots=True)
class DutRow:
    """A DUT behind one agent. ``holder`` is the attempt or the lease, ``kept_by`` the run that
    has it bound.

    ``gone``: its agent does not tell of it any more; the row stays for those who have it.
    """

    dut: Dut
    agent: AgentId
    holder: Fence = NO_FENCE
    kept_by: RunId | None = None
    faulty: str = ""
    gone: bool = False


@dataclass(slots=True)
class Marks:
    """How far samples and output of an agent's spools are stored. Not recorded: asked anew."""

    samples: int = 0
    output: int = 0


@dataclass(slots=True)
class Lab:
    """Everything alive. Fields up to ``turn_fences`` are recorded, the rest is derived."""

    sequence: int = 0  # of the newest frame that is applied
    epoch: Epoch = NO_EPOCH
    ev_hi: int = 0
    admitted: int = 0  # runs ever; the order of the next
    runs: dict[RunId, Run] = field(default_factory=dict)
    jobs: dict[JobId, Job] = field(default_factory=dict)
    attempts: dict[Fence, Attempt] = field(default_factory=dict)
    agents: dict[AgentId, Agent] = field(default_factory=dict)
    duts: dict[DutId, DutRow] = field(default_factory=dict)
    keys: dict[str, RunId] = field(default_factory=dict)  # "org key" of runs in memory
    counters: dict[str, int] = field(default_factory=dict)
    at: int = 0  # of the newest frame: the lab's time never goes back behind it
    people: People = field(default_factory=People)
    turn_fences: int = 0  # given since the newest frame

    indexes: "Indexes" = field(default_factory=lambda: Indexes())

    def need_key(self, run: Run, job: Job) -> NeedKey:
        return self.indexes.need_keys[run.id][job.spec]

    def count(self, name: str, more: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + more


@dataclass(slots=True)
class Indexes:
    """Made from the recorded half of a Lab, never stored."""

    need_keys: dict[RunId, tuple[NeedKey, ...]] = field(default_factory=dict)
    needs: dict[NeedKey, Need] = field(default_factory=dict)
    children: dict[RunId, dict[int, list[int]]] = field(default_factory=dict)
    ready: dict[NeedKey, list[tuple[Order, JobId]]] = field(default_factory=dict)  # heaps
    binding: dict[tuple[NeedKey, ...], list[tuple[Order, RunId]]] = field(default_factory=dict)
    bound_ready: dict[RunId, list[tuple[Order, JobId]]] = field(default_factory=dict)
    own: deque[JobId] = field(default_factory=deque)  # ready jobs the controller ends by itself
    timers: list[tuple[int, str, str]] = field(default_factory=list)  # heap: (at, what, id)
    marks: dict[AgentId, Marks] = field(default_factory=dict)
    settling: dict[AgentId, list[Fence]] = field(default_factory=dict)
    role_users: dict[tuple[RunId, str], int] = field(default_factory=dict)  # open jobs of a role
    fitting: dict[NeedKey, tuple[AgentId, ...]] = field(default_factory=dict)
    wants_binding: set[RunId] = field(default_factory=set)
    active: dict[Fence, int] = field(default_factory=dict)  # when a lease was last used


_ENCODER = msgspec.msgpack.Encoder()


def order_of(run: Run, job: Job) -> Order:
    return (-run.priority, run.order, job.serial)


def is_kept(need: Need) -> bool:
    """Tell whether a run keeps one DUT for this need, from its first job to its last."""
    return need.wants_dut and need.target.hold == "run"


def set_timer(lab: Lab, at: int, what: str, name: str) -> None:
    heappush(lab.indexes.timers, (at, what, name))


def index_run(lab: Lab, run: Run) -> None:
    """Add the parts of the indexes that follow from the plan alone."""
    keys: list[NeedKey] = []
    for spec in run.plan.specs:
        key = _ENCODER.encode(spec.need)
        lab.indexes.needs.setdefault(key, spec.need)
        keys.append(key)
    lab.indexes.need_keys[run.id] = tuple(keys)
    children: dict[int, list[int]] = {}
    for planned in run.plan.jobs:
        for before in planned.after:
            children.setdefault(before, []).append(planned.serial)
    lab.indexes.children[run.id] = children


def enqueue(lab: Lab, run: Run, job: Job, now: int) -> None:
    """Put a job whose dependencies are met where the scheduler looks; a window may hold it."""
    held_until = max(job.not_before, run.not_before)
    spec = run.spec(job)
    indexes = lab.indexes
    if held_until > now:
        set_timer(lab, held_until, "wake", job.id)
    elif not spec.is_placed:
        indexes.own.append(job.id)
    elif is_kept(spec.need):
        _enqueue_kept(lab, run, job)
    else:
        queue = indexes.ready.setdefault(lab.need_key(run, job), [])
        heappush(queue, (order_of(run, job), job.id))


def _enqueue_kept(lab: Lab, run: Run, job: Job) -> None:
    indexes = lab.indexes
    heappush(indexes.bound_ready.setdefault(run.id, []), (order_of(run, job), job.id))
    role = run.spec(job).need.role
    if role not in run.bound and run.id not in indexes.wants_binding:
        indexes.wants_binding.add(run.id)
        signature = tuple(sorted(roles_to_bind(lab, run).values()))
        heappush(indexes.binding.setdefault(signature, []), (order_of(run, job), run.id))


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
