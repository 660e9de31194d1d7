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
from tshrag_common.ids import DEFAULT_ORG, AgentId, DutId, Epoch, Fence, JobId, OrgId, RunId
from tshrag_common.inventory import AgentFacts, Dut
from tshrag_common.jobs import JobSpec, LoadRef, Need, Plan
from tshrag_common.states import AgentState, AttemptState, JobState, RunState
from tshrag_controller.core.people import Intent, People
from tshrag_controller.core.policy import Policy

Order = tuple[int, int, int, int]
"""(points that do not change, deadline, order of the run's admission, serial): least first."""
NeedKey = bytes
"""A Need in its canonical form."""
QueueKey = tuple[NeedKey, OrgId]
"""Equal needs of one org wait in one queue."""
BindingKey = tuple[tuple[NeedKey, ...], OrgId]
"""Runs of one org that need the same DUTs, all at once, wait in one queue."""
PREEMPTED = "preempted"
"""How an attempt ends that gives way, and why the job of one that has to is stopped."""
NO_FENCE = Fence(0)
NO_EPOCH = Epoch(0)


class Way(msgspec.Struct, frozen=True):
    """For whom an attempt ends that gives way, where it is not for the place of it alone."""

    by: str
    duts: tuple[DutId, ...] = ()
    slots: tuple[tuple[AgentId, int], ...] = ()


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
    held: str = ""  # why a person holds it back
    avoid: tuple[str, ...] = ()  # agents and DUTs where it went wrong: others come first
    stop: str = ""  # pass, fail or skip: how it ends as soon as its attempt has; or `PREEMPTED`
    is_open: bool = False  # what it waited for on samples (``when``) has come about
    preempted: int = 0  # how often an attempt of it was ended for somebody else
    way: Way | None = None  # where its newest attempt makes way for several at once


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
    lease_s: float = 0.0  # without an answered heartbeat; 0: until its own time limit
    setup: str = ""  # what came of that of its group


@dataclass(slots=True)
class Awaited:
    """An attempt that has ended on a DUT which waits for the verdict; at most ``until`` then."""

    job: JobId
    attempt: int
    until: int


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
    avoid: dict[str, tuple[str, ...]] = field(default_factory=dict)  # role -> where it went wrong
    baseline: str = ""
    stop_early: bool = False  # as soon as its verdict is decided
    decided: str = ""  # what decided its verdict before its end
    is_held: bool = False  # a job of it was held back and not all were let go since
    awaits: dict[DutId, Awaited] = field(default_factory=dict)  # DUTs it keeps for its verdict

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
    intent: Intent | None = None  # of people; the truth is in ``people``
    taken: dict[str, float] = field(default_factory=dict)  # of its resources

    @property
    def free_slots(self) -> int:
        return self.facts.slots - self.host_slots


@dataclass(slots=True)
class DutRow:
    """A DUT. ``holder`` is the attempt or the lease, ``kept_by`` the run that has it bound.

    ``agent`` is the one that has it, or had it last; ``ways`` are all that reach a shared DUT,
    by name; an owned one has none but ``agent``. ``gone``: nobody tells of it any more; the row
    stays for those who have it.
    """

    dut: Dut
    agent: AgentId
    holder: Fence = NO_FENCE
    kept_by: RunId | None = None
    faulty: str = ""
    gone: bool = False
    ways: tuple[AgentId, ...] = ()
    intent: Intent | None = None  # of people; the truth is in ``people``
    streak: int = 0  # jobs in a row that shared its setup
    streak_since: int = 0
    undo: str = ""  # the run that does the teardown of what it carries
    undo_failed: str = ""  # the setup whose teardown has failed: its next user does it


@dataclass(slots=True)
class OrgUse:
    """What an org has used, in seconds of DUTs and slots that decay, and what it uses now."""

    used_s: float = 0.0  # decayed until ``at``
    at: int = 0
    live: int = 0  # DUTs and slots that its attempts hold
    since: int = 0  # sum of the instants at which they were given


@dataclass(slots=True)
class SetupStat:
    """What is known of a setup: how long it takes, how long a job on it, how often it helped."""

    setup_s: float = 0.0  # of the newest that was made; 0: never measured
    job_s: float = 0.0  # of the jobs on it, the newest counting most
    made: int = 0
    found: int = 0
    split: bool = False  # it has failed: no job waits for another's
    at: int = 0  # when it was last used
    key: str = ""
    linger_s: float = -1.0  # as its group has it
    org: OrgId = DEFAULT_ORG  # whose group it is: groups are never of two


@dataclass(slots=True)
class Consumed:
    """How much of something that the whole lab shares is taken, and when it was given last."""

    taken: int = 0
    given_at: int = 0


@dataclass(slots=True)
class Marks:
    """How far samples and output of an agent's spools are stored. Not recorded: asked anew."""

    samples: int = 0
    output: int = 0


