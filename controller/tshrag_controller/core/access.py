"""PURE: may this person touch that DUT now, and as whom?

Reading is open to whoever's org holds the DUT, and to all where nobody holds it. Writing takes
the lease of the DUT; its fence goes to the agent, which refuses every older one.
"""

import msgspec

from tshrag_common.errors import NotFound, PolicyDenied, Refused, Unavailable
from tshrag_common.ids import AgentId, DutId, Fence, OrgId
from tshrag_common.states import AgentState
from tshrag_controller.core.lab import NO_FENCE, DutRow, Lab


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Where to go, and under which fence; 0: only to watch."""

    agent: AgentId
    fence: Fence = NO_FENCE
    until: int = 0


def access(
    lab: Lab, org: OrgId, person: str, dut: DutId | None, agent: AgentId | None, *, write: bool
) -> Access:
    """Return what `person` may do.

    Raises:
        NotFound: there is no such DUT or agent.
        PolicyDenied: another org has the DUT (``not_holder``), or writing without its lease
            (``no_lease``).
        Unavailable: its agent is away (``agent_away``).

    """
    if dut is None:
        return Access(agent=_present(lab, _named(lab, agent)))
    row = lab.duts.get(dut)
    if row is None:
        raise NotFound("dut", dut, lab.duts)
    holder = _holder(lab, row)
    if holder is not None and holder != org:
        raise PolicyDenied(f"dut {dut}", "another org has it", code="not_holder")
    if write:
        what = "writing takes its lease"
        raise PolicyDenied(f"dut {dut}", what, code="no_lease")
    return Access(agent=_present(lab, AgentId(row.agent)))


def _holder(lab: Lab, row: DutRow) -> OrgId | None:
    """Return the org that has a DUT, by an attempt or by a run that keeps it."""
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
