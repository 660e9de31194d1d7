"""Every state of the lab and every legal move between them.

A machine is a table: state -> cause -> state. Code names the cause, never the target. A final
state has an empty row. What a waiting job waits for is not a state: core/why.py computes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from tshrag_common.errors import IllegalMove


class JobState(StrEnum):
    """Where a job stands; docs/reference/states.md draws the moves."""

    WAITING = "waiting"
    ASSIGNED = "assigned"  # a fence is given, the agent has not said yes yet
    PREPARING = "preparing"  # the agent fetches, verifies, lays out
    RUNNING = "running"
    COLLECTING = "collecting"  # it has ended; its samples and output are still on their way
    PASSED = "passed"
    FAILED = "failed"  # it ran and did not hold
    ERROR = "error"  # it could not run, or could not be judged
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    EXPIRED = "expired"  # its window passed before it started
    SKIPPED = "skipped"  # what it needs did not hold


class JobCause(StrEnum):
    """What moves a job."""

    ASSIGN = "assign"
    PREPARE = "prepare"
    START = "start"
    COLLECT = "collect"
    REQUEUE = "requeue"
    PASS = "pass"
    FAIL = "fail"
    BREAK = "break"
    TIME_OUT = "time_out"
    CANCEL = "cancel"
    EXPIRE = "expire"
    SKIP = "skip"


class AttemptState(StrEnum):
    """Where one try of a job stands."""

    ASSIGNED = "assigned"
    PREPARING = "preparing"
    RUNNING = "running"
    ENDED = "ended"
    LOST = "lost"  # its agent vanished, or forgot it


class AttemptCause(StrEnum):
    """What moves an attempt."""

    ACCEPT = "accept"
    START = "start"
    END = "end"
    LOSE = "lose"


class RunState(StrEnum):
    """Where a run stands; it ends as the worst of its jobs and verdicts."""

    WAITING = "waiting"
    RUNNING = "running"
    EVALUATING = "evaluating"
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class RunCause(StrEnum):
    """What moves a run."""

    START = "start"
    EVALUATE = "evaluate"
    PASS = "pass"
    FAIL = "fail"
    BREAK = "break"
    TIME_OUT = "time_out"
    CANCEL = "cancel"
    EXPIRE = "expire"


class AgentState(StrEnum):
    """How an agent is seen from the controller."""

    ONLINE = "online"
    SUSPECT = "suspect"  # silent for 15 s
    LOST = "lost"  # silent for 30 s
    DRAINING = "draining"  # takes nothing new
    OFFLINE = "offline"  # said goodbye


class AgentCause(StrEnum):
    """What moves an agent."""

    HELLO = "hello"
    BEAT = "beat"
    DOUBT = "doubt"
    LOSE = "lose"
    DRAIN = "drain"
    RESUME = "resume"
    LEAVE = "leave"


S = TypeVar("S", bound=StrEnum)
C = TypeVar("C", bound=StrEnum)


@dataclass(frozen=True)
class Machine(Generic[S, C]):
    """A table of moves under a name for its errors."""

    name: str
    moves: Mapping[S, Mapping[C, S]]

    def next(self, state: S, cause: C) -> S:
        """Return the state after `cause`; raise IllegalMove where the table has no row."""
        try:
            return self.moves[state][cause]
        except KeyError:
            raise IllegalMove(self.name, state, cause) from None

    def may(self, state: S, cause: C) -> bool:
        return cause in self.moves[state]

    def is_final(self, state: S) -> bool:
        return not self.moves[state]


_ENDS: dict[JobCause, JobState] = {
    JobCause.BREAK: JobState.ERROR,
    JobCause.TIME_OUT: JobState.TIMEOUT,
    JobCause.CANCEL: JobState.CANCELLED,
}
_VERDICTS: dict[JobCause, JobState] = {
    JobCause.PASS: JobState.PASSED,
    JobCause.FAIL: JobState.FAILED,
}

JOB = Machine[JobState, JobCause](
    "job",
    {
        JobState.WAITING: {
            JobCause.ASSIGN: JobState.ASSIGNED,
            JobCause.START: JobState.RUNNING,  # a sleep: the controller's own
            JobCause.PASS: JobState.PASSED,  # a comment, a nop
            JobCause.EXPIRE: JobState.EXPIRED,
            JobCause.SKIP: JobState.SKIPPED,
            **_ENDS,
        },
        JobState.ASSIGNED: {
            JobCause.PREPARE: JobState.PREPARING,
            JobCause.START: JobState.RUNNING,
            JobCause.COLLECT: JobState.COLLECTING,
            JobCause.REQUEUE: JobState.WAITING,
            **_ENDS,
        },
        JobState.PREPARING: {
            JobCause.START: JobState.RUNNING,
            JobCause.COLLECT: JobState.COLLECTING,
            JobCause.REQUEUE: JobState.WAITING,
            **_ENDS,
        },
        JobState.RUNNING: {
            JobCause.PASS: JobState.PASSED,  # a sleep is over
            JobCause.COLLECT: JobState.COLLECTING,
            JobCause.REQUEUE: JobState.WAITING,
            **_ENDS,
        },
        JobState.COLLECTING: {
            JobCause.REQUEUE: JobState.WAITING,
            JobCause.SKIP: JobState.SKIPPED,  # the verdict of its run was decided before its end
            **_VERDICTS,
            **_ENDS,
        },
        JobState.PASSED: {},
        JobState.FAILED: {},
        JobState.ERROR: {},
        JobState.TIMEOUT: {},
        JobState.CANCELLED: {},
        JobState.EXPIRED: {},
        JobState.SKIPPED: {},
    },
)

ATTEMPT = Machine[AttemptState, AttemptCause](
    "attempt",
    {
        AttemptState.ASSIGNED: {
            AttemptCause.ACCEPT: AttemptState.PREPARING,
            AttemptCause.START: AttemptState.RUNNING,  # the report of the acceptance was merged
            AttemptCause.END: AttemptState.ENDED,
            AttemptCause.LOSE: AttemptState.LOST,
        },
        AttemptState.PREPARING: {
            AttemptCause.START: AttemptState.RUNNING,
            AttemptCause.END: AttemptState.ENDED,
            AttemptCause.LOSE: AttemptState.LOST,
        },
        AttemptState.RUNNING: {
            AttemptCause.END: AttemptState.ENDED,
            AttemptCause.LOSE: AttemptState.LOST,
        },
        AttemptState.ENDED: {},
        AttemptState.LOST: {},
    },
)

_RUN_ENDS: dict[RunCause, RunState] = {
    RunCause.PASS: RunState.PASSED,
    RunCause.FAIL: RunState.FAILED,
    RunCause.BREAK: RunState.ERROR,
    RunCause.TIME_OUT: RunState.TIMEOUT,
    RunCause.CANCEL: RunState.CANCELLED,
    RunCause.EXPIRE: RunState.EXPIRED,
}

RUN = Machine[RunState, RunCause](
    "run",
    {
        RunState.WAITING: {
            RunCause.START: RunState.RUNNING,
            RunCause.EVALUATE: RunState.EVALUATING,
            **_RUN_ENDS,
        },
        RunState.RUNNING: {RunCause.EVALUATE: RunState.EVALUATING, **_RUN_ENDS},
        RunState.EVALUATING: _RUN_ENDS,
        RunState.PASSED: {},
        RunState.FAILED: {},
        RunState.ERROR: {},
        RunState.TIMEOUT: {},
        RunState.CANCELLED: {},
        RunState.EXPIRED: {},
    },
)

_AGENT_ALWAYS: dict[AgentCause, AgentState] = {
    AgentCause.HELLO: AgentState.ONLINE,
    AgentCause.LEAVE: AgentState.OFFLINE,
    AgentCause.DRAIN: AgentState.DRAINING,
}

AGENT = Machine[AgentState, AgentCause](
    "agent",
    {
        AgentState.ONLINE: {AgentCause.DOUBT: AgentState.SUSPECT, **_AGENT_ALWAYS},
        AgentState.SUSPECT: {
            AgentCause.BEAT: AgentState.ONLINE,
            AgentCause.LOSE: AgentState.LOST,
            **_AGENT_ALWAYS,
        },
        AgentState.LOST: {AgentCause.BEAT: AgentState.ONLINE, **_AGENT_ALWAYS},
        AgentState.DRAINING: {
            AgentCause.RESUME: AgentState.ONLINE,
            AgentCause.LOSE: AgentState.LOST,
            **_AGENT_ALWAYS,
        },
        AgentState.OFFLINE: {AgentCause.BEAT: AgentState.ONLINE, **_AGENT_ALWAYS},
    },
)


_JOB_ENDS_RUN: dict[JobState, RunCause] = {
    JobState.FAILED: RunCause.FAIL,
    JobState.EXPIRED: RunCause.EXPIRE,
    JobState.CANCELLED: RunCause.CANCEL,
    JobState.TIMEOUT: RunCause.TIME_OUT,
    JobState.ERROR: RunCause.BREAK,
}
_WORST_LAST = tuple(_JOB_ENDS_RUN)


def worst(states: set[JobState]) -> RunCause:
    """Return how a run ends whose jobs ended as `states`; skipped alone does not spoil it."""
    bad = [state for state in _WORST_LAST if state in states]
    return _JOB_ENDS_RUN[bad[-1]] if bad else RunCause.PASS