@dataclass(slots=True)
class Lab:
    """Everything alive. All but ``turn_fences`` and ``indexes`` is recorded."""

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
    policy: Policy = field(default_factory=Policy)
    orgs: dict[OrgId, OrgUse] = field(default_factory=dict)
    consumed: dict[str, Consumed] = field(default_factory=dict)
    setups: dict[str, SetupStat] = field(default_factory=dict)  # by digest

    indexes: "Indexes" = field(default_factory=lambda: Indexes())

    def need_key(self, run: Run, job: Job) -> NeedKey:
        return self.indexes.need_keys[run.id][job.spec]

    def count(self, name: str, more: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + more


@dataclass(slots=True)
class Idle:
    """Places that may be free, by class: what is of one class fits the same needs (`idle`)."""

    fits: dict[NeedKey, dict[bytes, bool]] = field(default_factory=dict)
    classes: dict[NeedKey, frozenset[bytes]] = field(default_factory=dict)  # that fit
    open: set[bytes] = field(default_factory=set)  # classes of DUTs whose heaps hold something
    carriers: dict[str, set[DutId]] = field(default_factory=dict)  # setup -> DUTs that carry it
    carried: dict[DutId, tuple[str, ...]] = field(default_factory=dict)  # as ``carriers`` has it
    owners: dict[DutId, tuple[OrgId, bool]] = field(default_factory=dict)  # `owners`
    owned: dict[tuple[OrgId, bool], int] = field(default_factory=dict)  # how many of each
    dut_samples: dict[bytes, tuple[AgentFacts, Dut]] = field(default_factory=dict)
    host_samples: dict[bytes, AgentFacts] = field(default_factory=dict)
    dut_seen: dict[DutId, tuple[Dut, AgentFacts]] = field(default_factory=dict)
    dut_class: dict[DutId, bytes] = field(default_factory=dict)
    duts: dict[bytes, list[tuple[bool, DutId]]] = field(default_factory=dict)  # heaps
    in_heap: set[DutId] = field(default_factory=set)
    kept: set[DutId] = field(default_factory=set)  # kept by a run and without an attempt
    shared: set[DutId] = field(default_factory=set)  # reached by several agents, or meant to be
    host_class: dict[AgentId, bytes] = field(default_factory=dict)
    hosts: dict[bytes, list[tuple[int, AgentId]]] = field(default_factory=dict)  # heaps
    listed: dict[AgentId, int] = field(default_factory=dict)  # free slots, as its entry has them


@dataclass(slots=True)
class Indexes:
    """Made from the recorded half of a Lab, never stored."""

    need_keys: dict[RunId, tuple[NeedKey, ...]] = field(default_factory=dict)
    needs: dict[NeedKey, Need] = field(default_factory=dict)
    need_users: dict[NeedKey, int] = field(default_factory=dict)  # runs in memory
    children: dict[RunId, dict[int, list[int]]] = field(default_factory=dict)
    ready: dict[QueueKey, list[tuple[Order, JobId]]] = field(default_factory=dict)  # heaps
    binding: dict[BindingKey, list[tuple[Order, RunId]]] = field(default_factory=dict)
    bound_ready: dict[RunId, list[tuple[Order, JobId]]] = field(default_factory=dict)
    own: deque[JobId] = field(default_factory=deque)  # ready jobs the controller ends by itself
    timers: list[tuple[int, str, str]] = field(default_factory=list)  # heap: (at, what, id)
    marks: dict[AgentId, Marks] = field(default_factory=dict)
    settling: dict[AgentId, list[Fence]] = field(default_factory=dict)
    role_users: dict[tuple[RunId, str], int] = field(default_factory=dict)  # open jobs of a role
    wants_binding: set[RunId] = field(default_factory=set)
    active: dict[Fence, int] = field(default_factory=dict)  # when a lease was last used
    now: int = 0  # of the turn that is being decided
    look: set[RunId] = field(default_factory=set)  # a job of it may start on a DUT that it keeps
    idle: Idle = field(default_factory=Idle)
    gang_jobs: dict[tuple[RunId, int], list[int]] = field(default_factory=dict)  # serials
    gangs: dict[tuple[RunId, int], set[JobId]] = field(default_factory=dict)  # members that wait
    preemptible: set[Fence] = field(default_factory=set)  # attempts, some of which have ended
    making_way: set[Fence] = field(default_factory=set)  # for several at once; some have ended
    gated: dict[RunId, int] = field(default_factory=dict)  # jobs of it that wait for samples
    looks: set[int] = field(default_factory=set)  # instants at which a timer makes a pass
    group_open: dict[str, int] = field(default_factory=dict)  # setup -> jobs that have not ended
    undo_look: set[DutId] = field(default_factory=set)  # a teardown may be due, or not any more
    undoing: dict[RunId, DutId] = field(default_factory=dict)  # runs that do a teardown


def is_kept(need: Need) -> bool:
    """Tell whether a run keeps one DUT for this need, from its first job to its last."""
    return need.wants_dut and need.target.hold == "run"


def set_timer(lab: Lab, at: int, what: str, name: str) -> None:
    heappush(lab.indexes.timers, (at, what, name))
