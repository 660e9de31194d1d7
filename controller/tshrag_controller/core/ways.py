"""PURE: who reaches a DUT. An owned one is reached by its agent, a shared one by several.

The row of a DUT is one, and so is its holder, however many agents tell of it: two attempts on it
at a time would need two rows.
"""

from collections.abc import Iterator

from tshrag_common.ids import AgentId, DutId
from tshrag_common.inventory import AgentFacts, Dut
from tshrag_common.jobs import Need
from tshrag_common.states import AgentState
from tshrag_controller.core.idle import forget_dut, note_dut
from tshrag_controller.core.lab import Agent, DutRow, Lab
from tshrag_controller.core.needs import blocked, misfits
from tshrag_controller.core.reservations import run_into

AWAY = (AgentState.LOST, AgentState.OFFLINE)


def ways(lab: Lab, row: DutRow) -> Iterator[tuple[Agent, Dut]]:
    """Yield who reaches a DUT, and how each describes it; first the one that had it last."""
    if not row.ways or row.agent in row.ways:
        yield lab.agents[row.agent], row.dut
    for name in row.ways:
        dut = described(lab.agents[name].facts, row.dut.id) if name != row.agent else None
        if dut is not None:
            yield lab.agents[name], dut


def described(facts: AgentFacts, name: DutId) -> Dut | None:
    return next((dut for dut in facts.duts if dut.id == name), None)


def way_for(lab: Lab, need: Need, row: DutRow, run: str) -> AgentId | None:
    """Return an agent through which `run` can have this DUT now; None: there is none."""
    if run_into(lab, need, row, run) is not None:
        return None
    for agent, dut in ways(lab, row):
        if not blocked(need, agent, row, run) and not misfits(need, agent.facts, dut):
            return agent.facts.agent
    return None


def reaches(row: DutRow, agent: AgentId) -> bool:
    return row.agent == agent or agent in row.ways


def is_reachable(lab: Lab, row: DutRow) -> bool:
    """Tell whether some agent that reaches the DUT is here."""
    return any(agent.state not in AWAY for agent, _ in ways(lab, row))


def lead_over(lab: Lab, row: DutRow, agent: AgentId) -> None:
    """Let `agent` have the DUT. Part of `apply`."""
    if row.agent != agent:
        dut = described(lab.agents[agent].facts, row.dut.id)
        row.agent, row.dut = agent, dut or row.dut
        note_dut(lab, row)


def settle(lab: Lab, row: DutRow) -> None:
    """Let a shared DUT that nobody has be with an agent that is here. Part of `apply`."""
    here = AgentState.ONLINE
    if row.holder or not row.ways or lab.agents[row.agent].state is here:
        return
    for agent, _ in ways(lab, row):
        if agent.state is here:
            lead_over(lab, row, agent.facts.agent)
            return


def settle_all(lab: Lab, facts: AgentFacts) -> None:
    """Look again at the shared DUTs of an agent that has come or gone. Part of `apply`."""
    for dut in facts.duts:
        row = lab.duts.get(dut.id) if dut.shared else None
        if row is not None:
            settle(lab, row)


def tell(lab: Lab, facts: AgentFacts) -> None:
    """Take in what an agent tells of its DUTs, and what it tells no more. Part of `apply`."""
    told = {dut.id for dut in facts.duts}
    for dut in facts.duts:
        _tell(lab, facts.agent, dut)
    for name, row in list(lab.duts.items()):
        if name not in told and reaches(row, facts.agent):
            _untell(lab, row, facts.agent)
            drop_if_gone(lab, row)
    settle_all(lab, facts)


def _tell(lab: Lab, agent: AgentId, dut: Dut) -> None:
    row = lab.duts.get(dut.id)
    if row is None:
        ways = (agent,) if dut.shared else ()
        intent = lab.people.intents.get(f"dut/{dut.id}")
        lab.duts[dut.id] = DutRow(dut, agent, faulty=dut.faulty, ways=ways, intent=intent)
    elif dut.shared and row.dut.shared:
        row.ways = tuple(sorted({*row.ways, row.agent, agent}))
        row.faulty = dut.faulty or row.faulty
        if row.gone or row.agent == agent:
            row.agent, row.dut, row.gone = agent, dut, False
    elif row.agent == agent:
        row.dut, row.faulty, row.gone = dut, dut.faulty or row.faulty, False
        row.ways = (agent,) if dut.shared else ()
    else:  # it is another's own
        row.ways = tuple(name for name in row.ways if name != agent)
    note_dut(lab, lab.duts[dut.id])


def _untell(lab: Lab, row: DutRow, agent: AgentId) -> None:
    row.ways = tuple(name for name in row.ways if name != agent)
    if row.agent != agent:
        return
    if row.ways and not row.holder:
        lead_over(lab, row, row.ways[0])
    else:
        row.gone = not row.ways


def drop_if_gone(lab: Lab, row: DutRow) -> None:
    """Let go of a DUT that nobody tells of and nobody has; another agent may tell of it now."""
    if not row.gone or row.holder or row.kept_by or lab.duts.get(row.dut.id) is not row:
        return
    del lab.duts[row.dut.id]
    forget_dut(lab, row.dut.id)
    for name in sorted(lab.agents):
        dut = described(lab.agents[name].facts, row.dut.id)
        if dut is not None:
            _tell(lab, name, dut)
