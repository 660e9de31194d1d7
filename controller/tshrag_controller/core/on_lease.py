"""PURE: what comes of leases: those that ran out, and attempts that a person gives up."""

import msgspec

from tshrag_common import contact, ids
from tshrag_common.errors import NotFound, Refused
from tshrag_common.ids import AgentId, Fence, OrgId
from tshrag_common.states import ATTEMPT, JOB, AgentState, AttemptCause
from tshrag_controller.core.decision import Decision, SendCancel
from tshrag_controller.core.lab import Attempt, Lab
from tshrag_controller.core.on_agent import give_up_at
from tshrag_controller.core.on_attempt import lose
from tshrag_controller.core.resolve_events import AttemptResolved
from tshrag_controller.core.ways import AWAY

HERE = (AgentState.ONLINE, AgentState.DRAINING)


def on_leases_over(decision: Decision, agent: AgentId, silent_s: float) -> None:
    """Lose what an agent that has been silent for so long held under a lease.

    By now it has ended that itself, or the shepherd and the board have: what it held is free.
    """
    lab = decision.lab
    for fence in sorted(lab.agents[agent].fences):
        attempt = lab.attempts[fence]
        lease_s = attempt.lease_s
        # a start that was sent after the last heartbeat is on its way, and has a whole lease
        known_s = min(silent_s, (decision.now - attempt.assigned_at) / 1e6)
        if contact.is_over(lease_s, known_s):
            what = f"agent {agent} has not answered for {silent_s:.0f} s"
            lose(decision, fence, f"{what}, the lease of {lease_s:g} s is over")


class Resolving(msgspec.Struct, frozen=True):
    """An attempt that a person may give up, and all that he should know before."""

    attempt: Attempt
    agent_state: str
    gives_up_at: int  # when it would be given up without him
    is_job_open: bool
    frees: str  # the DUT, or the slots of the host


def find_attempt(lab: Lab, org: OrgId, name: str) -> Attempt:
    """Return the live attempt that `name` means: a job, or ``JOB.N``, or a fence.

    Raises:
        NotFound: nothing of that name is alive in this org.
        Refused: it has ended already.

    """
    own = [each for each in lab.attempts.values() if lab.runs[ids.run_of(each.job)].org == org]
    names = ((each, (str(each.fence), each.job, f"{each.job}.{each.number}")) for each in own)
    found = next((each for each, known in names if name in known), None)
    if found is None:
        raise NotFound("attempt", name, [f"{each.job}.{each.number}" for each in own])
    if not ATTEMPT.may(found.state, AttemptCause.LOSE):
        raise Refused(name, f"the attempt is {found.state}", code="already_final")
    return found


def resolving(lab: Lab, org: OrgId, name: str) -> Resolving:
    """Return what giving up an attempt means."""
    attempt = find_attempt(lab, org, name)
    job = lab.jobs[attempt.job]
    slots = lab.runs[job.run].spec(job).need.slots
    return Resolving(
        attempt=attempt,
        agent_state=lab.agents[attempt.agent].state,
        gives_up_at=give_up_at(lab, attempt.fence),
        is_job_open=not JOB.is_final(job.state),
        frees=f"DUT {attempt.dut}" if attempt.dut else f"{slots} slots of {attempt.agent}",
    )


def may_resolve(lab: Lab, org: OrgId, name: str) -> Resolving:
    """Return what giving up an attempt means, where a person may do it now.

    Raises:
        NotFound, Refused: there is no such attempt, it has ended, or its agent answers.

    """
    found = resolving(lab, org, name)
    attempt = found.attempt
    state = lab.agents[attempt.agent].state
    if state not in AWAY:  # a command may still be on its way to one that is only suspect
        fix = f"end it in order: tshrag cancel {attempt.job}"
        raise Refused(name, f"its agent {attempt.agent} is {state}", fix, code="agent_answers")
    return found


def on_resolve(decision: Decision, org: OrgId, name: str, by: str, reason: str) -> Resolving:
    """Give up an attempt because a person says that nothing of it is alive.

    Raises:
        NotFound, Refused: there is no such attempt, it has ended, or its agent answers.

    """
    found = may_resolve(decision.lab, org, name)
    attempt = found.attempt
    decision.happen(AttemptResolved(fence=attempt.fence, by=by, reason=reason))
    lose(decision, attempt.fence, f"resolved by {by}: {reason}")
    decision.then(SendCancel(attempt.agent, attempt.fence, "lost"))
    return found


def unreachable(lab: Lab, fence: Fence, now: int) -> str:
    """Say that the end of an attempt waits for an agent that is away; empty: it is here."""
    attempt = lab.attempts.get(fence)
    if attempt is None or lab.agents[attempt.agent].state in HERE:
        return ""
    left_s = max(0.0, (give_up_at(lab, fence) - now) / 1e6)
    if attempt.lease_s:
        left_s = min(left_s, attempt.lease_s + contact.GRANT_S)
    state = lab.agents[attempt.agent].state
    return (
        f"cancelling (agent unreachable): {attempt.agent} is {state}; "
        f"what it holds is free in {left_s:.0f} s at the latest"
    )
