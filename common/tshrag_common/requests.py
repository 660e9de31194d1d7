"""Operator -> controller, and the answers: the one API of the lab.

Each verb has a request and an answer here; CLI, Python client and HTTP map onto them one to one.
All of it is JSON. An Envelope carries every answer: exactly one of ``data`` and ``error``.
Instants are integer microseconds UTC, 0 where there is none; durations end in ``_s``.
"""

from typing import Annotated, Literal

import msgspec

from tshrag_common.errors import ErrorReport
from tshrag_common.ids import Whole
from tshrag_common.jobs import LoadRef
from tshrag_common.setup_stats import SetupStats
from tshrag_common.views import (
    AgentView,
    ControllerView,
    DutView,
    JobView,
    PlaceView,
    PlannedView,
    RunView,
    Stopped,
)
from tshrag_common.why_requests import OutlookAnswer

Verb = Literal[
    "submit", "plan", "cancel", "runs", "run", "jobs", "why", "stats", "health", "agents",
    "duts", "logs", "metrics", "metric_infos", "series", "watch", "blob_has", "blob_put",
    "lease_take", "lease_renew", "lease_release", "lease_share", "lease_transfer", "leases",
    "lease_reserve",
    "set_intent", "hold", "let_go", "reschedule",
    "outlook", "queue", "placement", "flaky", "work",
    "channel", "audit",
    "resolve",
    "query", "query_file", "query_part", "store_status", "store_do",
    "console", "console_grep", "signs",
    "drill",
    "judge",
]  # fmt: skip


Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Every answer, and the controller (``node``) that gives it.

    ``durable`` is false where the LOG does not reach the disk at once.
    """

    data: msgspec.Raw = msgspec.Raw(b"null")
    error: ErrorReport | None = None
    durable: bool = True
    node: str = ""


class LocalLoad(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A load that lay on the submitter's machine: packed there, uploaded by digest."""

    source: str
    digest: str
    size_bytes: int
    commit: str = ""


class Submit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Run this profile. ``run`` is the caller's ULID: the same again is the same run.

    ``profile`` is the document as JSON; ``loads`` names the local ones among its loads.
    ``plan`` takes the same and changes nothing.
    """

    run: str
    profile: msgspec.Raw
    key: str = ""
    priority: int = 50
    env: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    hosts: tuple[str, ...] = ()
    duts: tuple[str, ...] = ()
    not_before: Whole = 0
    deadline: Whole = 0
    duration_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    seed: Whole = 4242
    loads: dict[str, LocalLoad] = msgspec.field(default_factory=dict[str, LocalLoad])
    park: bool = False  # keep what nobody can serve yet
    retry_of: str = ""
    baseline: str = ""  # a run; "none"; empty: the newest of this name that passed
    outlook: bool = False  # tell how it looks for its first job, too


class SubmitAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The run is in the LOG. ``created`` is false where it was there before."""

    run: str
    created: bool
    jobs: int
    state: str = "waiting"
    warnings: tuple[str, ...] = ()
    outlook: OutlookAnswer | None = None  # of its first job that waits, where asked for


class WhyAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a job is where it is: a word, a sentence, and place by place what is missing."""

    job: str
    state: str
    reason: str
    sentence: str
    places: tuple[PlaceView, ...] = ()
    ahead: int = 0


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """A request about one thing: a run (``run-…``) or a job (``job-…``)."""

    id: str


class PlanAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The DAG that a submit would make. Jobs that differ in nothing share their ``places``."""

    name: str
    loads: tuple[LoadRef, ...]
    jobs: tuple[PlannedView, ...]
    criteria: tuple[str, ...] = ()
    total: int = 0


class Cancel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Cancel a run or a job; wait up to ``wait_s`` for what lives to be ended."""

    id: str
    wait_s: float = 15.0


class CancelAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All jobs that the cancel ended."""

    run: str
    jobs: tuple[Stopped, ...]


class ListRuns(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Newest first."""

    state: str = ""
    name: str = ""  # part of it
    limit: Limit = 20
    offset: Offset = 0
    states: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()  # any of them
    labels: Annotated[
        dict[str, str], msgspec.Meta(max_length=16)
    ] = {}  # of the profile, all of them
    people: bool = False  # without what the lab does by itself: health checks, teardowns


class RunsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A page of runs; ``more`` tells that older ones follow."""

    runs: tuple[RunView, ...]
    more: bool = False


class GetRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run; ``profile`` asks for the document too."""

    id: str
    profile: bool = False


class RunAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run and, where asked for, the profile as it was submitted; the feed stood at ``seq``."""

    run: RunView
    profile: msgspec.Raw = msgspec.Raw(b"null")
    seq: int = 0


class ListJobs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Jobs of a run in the order of their serials, or one job by its id."""

    id: str
    state: str = ""
    limit: Limit = 200
    offset: Offset = 0


class JobsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A page of jobs."""

    jobs: tuple[JobView, ...]
    more: bool = False


class Nothing(msgspec.Struct, frozen=True):
    """A request without fields."""


class StatsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Maintained counters, not counted ones; ``jobs`` and ``runs``: state -> how many."""

    runs: dict[str, int]
    jobs: dict[str, int]
    agents: dict[str, int]
    duts: dict[str, int]
    slots: int
    slots_taken: int
    attempts: int
    samples: int
    success_ratio: float | None
    counters: dict[str, int]
    setups: SetupStats | None = None  # of the whole lab; None: it is not for this org


class HealthAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``status`` is ok or degraded; every reason names its cause and the next step."""

    status: str
    at: int
    version: str
    node: str
    epoch: int
    sequence: int
    projected: int  # how far the projection has followed the LOG
    broker: str
    durable: bool
    reasons: tuple[str, ...] = ()
    counters: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    controllers: tuple[ControllerView, ...] = ()


class AgentsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """All agents, by name."""

    agents: tuple[AgentView, ...]


class DutsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """All DUTs, by name."""

    duts: tuple[DutView, ...]


class GetLogs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Output of a job, raw: at most ``limit`` bytes from ``offset``; -1: the last ``limit``.

    ``attempt`` 0 is the newest.
    """

    job: str
    stream: Literal["stdout", "stderr", "console"] = "stdout"
    attempt: int = 0
    offset: Annotated[int, msgspec.Meta(ge=-1, le=1 << 40)] = 0
    limit: int = 256 << 10


class LogsAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bytes as base64; ``next`` is the offset behind them; ``complete``: no more will come."""

    attempt: int
    offset: int
    next: int
    total: int
    complete: bool
    data: bytes = b""


class Watch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Let news of a run be published for the next 30 s; ask again to go on."""

    run: str


class WatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """News follow from here; ``run`` is as it stood at ``seq``."""

    seq: int
    run: RunView


class BlobHas(msgspec.Struct, frozen=True, kw_only=True):
    """Which of these digests are stored?"""

    digests: tuple[str, ...]


class BlobHasAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Those that are."""

    digests: tuple[str, ...]


class BlobPut(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a blob; pieces follow each other, a repeated one changes nothing."""

    digest: str
    offset: int
    total: int
    data: bytes


class BlobPutAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the blob is stored; go on from there."""

    stored: int
