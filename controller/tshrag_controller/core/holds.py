"""PURE: what attempts hold and runs keep: slots and DUTs, taken and let go. Part of `apply`."""

from tshrag_common.ids import Fence
from tshrag_controller.core.lab import Attempt, DutRow, Lab, Run


def take(lab: Lab, run: Run, attempt: Attempt) -> None:
    agent = lab.agents[attempt.agent]
    agent.fences.add(attempt.fence)
    if attempt.dut is not None:
        lab.duts[attempt.dut].holder = attempt.fence
    else:
        agent.host_slots += run.spec(lab.jobs[attempt.job]).need.slots


def release(lab: Lab, attempt: Attempt) -> None:
    """Free the slot or the DUT; the attempt itself stays until its job is final."""
    job = lab.jobs[attempt.job]
    run = lab.runs[job.run]
    run.live -= 1
    agent = lab.agents[attempt.agent]
    agent.fences.discard(attempt.fence)
    if attempt.dut is None:
        agent.host_slots -= run.spec(job).need.slots
        return
    row = lab.duts.get(attempt.dut)
    if row is not None and row.holder == attempt.fence:
        row.holder = Fence(0)
        let_go(lab, row)
        drop_if_gone(lab, row)


def release_role(lab: Lab, run: Run, role: str) -> None:
    """Let go of the DUT of a role, one of whose jobs has ended, unless it is still needed."""
    bound = run.bound.get(role)
    row = lab.duts.get(bound[1]) if bound else None
    if row is not None and row.kept_by == run.id:
        let_go(lab, row)
        drop_if_gone(lab, row)


def let_go(lab: Lab, row: DutRow) -> None:
    """Let go of a kept DUT when no open job of its role is left and no attempt is on it.

    That attempt may be of another role: a job that takes any DUT may take one its run keeps.
    """
    if row.holder or row.kept_by is None:
        return
    run = lab.runs[row.kept_by]
    roles = (role for role, (_, dut) in run.bound.items() if dut == row.dut.id)
    if not any(lab.indexes.role_users.get((run.id, role), 0) for role in roles):
        row.kept_by = None


def drop_if_gone(lab: Lab, row: DutRow) -> None:
    """Let go of a DUT that nobody tells of and nobody has; another agent may tell of it now."""
    if not row.gone or row.holder or row.kept_by or lab.duts.get(row.dut.id) is not row:
        return
    del lab.duts[row.dut.id]
    for name in sorted(lab.agents):
        for dut in lab.agents[name].facts.duts:
            if dut.id == row.dut.id and dut.id not in lab.duts:
                lab.duts[dut.id] = DutRow(dut, name, faulty=dut.faulty)
