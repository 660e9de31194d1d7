"""PURE: what time brings: pauses and sleeps end, windows close, limits run out."""

from heapq import heappop

from tshrag_common.ids import AgentId, Fence, JobId, RunId
from tshrag_common.states import RUN, JobCause, JobState
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.follow import end_job
from tshrag_controller.core.freeze import TIMERS as FREEZE_TIMERS
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.leases import TIMERS as LEASE_TIMERS
from tshrag_controller.core.on_agent import on_gone, on_overdue
from tshrag_controller.core.on_attempt import on_unsettled
from tshrag_controller.core.on_intent import TIMERS as INTENT_TIMERS
from tshrag_controller.core.on_reserve import TIMERS as RESERVE_TIMERS
from tshrag_controller.core.on_run import on_duration, on_expire
from tshrag_controller.core.queues import enqueue
from tshrag_controller.core.teardown import TIMERS as TEARDOWN_TIMERS

_TIMERS = {**LEASE_TIMERS, **INTENT_TIMERS, **RESERVE_TIMERS, **TEARDOWN_TIMERS, **FREEZE_TIMERS}


def next_due(lab: Lab) -> int:
    """Return when the next timer is due, microseconds UTC; 0: there is none."""
    return lab.indexes.timers[0][0] if lab.indexes.timers else 0


def on_tick(decision: Decision) -> None:
    """Let everything that is due happen, in the order of its time."""
    timers = decision.lab.indexes.timers
    while timers and timers[0][0] <= decision.now:
        _, what, name = heappop(timers)
        if what in _TIMERS:
            _TIMERS[what](decision, name)
        elif what == "look":
            decision.lab.indexes.looks.discard(int(name))  # the pass of this turn does it
        else:
            _due(decision, what, name)


def _due(decision: Decision, what: str, name: str) -> None:
    lab = decision.lab
    match what:
        case "wake":
            wake(lab, JobId(name), decision.now)
        case "sleep":
            job = lab.jobs.get(JobId(name))
            if job is not None and job.state is JobState.RUNNING:
                end_job(decision, job, JobCause.PASS)
        case "settle":
            on_unsettled(decision, Fence(int(name)))
        case "overdue":
            on_overdue(decision, Fence(int(name)))
        case "gone":
            on_gone(decision, AgentId(name))
        case _:
            run = lab.runs.get(RunId(name))
            if run is not None and not RUN.is_final(run.state):
                (on_expire if what == "expire" else on_duration)(decision, run)


def wake(lab: Lab, name: JobId, now: int) -> None:
    """Queue a job whose pause or window is over."""
    job = lab.jobs.get(name)
    if job is None or job.state is not JobState.WAITING or job.missing:
        return
    run = lab.runs[job.run]
    if max(job.not_before, run.not_before) <= now:
        enqueue(lab, run, job, now)
