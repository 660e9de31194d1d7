"""PURE: may this person touch that DUT now, and as whom?

Reading is open to whoever's org holds the DUT, and to all where nobody holds it. Writing takes
the lease of the DUT; its fence goes to the agent, which refuses every older one.
"""

import msgspec

from tshrag_common.errors import NotFound, PolicyDenied, Refused, Unavailable
from tshrag_common.ids import AgentId, DutId, Fence, OrgId
from tshrag_common.states import AgentState
from tshrag_controller.core.lab import NO_FENCE, DutRow, Lab
from tshrag_controller.core.people import Lease


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Where to go, and under which fence; 0: only to watch."""

    agent: AgentId
    fence: Fence = NO_FENCE
    until: int = 0


def access(
    lab: Lab, org: OrgId, person: str, dut: DutId | None, host: AgentId | None, *, write: bool
) -> Access:
    """Return what `person` may do.

    Raises:
        NotFound: there is no such DUT or agent.
        PolicyDenied: another org has the DUT (``not_holder``), or writing without its lease
            (``no_lease``).
        Unavailable: its agent is away (``agent_away``).

    """
    if dut is None:
        return Access(agent=_present(lab, _named(lab, host)))
    row = lab.duts.get(dut)
    if row is None:
        raise NotFound("dut", dut, lab.duts)
    where, lease = f"dut {dut}", lab.people.of_dut(dut)
    holds = lease is not None and may_use(lease, org, person)
    holder = _holder(lab, row)
    if holder not in (None, org) and not holds:
        raise PolicyDenied(where, "another org has it", code="not_holder")
    agent = _present(lab, AgentId(row.agent))
    if lease is not None and holds:
        return Access(agent=agent, fence=lease.fence, until=lease.until)
    if write:
        what = f"{lease.owner} has its lease" if lease else "writing takes its lease"
        raise PolicyDenied(where, what, f"tshrag lease take {dut}", code="no_lease")
    return Access(agent=agent)


def may_use(lease: Lease, org: OrgId, person: str) -> bool:
    """Tell whether a person has this lease, or it is shared with him or his org."""
    return lease.owner == f"{org}/{person}" or bool({f"{org}/{person}", org} & {*lease.shared})


def _holder(lab: Lab, row: DutRow) -> OrgId | None:
    """Return the org that has a DUT: by a lease, an attempt, or a run that keeps it."""
    lease = lab.people.of_dut(row.dut.id)
    if lease is not None:
        return lease.org
    attempt = lab.attempts.get(row.holder)
    if attempt is not None:
        return lab.runs[lab.jobs[attempt.job].run].org
    run = lab.runs.get(row.kept_by) if row.kept_by else None
    return run.org if run else None


def _named(lab: Lab, agent: AgentId | None) -> AgentId:
    if agent is None:
        raise Refused("channel", "it names neither a DUT nor an agent", code="channel_target")
    if agent not in lab.agents:
        raise NotFound("agent", agent, lab.agents)
    return agent


def _present(lab: Lab, agent: AgentId) -> AgentId:
    row = lab.agents.get(agent)
    if row is None or row.state in (AgentState.LOST, AgentState.OFFLINE):
        raise Unavailable(f"agent {agent}", "it is away", "see 'tshrag agent list'",
                          code="agent_away")  # fmt: skip
    return agent
