"""What answers are made of: runs, jobs, attempts, agents, DUTs, series, as people see them.

Instants are integer microseconds UTC, 0 where there is none; durations end in ``_s`` or ``_us``.
"""

import msgspec

from tshrag_common.criteria import Evidence
from tshrag_common.errors import ErrorReport
from tshrag_common.inventory import AgentFacts, Dut
from tshrag_common.jobs import LoadRef
from tshrag_common.reports import BoardClock


class ReasonView(msgspec.Struct, frozen=True, kw_only=True):
    """One thing in the way."""

    code: str
    text: str


class PlaceView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A place and what speaks against it; nothing: the job would go there now."""

    host: str
    dut: str = ""
    fits: bool
    reasons: tuple[ReasonView, ...] = ()


class PlannedView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job of a plan: what it would do, after which serials, and where it would go now."""

    serial: int
    name: str
    kind: str
    what: str  # load and version, command line, …: one line for people
    after: tuple[int, ...] = ()
    timeout_s: float = 0.0
    target: str = ""
    place: str = ""  # host or DUT that it would get now; empty: none
    places: tuple[PlaceView, ...] = ()


class AttemptView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try of a job."""

    number: int
    fence: int
    agent: str
    dut: str = ""
    state: str
    outcome: str = ""
    assigned_at: int = 0
    started_at: int = 0
    ended_at: int = 0
    exit_code: int | None = None
    signal: int = 0
    error: ErrorReport | None = None
    stopped: tuple[str, ...] = ()
    cpu_us: int = 0
    max_rss_bytes: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    cut_bytes: int = 0
    notices: tuple[str, ...] = ()
    setup: str = ""  # of its group: made, found, failed
    setup_us: int = 0
    clock: BoardClock | None = None  # of its DUT, as it was read


class JobView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job as it stands, with its attempts, oldest first."""

    id: str
    run: str
    serial: int
    name: str
    kind: str
    what: str
    state: str
    after: tuple[int, ...] = ()
    target: str = ""
    started_at: int = 0
    ended_at: int = 0
    error: ErrorReport | None = None
    attempts: tuple[AttemptView, ...] = ()
    held: str = ""  # why a person holds it back


class Stopped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of one job: its state, and the processes that had to be stopped."""

    job: str
    state: str
    stopped: tuple[str, ...] = ()
    pending: bool = False  # its agent has not answered yet
    note: str = ""  # why it takes longer: the agent is away


class RunView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run as it stands. ``counts``: job state -> how many; ``total`` jobs in all."""

    id: str
    name: str
    org: str
    by: str
    state: str
    priority: int
    created_at: int
    started_at: int = 0
    ended_at: int = 0
    total: int = 0
    counts: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    reason: str = ""
    evidence: tuple[Evidence, ...] = ()
    loads: tuple[LoadRef, ...] = ()
    key: str = ""
    retry_of: str = ""
    seed: int = 4242
    held: int = 0  # jobs that wait and that a person holds back
    labels: dict[str, str] = {}


class Moved(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job that moved, and where it is now."""

    job: str
    name: str
    state: str
    place: str = ""
    note: str = ""


class News(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message on the ui subject of a run: what moved.

    ``seq`` is the sequence in the LOG, ``after`` that of the news before: a reader that has not
    seen that one has missed some, and asks for the run as it stands.
    """

    seq: int
    after: int = 0
    at: int
    run: str
    state: str
    counts: dict[str, int]
    reason: str = ""
    moved: tuple[Moved, ...] = ()
    restarted: bool = False  # another controller leads: ask for the run, and watch it again


class CheckedView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What health checks say of a host or a DUT."""

    at: int = 0  # of the newest check; 0: none yet
    state: str = ""  # how the newest that has ended did so
    run: str = ""
    faults: int = 0  # infrastructure errors in a row since


class AgentView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An agent as the controller sees it."""

    facts: AgentFacts
    state: str
    since: int
    free_slots: int
    jobs: tuple[str, ...] = ()
    heard_at: int = 0
    spool_bytes: int = 0
    intent: str = ""  # what people want of it: cordoned by radio/op: why
    intent_until: int = 0
    checked: CheckedView = CheckedView()


class DutView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A DUT as the controller sees it: available, leased, teardown, faulty or unreachable."""

    dut: Dut
    agent: str
    state: str
    job: str = ""  # that holds it
    kept_by: str = ""  # the run that keeps it between its jobs
    faulty: str = ""
    owner: str = ""  # org/name of the person who holds it, or org of the job
    since: int = 0  # of the hold
    until: int = 0  # of a lease
    ways: tuple[str, ...] = ()  # every agent that reaches it, of a shared one
    intent: str = ""  # what people want of it, or of its host
    intent_until: int = 0
    checked: CheckedView = CheckedView()


class SeriesView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One series: a key of a job on a host or DUT; ``stats`` as asked for, None without data."""

    key: str
    job: str
    attempt: int
    agent: str
    dut: str = ""
    unit: str = ""
    type: str = "gauge"
    count: int = 0
    first_at: int = 0
    last_at: int = 0
    stats: dict[str, object] = msgspec.field(default_factory=dict[str, object])
    spark: tuple[float, ...] = ()  # at most 40 means over equal slices of time
    spark_low: tuple[float, ...] = ()  # least and greatest of each slice
    spark_high: tuple[float, ...] = ()
    spark_gaps: tuple[int, ...] = ()  # slices without samples


class ControllerView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A controller of the lab. ``lag`` is how many frames it is behind the LOG."""

    node: str
    role: str  # leader or standby
    epoch: int
    sequence: int
    lag: int = 0
    version: str = ""
    heard_s: float = 0.0  # ago; 0: it is the one that answers
    troubles: tuple[str, ...] = ()
