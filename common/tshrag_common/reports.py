"""Agent -> controller: what happened (reports), and the beat of its heart.

Reports lie in the agent's journal before they are on the wire. They travel in batches of one
spool, numbered without a gap: ``(agent, spool, seq)`` is the key by which each counts once.
A heartbeat may be lost; its answer renews, confirms and tells whether a Sync follows.
"""

from typing import Annotated, Literal

import msgspec

from tshrag_common.errors import ErrorReport
from tshrag_common.ids import WHOLE, AgentId, DutId, Epoch, Fence, OrgId, Whole
from tshrag_common.inventory import AgentFacts
from tshrag_common.metrics import SampleBatch

Outcome = Literal["passed", "failed", "error", "timeout", "cancelled", "refused", "preempted"]
"""How an attempt ended, as its agent saw it. ``refused``: it was never started here."""
Held = Annotated[Fence, WHOLE]


class Report(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """Something that happened; ``at`` is the agent's wall clock, microseconds UTC."""

    at: Whole


class Hello(Report, frozen=True, kw_only=True, array_like=True, tag="hello"):
    """An agent is here, or its facts have changed. ``holds`` are attempts it has not ended."""

    facts: AgentFacts
    holds: tuple[Held, ...] = ()


class Goodbye(Report, frozen=True, kw_only=True, array_like=True, tag="goodbye"):
    """An agent leaves in order; it holds nothing any more."""

    reason: str = ""


class Accepted(Report, frozen=True, kw_only=True, array_like=True, tag="accepted"):
    """An attempt is in the journal of its agent and is being prepared."""

    fence: Held


class Started(Report, frozen=True, kw_only=True, array_like=True, tag="started"):
    """The first process of an attempt runs."""

    fence: Held


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """What an attempt used: processor time and the largest resident set."""

    cpu_us: int = 0
    max_rss_bytes: int = 0


class OutputEnd(msgspec.Struct, frozen=True, array_like=True):
    """One stream of output: its length, and how much of it the limit cut off."""

    length_bytes: int = 0
    cut_bytes: int = 0


class MetricNotice(msgspec.Struct, frozen=True, array_like=True):
    """Samples that were not taken: how many, and the first reason."""

    key: str
    count: int
    reason: str


class BoardClock(msgspec.Struct, frozen=True, array_like=True):
    """The clock of a DUT as an attempt found it: what has to be added to get the agent's time.

    ``error_us``: the true offset is at most so far from it. 0 as offset: both may be the same.
    """

    offset_us: int = 0
    error_us: Whole = 0
    round_trip_us: Whole = 0  # the quickest reading
    readings: Whole = 0
    jumps: Whole = 0
    aligned: Whole = 0  # samples that were moved


class Ended(Report, frozen=True, kw_only=True, array_like=True, tag="ended"):
    """Nothing of the attempt is alive any more, and all it said lies in the spools.

    ``samples_upto`` and ``output_upto`` are numbers in the spools of samples and output: when
    everything up to them is stored, the attempt can be judged. 0: nothing to wait for.
    """

    fence: Held
    outcome: Outcome
    started_at: Whole = 0  # 0: it never started
    exit_code: int | None = None
    signal: int = 0
    error: ErrorReport | None = None
    samples_upto: Whole = 0
    output_upto: Whole = 0
    usage: Usage = Usage()
    stdout: OutputEnd = OutputEnd()
    stderr: OutputEnd = OutputEnd()
    stopped: tuple[str, ...] = ()  # what had to be stopped, for people: "pid 71 sleep 60 (kill)"
    notices: tuple[MetricNotice, ...] = ()
    dut_notes: tuple[str, ...] = ()  # "unguarded", "rebooted at …"
    carries: tuple[str, ...] | None = None  # setups that the DUT carries now; None: as before
    setup: Literal["", "made", "found", "failed"] = ""  # what came of that of its group
    setup_us: Whole = 0  # how long that took, or had taken when it was made
    clock: BoardClock | None = None  # of its DUT; None: it was not read
    owes: tuple[str, ...] | None = None  # setups whose teardown is to be done; None: as before
    samples_from: Whole = 0  # of the spool when it began: its own come behind; 0: not known


class DutChanged(Report, frozen=True, kw_only=True, array_like=True, tag="dut_changed"):
    """A DUT went bad or is well again (empty ``faulty``)."""

    dut: DutId
    faulty: str = ""


class ConsoleSigned(Report, frozen=True, kw_only=True, array_like=True, tag="console_signed"):
    """The console of a DUT has told something: a boot, a login prompt, a crash.

    ``boot`` counts the boots of the DUT since its agent began, ``fence`` is the attempt that has
    the DUT (0: none).
    """

    dut: DutId
    sign: str
    text: str
    boot: Whole = 0
    fence: Annotated[int, WHOLE] = 0


class ChannelTold(Report, frozen=True, kw_only=True, array_like=True, tag="channel_told"):
    """A person opened or closed (``phase``) a channel here; bytes are counted when it closes.

    ``fence`` is that of his lease (0: none); ``end`` the code of the error that closed it.
    """

    org: OrgId
    by: str
    session: str
    what: str
    detail: str
    phase: str
    dut: DutId | None = None
    fence: Annotated[int, WHOLE] = 0
    up_bytes: Whole = 0
    down_bytes: Whole = 0
    end: str = ""


AnyReport = Hello | Goodbye | Accepted | Started | Ended | DutChanged | ConsoleSigned | ChannelTold


class ReportBatch(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Reports ``first_seq``, ``first_seq + 1``, … of one spool: one message on ``ev``."""

    agent: AgentId
    spool: str
    first_seq: Whole
    reports: tuple[AnyReport, ...]


class SamplesMessage(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Batches ``first_seq``, … of the spool of samples: one message on ``met``."""

    agent: AgentId
    spool: str
    first_seq: Whole
    batches: tuple[SampleBatch, ...]


class OutputChunk(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Bytes of a stream of an attempt at an offset; repeated chunks say the same.

    With ``dut`` it is a block of a console instead (console_log.py): ``offset`` is the number of
    its first record since the agent began, run, job and attempt are empty.
    """

    run: str
    job: str
    attempt: Whole
    stream: Literal["stdout", "stderr", "console"]
    offset: Whole
    data: bytes
    at: Whole = 0
    dut: str = ""


class OutputBatch(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Chunks ``first_seq``, … of the spool of output: one message on ``logs``."""

    agent: AgentId
    spool: str
    first_seq: Whole
    chunks: tuple[OutputChunk, ...]


class SpoolState(msgspec.Struct, frozen=True, array_like=True):
    """A spool as the agent has it: its id, the last number given, the last one confirmed."""

    spool: str
    last: Whole = 0
    confirmed: Whole = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Every 5 s, a request on ``hb``."""

    agent: AgentId
    boot: str
    at: int
    digest: int  # of the fences that it has and has not ended, and of the leases
    heard: tuple[Epoch, int]  # (epoch, n) of the newest command
    free_slots: int = 0
    draining: bool = False
    reports: SpoolState = SpoolState("")
    samples: SpoolState = SpoolState("")
    output: SpoolState = SpoolState("")
    spool_bytes: int = 0
    counters: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    used: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    """Fence of a lease -> seconds since its DUT was last used; only of those with a use."""
    trouble: str = ""  # what keeps it from storing or telling, for people


class HeartbeatAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The leader's answer. Confirmed numbers may leave the journal.

    ``again_from`` > 0: send the spool of reports once more from there, a gap was seen;
    ``samples_again`` and ``output_again`` say the same of the others. ``sent`` is the number of
    the newest command to the agent when the confirmed numbers were looked up: whatever was sent
    up to there may name attempts whose end is confirmed, and is too old from now on.
    """

    epoch: Epoch
    at: int
    refused: ErrorReport | None = None  # it may not speak under this name: another one does
    known: bool = True  # false: say hello first
    reports_upto: int = 0
    samples_upto: int = 0
    output_upto: int = 0
    again_from: int = 0
    samples_again: int = 0
    output_again: int = 0
    sent: int = 0
