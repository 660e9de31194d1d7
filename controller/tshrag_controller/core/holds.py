"""PURE: what attempts hold and runs keep: slots and DUTs, taken and let go. Part of `apply`."""

from tshrag_common.ids import DutId, Fence
from tshrag_common.jobs import Need
from tshrag_controller.core.consumables import give_back_resources, take_resources
from tshrag_controller.core.freeze_events import BoardKept, BoardLetGo
from tshrag_controller.core.groups import note_start
from tshrag_controller.core.idle import note_dut, note_host
from tshrag_controller.core.lab import Attempt, Awaited, DutRow, Lab, Run, set_timer
from tshrag_controller.core.order import note_given_back, note_taken
from tshrag_controller.core.resolve_events import AttemptResolved
from tshrag_controller.core.ways import AWAY, described, drop_if_gone, lead_over, settle


def size_of(need: Need) -> int:
    """Return how many places an attempt counts as: its DUT, or its slots."""
    return 1 if need.wants_dut else need.slots


def take(lab: Lab, run: Run, attempt: Attempt) -> None:
    agent = lab.agents[attempt.agent]
    agent.fences.add(attempt.fence)
    need = run.spec(lab.jobs[attempt.job]).need
    note_taken(lab, run.org, size_of(need), attempt.assigned_at)
    take_resources(lab, agent, need, attempt.assigned_at)
    if attempt.dut is not None:
        row = lab.duts[attempt.dut]
        row.holder = attempt.fence
        note_start(row, need.group, attempt.assigned_at)
        lead_over(lab, row, attempt.agent)
        for role, (_, dut) in run.bound.items():
            if dut == attempt.dut:
                run.bound[role] = (attempt.agent, dut)
        note_dut(lab, row)
    else:
        agent.host_slots += need.slots
        note_host(lab, agent)


def release(lab: Lab, attempt: Attempt, at: int) -> None:
    """Free the slot or the DUT; the attempt itself stays until its job is final."""
    job = lab.jobs[attempt.job]
    run = lab.runs[job.run]
    run.live -= 1
    agent = lab.agents[attempt.agent]
    agent.fences.discard(attempt.fence)
    need = run.spec(job).need
    note_given_back(lab, run.org, size_of(need), attempt.assigned_at, at)
    give_back_resources(lab, agent, need)
    if attempt.dut is None:
        agent.host_slots -= need.slots
        note_host(lab, agent)
        return
    row = lab.duts.get(attempt.dut)
    if row is not None and row.holder == attempt.fence:
        row.holder = Fence(0)
        let_go(lab, row)
        settle(lab, row)
        drop_if_gone(lab, row)


def attempt_resolved(lab: Lab, event: AttemptResolved, at: int) -> None:
    """Give the DUT of a host that is away to another agent that tells of it.

    Only a person can do that for an owned DUT: he has seen that it is free.
    """
    attempt = lab.attempts[event.fence]
    row = lab.duts.get(attempt.dut) if attempt.dut else None
    if row is None or row.ways:
        return
    for name in sorted(lab.agents):
        is_here = lab.agents[name].state not in AWAY
        if is_here and described(lab.agents[name].facts, row.dut.id) is not None:
            lead_over(lab, row, name)
            return


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
    is_free = not row.holder or row.holder in lab.people.leases  # a lease may lie on a kept DUT
    if row.kept_by is not None:
        run = lab.runs[row.kept_by]
        roles = [role for role, (_, dut) in run.bound.items() if dut == row.dut.id]
        is_used = any(lab.indexes.role_users.get((run.id, role), 0) for role in roles)
        is_awaited = row.dut.id in run.awaits  # without a role it is kept for nothing else
        if (is_free or not roles) and not is_used and not is_awaited:
            row.kept_by = None
    note_dut(lab, row)


def board_kept(lab: Lab, event: BoardKept, at: int) -> None:
    run, row = lab.runs[event.run], lab.duts.get(event.dut)
    if row is None or row.kept_by not in (None, run.id):
        return
    run.awaits[event.dut] = Awaited(event.job, event.attempt, event.until)
    row.kept_by = run.id
    _watch_verdict(lab, run, event.dut)
    note_dut(lab, row)


def watch_verdicts(lab: Lab, run: Run) -> None:
    for dut in run.awaits:
        _watch_verdict(lab, run, dut)


def _watch_verdict(lab: Lab, run: Run, dut: DutId) -> None:
    set_timer(lab, run.awaits[dut].until, "verdict", f"{run.id} {dut}")


def board_let_go(lab: Lab, event: BoardLetGo, at: int) -> None:
    _await_no_more(lab, lab.runs[event.run], event.dut)


def let_boards_go(lab: Lab, run: Run) -> None:
    """Let go of all that waits for the verdict of a run: it is there."""
    for dut in list(run.awaits):
        _await_no_more(lab, run, dut)


def _await_no_more(lab: Lab, run: Run, dut: DutId) -> None:
    run.awaits.pop(dut, None)
    row = lab.duts.get(dut)
    if row is not None and row.kept_by == run.id:
        let_go(lab, row)
        drop_if_gone(lab, row)
