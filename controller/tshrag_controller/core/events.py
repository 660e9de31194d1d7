"""What happened: the words of the LOG, and so for ever.

An event is small, says one thing, and needs no other to be understood by `apply`. A new field
has a default and stands last; a kind is never reused, a field never retyped. The time and the
sequence stand on the frame that holds the event, not in it. The events of runs and agents are
here; those of another area stand in a room of its own (``<area>_events.py``) and join the union.
"""

from typing import Literal

import msgspec

from tshrag_common.criteria import CompiledCriterion, Evidence
from tshrag_common.errors import ErrorReport
from tshrag_common.ids import AgentId, DutId, Epoch, Fence, JobId, OrgId, RunId
from tshrag_common.inventory import AgentFacts
from tshrag_common.jobs import LoadRef, Plan
from tshrag_common.reports import Ended
from tshrag_common.states import AgentCause, JobCause, RunCause
from tshrag_controller.core.channel_events import ChannelEvent
from tshrag_controller.core.console_events import ConsoleEvent
from tshrag_controller.core.event import Event
from tshrag_controller.core.freeze_events import FreezeEvent
from tshrag_controller.core.health_events import HealthEvent
from tshrag_controller.core.intent_events import IntentEvent
from tshrag_controller.core.lease_events import LeaseEvent
from tshrag_controller.core.live_events import LiveEvent
from tshrag_controller.core.preempt_events import AttemptPreempted as AttemptPreempted
from tshrag_controller.core.resolve_events import AttemptResolved as AttemptResolved
from tshrag_controller.core.sched_events import PolicySet, RoleReleased
from tshrag_controller.core.store_events import StoreTended as StoreTended
from tshrag_controller.core.suspend_events import SuspendEvent
from tshrag_controller.core.teardown_events import TeardownEvent


class LeaderChosen(Event, frozen=True, kw_only=True, array_like=True, tag="leader_chosen"):
    """A controller leads from here on; whoever wrote with a lower epoch is deposed."""

    epoch: Epoch
    node: str


class RunAdmitted(Event, frozen=True, kw_only=True, array_like=True, tag="run_admitted"):
    """A profile was accepted; its plan is fixed, and every load in it by digest."""

    run: RunId
    org: OrgId
    by: str
    key: str
    name: str
    priority: int
    profile: bytes  # canonical JSON, as it was submitted
    plan: Plan
    loads: tuple[LoadRef, ...] = ()
    criteria: tuple[CompiledCriterion, ...] = ()
    labels: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    not_before: int = 0  # microseconds UTC; 0: at once
    deadline: int = 0  # unstarted jobs expire then; 0: never
    duration_us: int = 0  # of the whole run, from its first job; 0: no limit
    seed: int = 4242
    retry_of: str = ""
    baseline: str = ""  # the run that criteria with ``vs: baseline`` compare with; "": none
    stop_early: bool = False  # as soon as its verdict is decided


class RolesBound(Event, frozen=True, kw_only=True, array_like=True, tag="roles_bound"):
    """A run has its DUTs, all of them at once; it keeps each until no job needs it any more."""

    run: RunId
    duts: tuple[tuple[str, AgentId, DutId], ...]  # (role, agent, DUT)


class JobAssigned(Event, frozen=True, kw_only=True, array_like=True, tag="job_assigned"):
    """A job goes to an agent, as attempt number `attempt`, under a fence never used before."""

    job: JobId
    fence: Fence
    agent: AgentId
    attempt: int
    dut: DutId | None = None


class JobMoved(Event, frozen=True, kw_only=True, array_like=True, tag="job_moved"):
    """A job moved for a reason that is no report of an attempt.

    ``until`` is the instant before which it may not start again (backoff) or at which it is
    over (a sleep).
    """

    job: JobId
    cause: JobCause
    until: int = 0
    error: ErrorReport | None = None


class AttemptAccepted(Event, frozen=True, kw_only=True, array_like=True, tag="attempt_accepted"):
    """The agent has the attempt in its journal."""

    fence: Fence
    at: int  # of the agent's clock


class AttemptStarted(Event, frozen=True, kw_only=True, array_like=True, tag="attempt_started"):
    """The first process of the attempt runs."""

    fence: Fence
    at: int


class AttemptEnded(Event, frozen=True, kw_only=True, array_like=True, tag="attempt_ended"):
    """Nothing of the attempt is alive; its leases are free from here on."""

    ended: Ended


class AttemptLost(Event, frozen=True, kw_only=True, array_like=True, tag="attempt_lost"):
    """The agent forgot the attempt or stayed away beyond its limit; nobody speaks for it now."""

    fence: Fence
    reason: str


class JobJudged(Event, frozen=True, kw_only=True, array_like=True, tag="job_judged"):
    """A job whose attempt ended has its final state, and the evidence for it."""

    job: JobId
    cause: JobCause
    evidence: tuple[Evidence, ...] = ()
    error: ErrorReport | None = None


class RunMoved(Event, frozen=True, kw_only=True, array_like=True, tag="run_moved"):
    """A run started, or waits only for its verdict now."""

    run: RunId
    cause: RunCause


class RunJudged(Event, frozen=True, kw_only=True, array_like=True, tag="run_judged"):
    """A run has its final state, and the evidence for it."""

    run: RunId
    cause: RunCause
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""


class AgentSeen(Event, frozen=True, kw_only=True, array_like=True, tag="agent_seen"):
    """An agent said hello with these facts, and holds these attempts."""

    facts: AgentFacts
    holds: tuple[Fence, ...] = ()


class AgentMoved(Event, frozen=True, kw_only=True, array_like=True, tag="agent_moved"):
    """An agent fell silent, came back, drains, left."""

    agent: AgentId
    cause: AgentCause
    reason: str = ""


class DutMarked(Event, frozen=True, kw_only=True, array_like=True, tag="dut_marked"):
    """A DUT went bad, or is well again (empty ``faulty``)."""

    agent: AgentId
    dut: DutId
    faulty: str = ""


class SpoolApplied(Event, frozen=True, kw_only=True, array_like=True, tag="spool_applied"):
    """Reports of this spool are in the LOG up to ``upto``; the same again changes nothing."""

    agent: AgentId
    spool: str
    upto: int


class ReportRefused(Event, frozen=True, kw_only=True, array_like=True, tag="report_refused"):
    """A report that counted for nothing: why it did is kept for those who look."""

    agent: AgentId
    seq: int
    code: Literal[
        "stale_fence", "not_holder", "unknown_job", "already_final", "unknown_dut", "stale_spool"
    ]
    what: str = ""


AnyEvent = (
    LeaderChosen
    | RunAdmitted
    | RolesBound
    | JobAssigned
    | JobMoved
    | AttemptAccepted
    | AttemptStarted
    | AttemptEnded
    | AttemptLost
    | JobJudged
    | RunMoved
    | RunJudged
    | AgentSeen
    | AgentMoved
    | DutMarked
    | SpoolApplied
    | ReportRefused
    | LeaseEvent
    | IntentEvent
    | SuspendEvent
    | HealthEvent
    | PolicySet
    | RoleReleased
    | AttemptResolved
    | FreezeEvent
    | ConsoleEvent
    | ChannelEvent
    | LiveEvent
    | TeardownEvent
    | AttemptPreempted
    | StoreTended
)
