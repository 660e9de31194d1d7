"""PURE: the recorded half of a Lab as one value, and a Lab made from it again."""

import msgspec

from tshrag_common import ids
from tshrag_common.ids import AgentId, DutId, Epoch, Fence, JobId, OrgId, RunId
from tshrag_common.states import JOB, RUN, AgentState, JobState
from tshrag_controller.core.apply import count_role
from tshrag_controller.core.apply_preempt import note_preemptible
from tshrag_controller.core.holds import watch_verdicts
from tshrag_controller.core.idle import reindex
from tshrag_controller.core.lab import (
    Agent,
    Attempt,
    Consumed,
    DutRow,
    Indexes,
    Job,
    Lab,
    OrgUse,
    Run,
    SetupStat,
    set_timer,
)
from tshrag_controller.core.leases import revive_people
from tshrag_controller.core.on_agent import GONE_US, watch_overdue
from tshrag_controller.core.on_attempt import wait_for_rest
from tshrag_controller.core.people import People
from tshrag_controller.core.policy import Policy
from tshrag_controller.core.queues import enqueue, index_run


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """All of a Lab that is not an index, at one sequence of the LOG."""

    version: int = 1
    sequence: int
    epoch: Epoch
    ev_hi: int
    admitted: int
    runs: dict[RunId, Run]
    jobs: dict[JobId, Job]
    attempts: dict[Fence, Attempt]
    agents: dict[AgentId, Agent]
    duts: dict[DutId, DutRow]
    keys: dict[str, RunId]
    counters: dict[str, int]
    at: int = 0
    people: People = msgspec.field(default_factory=People)
    policy: Policy = Policy()
    orgs: dict[OrgId, OrgUse] = msgspec.field(default_factory=dict)
    consumed: dict[str, Consumed] = msgspec.field(default_factory=dict)
    setups: dict[str, SetupStat] = msgspec.field(default_factory=dict)


_FIELDS = tuple(name for name in Recorded.__struct_fields__ if name != "version")
_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Recorded] = msgspec.msgpack.Decoder(Recorded)


def recorded(lab: Lab) -> bytes:
    """Return the recorded half of `lab` as bytes."""
    return _ENCODER.encode(Recorded(**{name: getattr(lab, name) for name in _FIELDS}))


def revive(data: bytes, now: int) -> Lab:
    """Return the Lab that `recorded` saw, with its indexes made anew.

    Timers that were due in the meantime are due now.
    """
    value = _DECODER.decode(data)
    lab = Lab(**{name: getattr(value, name) for name in _FIELDS})
    index_anew(lab, now)
    return lab


def index_anew(lab: Lab, now: int) -> None:
    """Make the indexes of `lab` from its recorded half, as if it had just been revived."""
    lab.indexes = Indexes()
    reindex(lab)
    for run in sorted(lab.runs.values(), key=lambda run: run.order):
        _index(lab, run, now)
    for agent in lab.agents.values():
        if agent.state in (AgentState.LOST, AgentState.OFFLINE):
            set_timer(lab, now + GONE_US, "gone", agent.facts.agent)
            for fence in agent.fences:
                watch_overdue(lab, fence, now)
    for row in lab.duts.values():
        if row.undo:
            lab.indexes.undoing[RunId(row.undo)] = row.dut.id
    revive_people(lab, now)


def _index(lab: Lab, run: Run, now: int) -> None:
    index_run(lab, run)
    jobs = [lab.jobs[ids.job_of(run.id, planned.serial)] for planned in run.plan.jobs]
    for job in jobs:
        if not JOB.is_final(job.state):
            count_role(lab, run, job, +1)
    for job in jobs:
        _index_job(lab, run, job, now)
    watch_verdicts(lab, run)
    if run.deadline and not RUN.is_final(run.state):
        set_timer(lab, run.deadline, "expire", run.id)
    if run.duration_us and run.started_at and not RUN.is_final(run.state):
        set_timer(lab, run.started_at + run.duration_us, "duration", run.id)


def _index_job(lab: Lab, run: Run, job: Job, now: int) -> None:
    attempt = lab.attempts.get(job.fence)
    if attempt is not None and not attempt.outcome:
        note_preemptible(lab, run, job)
    if job.state is JobState.WAITING and not job.missing:
        enqueue(lab, run, job, now)
    elif job.state is JobState.RUNNING and attempt is None:
        set_timer(lab, job.not_before, "sleep", job.id)
    elif job.state is JobState.COLLECTING and attempt is not None:
        wait_for_rest(lab, attempt, now)
