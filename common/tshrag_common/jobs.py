"""What a plan is made of: jobs, what each needs, and the order among them.

A run of 2,000 equal jobs holds one JobSpec and 2,000 short PlannedJobs: specs are shared in the
LOG, in memory and in commands.
"""

from typing import Literal

import msgspec

from tshrag_common.actions import Action, Capture
from tshrag_common.criteria import CompiledCriterion
from tshrag_common.metrics import MetricInfo
from tshrag_common.results import ResultFile
from tshrag_common.scrapes import Scrape

JobKind = Literal["load", "command", "sleep", "comment", "nop", "board"]
"""``load``, ``command`` and ``board`` are placed on an agent; the others the controller ends."""

Way = Literal["host", "dut", "ssh", "serial", "local"]
"""How a job is reached: a Runtime, or ``dut``: on a DUT, whichever way it has."""

RetryOn = Literal["error", "lost", "failed", "timeout"]
MAX_GANG = 64
MAX_JOBS = 10_000
"""Of one run: its plan is one frame of the LOG."""


class Target(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a job asks for. All that is given must fit; an empty one fits every host.

    ``runtime`` says how the load is reached: on the host, or on a DUT. ``labels`` are
    compared for equality, with those of the DUT first, then with those of its host.
    ``hold``: a run keeps one DUT for a role from its first job to the last that needs it
    ("run"), or every job takes any that fits ("job").
    """

    runtime: Way = "host"
    kind: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    duts: tuple[str, ...] = ()  # names, any of them; empty: whichever fits
    hosts: tuple[str, ...] = ()  # names of agents, any of them
    hold: Literal["run", "job"] = "run"
    where: tuple[str, ...] = ()  # conditions on labels, all of them (`conditions`)


class Group(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Jobs that share a setup of their DUT: those of one digest go back to back where it is.

    ``digest`` covers org, key, commands and the environment of the profile: whatever differs
    there is another setup.
    """

    key: str
    digest: str
    max_jobs: int = 50  # one after the other on one DUT, while others wait
    max_runtime_s: float = 0.0  # of all of these; 0: no limit
    window_s: float = 0.0  # how long the first waits for others before a setup is made for it
    linger_s: float = -1.0  # how long its setup stays behind its last job; below 0: as the lab says


class Setup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is done once for a group on a DUT, and what undoes it before another one comes."""

    digest: str
    commands: tuple[tuple[str, ...], ...] = ()
    teardown: tuple[tuple[str, ...], ...] = ()
    env: dict[str, str] = {}  # of the profile: others undo it, with an environment of their own


class Need(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that placement filters with: the target, and what the load asks of the place."""

    target: Target = Target()
    role: str = ""  # name of the target in the profile; empty: none was named
    platforms: tuple[tuple[str, str], ...] = ()  # (os, arch) the load has an entry for; empty: any
    tools: tuple[str, ...] = ()  # programs that the host must have
    slots: int = 1  # of the host; a job on a DUT takes its DUT instead
    can: tuple[str, ...] = ()  # what the DUT must have: power, console, bootloader, flash
    resources: dict[str, float] = {}  # of the host, also beside a DUT: memory, cpus, by name
    consumes: dict[str, int] = {}  # of the whole lab: licences, what a PDU strip can do
    group: Group | None = None  # of jobs on a DUT

    @property
    def wants_dut(self) -> bool:
        return self.target.runtime != "host"


class LoadRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A resolved load: the digest is its identity, the rest says where it came from."""

    name: str
    digest: str  # sha256 of the packed canonical tree, 64 hex digits; "" for a builtin
    source: str  # as the profile has it
    commit: str = ""
    size_bytes: int = 0
    builtin: str = ""  # entry point, for ``builtin:NAME``


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one job does, with every variable of the plan already put in its place.

    ``argv`` of a command; a load gets its entry from its manifest, for the platform it lands on.
    ``env`` is what the profile adds. ``timeout_s`` counts from the start of an attempt.
    """

    kind: JobKind
    load: LoadRef | None = None
    argv: tuple[str, ...] = ()
    text: str = ""  # of a comment
    sleep_s: float = 0.0
    params: dict[str, object] = msgspec.field(default_factory=dict[str, object])
    level: int = 0
    env: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    cwd: str = ""
    need: Need = Need()
    timeout_s: float = 1800.0
    attempts: int = 3  # in all, for error and lost
    on_fail: Literal["stop", "continue"] = "stop"
    output_bytes: int = 64 << 20  # of each stream; what is beyond is cut and marked
    namespace: str = ""  # metrics of the job live below it; empty: any key
    metrics: tuple[MetricInfo, ...] = ()
    board: Action | None = None  # what is done with the DUT itself
    freeze_s: float = 0.0  # when it failed, its DUT is handed to the submitter for so long
    capture: tuple[Capture, ...] = ()  # asked of the DUT before that
    disconnect_s: float = 0.0  # without the bus it is given up after so long; 0: by what it holds
    results: tuple[ResultFile, ...] = ()  # that its tools write, read at its end
    when: CompiledCriterion | None = None  # it starts when samples of the run say so
    until: CompiledCriterion | None = None  # it has done enough when they say so
    abort: CompiledCriterion | None = None  # it fails when they say so
    on_crash: Literal["mark", "fail"] = "mark"  # when the console of its DUT tells of one
    expect_reboot: bool = True  # false: it fails when its DUT boots meanwhile
    setup: Setup | None = None  # of its group
    scrape: tuple[Scrape, ...] = ()  # endpoints that are asked while it runs
    retry_on: tuple[RetryOn, ...] = ()  # outcomes after which it is tried again; (): the lab's
    retry_elsewhere: bool = False  # also after a failure or a time-out
    preemptible: bool = False  # it may be ended for somebody of higher priority, and queued again
    undo: bool = False  # it undoes the setup that its DUT carries, and does nothing else

    @property
    def is_guarded(self) -> bool:
        return any(guard is not None for guard in (self.when, self.until, self.abort))

    @property
    def is_placed(self) -> bool:
        """Tell whether an agent is needed at all."""
        return self.kind in ("load", "command", "board")


class PlannedJob(msgspec.Struct, frozen=True, array_like=True):
    """One node of the DAG. Serials count from 1 and follow the order of the document."""

    serial: int
    name: str  # path in the schedule: ``stress.*seq.flash``; shown, never parsed
    spec: int  # index into the specs of the plan
    after: tuple[int, ...] = ()  # serials that must have ended first
    env: dict[str, str] = {}  # what differs among repeats: TSHRAG_REPEAT and axes of a matrix
    gang: int = 0  # serial of the first of those that start together; 0: it starts alone


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The DAG of a run, in topological order."""

    specs: tuple[JobSpec, ...]
    jobs: tuple[PlannedJob, ...]
