"""PURE: jobs that share a setup: where it is in place, and when to make it once more.

A group is not kept anywhere: it is the jobs of one need that wait, and the DUTs that carry their
setup. So whoever comes while one waits or runs has joined, and nobody can hang behind a group.
"""

from msgspec.structs import replace

from tshrag_common.ids import AgentId, DutId, OrgId
from tshrag_common.jobs import Group
from tshrag_common.reports import Ended
from tshrag_controller.core.idle import note_dut
from tshrag_controller.core.lab import Attempt, DutRow, Lab, NeedKey, SetupStat, is_kept
from tshrag_controller.core.needs import Reason, away

KNOWN_SETUPS = 2000
"""Setups of which times are remembered; the longest unused goes first."""
NEWEST = 0.3
"""How much the newest job counts in the mean of the times of jobs."""


def note_start(row: DutRow, group: Group | None, at: int) -> None:
    """Count the jobs that follow each other on one setup. Part of `apply`."""
    if group is None:
        row.streak, row.streak_since = 0, 0
    elif carries(row, group) and row.streak and not is_over(row, group, at):
        row.streak += 1
    else:
        row.streak, row.streak_since = 1, at


def note_end(lab: Lab, attempt: Attempt, ended: Ended, at: int) -> None:
    """Take in what a DUT carries now, and what its setup has cost or saved. Part of `apply`."""
    row = lab.duts.get(attempt.dut) if attempt.dut is not None else None
    if row is not None and row.agent == attempt.agent and ended.carries is not None:
        set_carried(lab, row, ended.carries, ended.owes)
    run = lab.runs[lab.jobs[attempt.job].run]
    group = run.spec(lab.jobs[attempt.job]).need.group
    if group is None or not ended.setup:
        return
    stat = lab.setups.setdefault(group.digest, SetupStat())
    stat.at, stat.key, stat.linger_s = at, group.key, group.linger_s
    stat.org = run.org
    if ended.setup == "failed":
        stat.split = True
        return
    if ended.setup == "made":
        stat.made, stat.split = stat.made + 1, False
        stat.setup_s = ended.setup_us / 1e6
    else:
        stat.found += 1
    began = attempt.started_at or attempt.assigned_at
    own_us = at - began - (ended.setup_us if ended.setup == "made" else 0)
    took_s = max(0.0, own_us / 1e6)
    stat.job_s = took_s if not stat.job_s else stat.job_s + NEWEST * (took_s - stat.job_s)
    while len(lab.setups) > KNOWN_SETUPS:
        del lab.setups[min(lab.setups, key=lambda name: (lab.setups[name].at, name))]


def set_carried(
    lab: Lab, row: DutRow, carried: tuple[str, ...], owes: tuple[str, ...] | None = None
) -> None:
    """Let a DUT carry these setups, and no others, and owe those teardowns. Part of `apply`."""
    owing = row.dut.owes if owes is None else owes
    if row.undo_failed not in owing:
        row.undo_failed = ""
    if (row.dut.carries, row.dut.owes) != (carried, owing):
        row.dut = replace(row.dut, carries=carried, owes=owing)
        note_dut(lab, row)


def count_open(lab: Lab, digest: str, more: int) -> None:
    """Keep count of the jobs of a group that have not ended. Part of `apply`."""
    counts = lab.indexes.group_open
    before = counts.pop(digest, 0)
    if before + more:
        counts[digest] = before + more
    if not before or not before + more:  # the first has come, or the last has ended
        lab.indexes.undo_look.update(lab.indexes.idle.carriers.get(digest, ()))


def carries(row: DutRow, group: Group) -> bool:
    return group.digest in row.dut.carries


def is_over(row: DutRow, group: Group, now: int) -> bool:
    """Tell whether the jobs that share the setup of a DUT have had their turn."""
    limit_us = round(group.max_runtime_s * 1e6)
    return row.streak >= group.max_jobs or bool(limit_us and now - row.streak_since >= limit_us)


def is_in_place(row: DutRow, group: Group | None, now: int) -> bool:
    """Tell whether a job of `group` is preferred on a DUT, because its setup is there."""
    return group is not None and carries(row, group) and not is_over(row, group, now)


def ready_carrier(lab: Lab, group: Group, now: int) -> bool:
    """Tell whether a DUT which carries the setup of `group` is free."""
    rows = (lab.duts.get(name) for name in lab.indexes.idle.carriers.get(group.digest, ()))
    return any(
        row is not None
        and not row.holder
        and not row.kept_by
        and is_in_place(row, group, now)
        and not away(lab.agents[row.agent], row)
        for row in rows
    )


def waits(lab: Lab, key: NeedKey, org: OrgId, came_at: int, now: int) -> tuple[Reason, int] | None:
    """Say why a job of a group takes no DUT on which its setup would have to be made.

    It waits for others to come (its window), or for a DUT that carries the setup and is free
    sooner than another setup would take, for all that wait. With it the instant to look again.
    """
    need = lab.indexes.needs[key]
    group = need.group
    if group is None:
        return None
    begins_at = opens_at(group, came_at)
    if begins_at > now:
        left = (begins_at - now) / 1e6
        text = f"others may join its group for {left:.0f} s more"
        return Reason("group", text), begins_at
    stat = lab.setups.get(group.digest)
    if stat is None or stat.split or not stat.job_s:
        return None
    best = _soonest(lab, group, stat, now)
    if best is None:
        return None
    name, wait_s, carriers = best
    setup_s = stat.setup_s or lab.policy.setup_s
    last_s = wait_s + (_waiting(lab, key, org) - 1) / carriers * stat.job_s
    if last_s > setup_s:
        return None
    what = f"its setup is on DUT {name}, free in about {wait_s:.0f} s"
    again = now + round(max(1.0, setup_s) * 1e6)
    return Reason("group", f"{what}: another setup would take {setup_s:.0f} s"), again


def _soonest(lab: Lab, group: Group, stat: SetupStat, now: int) -> tuple[DutId, float, int] | None:
    """Return the busy DUT with this setup that is free first, in how long, and how many there are.

    A job that takes longer than jobs do is taken to need as long again as it has had.
    """
    found: list[tuple[float, DutId]] = []
    for name in lab.indexes.idle.carriers.get(group.digest, ()):
        row = lab.duts.get(name)
        attempt = lab.attempts.get(row.holder) if row is not None else None
        if row is None or attempt is None or not is_in_place(row, group, now):
            continue
        if away(lab.agents[AgentId(row.agent)], row):
            continue
        spent_s = (now - attempt.assigned_at) / 1e6
        left_s = stat.job_s - spent_s
        found.append((left_s if left_s > 0 else max(1.0, spent_s), name))
    if not found:
        return None
    wait_s, name = min(found)
    return name, wait_s, len(found)


def _waiting(lab: Lab, key: NeedKey, org: OrgId) -> int:
    """Return how many wait for the same, at least one."""
    indexes = lab.indexes
    if is_kept(indexes.needs[key]):
        return max(1, len(indexes.binding.get(((key,), org), ())))
    return max(1, len(indexes.ready.get((key, org), ())))


def opens_at(group: Group, came_at: int) -> int:
    """Return when the window of a group closes to which others may come."""
    return came_at + round(group.window_s * 1e6)
