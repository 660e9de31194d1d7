"""PURE: the places that are free for a need, best first, within one pass.

Within a pass nothing becomes free, so what was found to be taken or away stays so, and the work
is the number of placements plus the number of classes, not their product with the DUTs.
"""

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace

from tshrag_common.ids import AgentId, DutId
from tshrag_common.jobs import Group, Need
from tshrag_controller.core.aside import set_aside
from tshrag_controller.core.consumables import look_at
from tshrag_controller.core.gangs import gang_of
from tshrag_controller.core.groups import is_in_place, waits
from tshrag_controller.core.idle import classes_of, open_classes, top_dut, top_host
from tshrag_controller.core.lab import DutRow, Job, Lab, NeedKey, Run
from tshrag_controller.core.making_way import SlotsAside, before, slots_aside
from tshrag_controller.core.needs import Reason, away, blocked, misfits
from tshrag_controller.core.order import NEVER, order_of_run
from tshrag_controller.core.queues import roles_to_bind
from tshrag_controller.core.quotas import over_quota
from tshrag_controller.core.reservations import run_into
from tshrag_controller.core.ways import way_for

Avoid = tuple[str, ...]
LAST = (NEVER, 0, 0, 0)


def is_free(lab: Lab, need: Need, run: Run, row: DutRow) -> bool:
    """Tell whether `run` could have a DUT now."""
    return way_for(lab, need, row, run.id) is not None


def free_duts(lab: Lab, need: Need, run: Run) -> list[DutId]:
    """Return all DUTs that `run` could have now, by name: a look at every one."""
    return sorted(name for name, row in lab.duts.items() if is_free(lab, need, run, row))


def may_fit(lab: Lab, key: NeedKey) -> bool:
    """Tell whether anything may be free that a need could have; quick, and sure when it says no."""
    idle, need = lab.indexes.idle, lab.indexes.needs.get(key)
    if need is None or not need.wants_dut or need.target.duts or need.target.hosts:
        return True
    return bool(idle.kept or idle.shared or open_classes(lab, key))


def is_shunned(lab: Lab, need: Need, avoid: Avoid, name: DutId) -> bool:
    """Tell whether a job waits for another DUT than the one where it went wrong.

    It does where another one fits and is well, however busy; the only one is tried again.
    """
    if name not in avoid:
        return False
    return any(
        other not in avoid
        and not away(lab.agents[row.agent], row)
        and not misfits(need, lab.agents[row.agent].facts, row.dut)
        for other, row in lab.duts.items()
    )


def is_patient_there(lab: Lab, run: Run, group: Group | None, name: DutId, now: int) -> bool:
    """Tell whether a DUT needs no new setup for `run`, or is kept by it anyway."""
    row = lab.duts[name]
    return row.kept_by == run.id or is_in_place(row, group, now)


def slots_short(
    lab: Lab, aside: SlotsAside, need: Need, run: Run, name: AgentId
) -> tuple[Reason, ...]:
    """Say why a job does not take slots of a host that are free; empty: it does."""
    kept = before(aside, order_of_run(lab, run)).get(name, 0)
    if not kept or lab.agents[name].free_slots - kept >= need.slots:
        return ()
    return (Reason("gang", f"{kept} slots of {name} are set aside for jobs that start together"),)


def restraints(lab: Lab, run: Run, job: Job, row: DutRow, now: int) -> tuple[Reason, ...]:
    """Say why a job does not take a DUT that is free for it; empty: it does."""
    reserved = run_into(lab, run.spec(job).need, row, run.id)
    if reserved is not None:
        return (reserved,)
    if row.kept_by == run.id:
        return ()
    need = run.spec(job).need
    avoid = (*job.avoid, *run.avoid.get(need.role, ()))
    is_alone = not gang_of(run, job) and len(roles_to_bind(lab, run)) <= 1
    if is_alone and is_shunned(lab, need, avoid, row.dut.id):
        text = f"it went wrong on DUT {row.dut.id} before, and waits for another that fits"
        return (Reason("avoid", text),)
    if need.group is not None and not is_in_place(row, need.group, now):
        waiting = waits(lab, lab.need_key(run, job), run.org, run.created_at, now)
        if waiting is not None:
            return (waiting[0],)
    if not run.bound and set_aside(lab, now).get(row.dut.id, LAST) < order_of_run(lab, run):
        return (Reason("gang", f"DUT {row.dut.id} is set aside for jobs that start together"),)
    over = over_quota(lab, run.org, max(1, len(roles_to_bind(lab, run))))
    return (Reason("quota", over),) if over else ()


class Places:
    """What one pass has not given away yet."""

    def __init__(self, lab: Lab, now: int) -> None:
        self._lab, self._now = lab, now
        self._aside = set_aside(lab, now)
        self._slots_aside = slots_aside(lab)
        self._duts: dict[NeedKey, list[tuple[bool, DutId, bytes]]] = {}
        self._hosts: dict[NeedKey, list[tuple[int, AgentId, bytes]]] = {}
        self._away_duts: list[tuple[bytes, tuple[bool, DutId]]] = []
        self._away_hosts: list[tuple[bytes, tuple[int, AgentId]]] = []

    def close(self) -> None:
        """Put back into the index what this pass could not use."""
        idle = self._lab.indexes.idle
        for key, dut in self._away_duts:
            heappush(idle.duts[key], dut)
            idle.open.add(key)
        for key, host in self._away_hosts:
            heappush(idle.hosts[key], host)

    def duts(self, key: NeedKey, run: Run, avoid: Avoid = (), most: int = 1) -> list[DutId]:
        """Return up to `most` DUTs that `run` could have now; where it went wrong come last.

        One that wants a single DUT does not go back there while another fits, however busy; of
        several that go together each may: else no set of DUTs might do for all of them.

        First those that carry the setup of its group, last those that carry another. Its own,
        which it keeps for other jobs, come by name among the others.
        """
        lab = self._lab
        need = lab.indexes.needs[key]
        own = [row.dut.id for row in self._kept_by(run) if is_free(lab, need, run, row)]
        named = self._named(need)
        if named is not None:
            found = [row.dut.id for row in named if is_free(lab, need, run, row)]
        else:
            found = self._carrying(need, run) if need.group is not None else []
            if sum(name not in avoid for name in found) < most:
                found += self._first(key, need, run, avoid, most) or self._other_ways(need, run)
        ranked = sorted({*own, *found}, key=lambda name: self._rank(need, avoid, name))
        if avoid and most == 1:
            ranked = [name for name in ranked if not is_shunned(lab, need, avoid, name)]
        if self._aside and not run.bound:  # who keeps DUTs must go on, or nobody would
            mine = order_of_run(lab, run)
            ranked = [name for name in ranked if not self._aside.get(name, LAST) < mine]
        if need.group is not None and ranked:
            ranked = self._patient(key, run, ranked)
        return ranked[:most]

    def _rank(self, need: Need, avoid: Avoid, name: DutId) -> tuple[bool, bool, bool, DutId]:
        row = self._lab.duts[name]
        there = is_in_place(row, need.group, self._now)
        return (name in avoid, not there, bool(row.dut.carries), name)

    def _carrying(self, need: Need, run: Run) -> list[DutId]:
        group, lab = need.group, self._lab
        names = lab.indexes.idle.carriers.get(group.digest, ()) if group is not None else ()
        rows = (lab.duts[name] for name in sorted(names))
        return [
            row.dut.id
            for row in rows
            if is_in_place(row, group, self._now) and is_free(lab, need, run, row)
        ]

    def _patient(self, key: NeedKey, run: Run, ranked: list[DutId]) -> list[DutId]:
        """Leave out where another setup would be made, while it is better to wait."""
        lab = self._lab
        group = lab.indexes.needs[key].group
        there = [name for name in ranked if is_patient_there(lab, run, group, name, self._now)]
        if len(there) == len(ranked):
            return ranked
        waiting = waits(lab, key, run.org, run.created_at, self._now)
        if waiting is None:
            return ranked
        look_at(lab, waiting[1])
        return there

    def _kept_by(self, run: Run) -> Iterator[DutRow]:
        for dut in {*(dut for _, dut in run.bound.values()), *run.awaits}:
            row = self._lab.duts.get(dut)
            if row is not None and row.kept_by == run.id:
                yield row

    def _named(self, need: Need) -> Iterable[DutRow] | None:
        """Return the few DUTs that a need can have by its names; None where it names none."""
        rows = self._lab.duts
        target = need.target
        if target.duts:
            return [rows[DutId(name)] for name in sorted(target.duts) if name in rows]
        if target.hosts:
            hosts = [self._lab.agents.get(AgentId(name)) for name in sorted(target.hosts)]
            names = [dut.id for host in hosts if host is not None for dut in host.facts.duts]
            return [rows[name] for name in names if name in rows]
        return None

    def _other_ways(self, need: Need, run: Run) -> list[DutId]:
        """Return shared DUTs that fit through another agent than the one they are with."""
        rows = (self._lab.duts.get(name) for name in sorted(self._lab.indexes.idle.shared))
        return [row.dut.id for row in rows if row and is_free(self._lab, need, run, row)]

    def _first(self, key: NeedKey, need: Need, run: Run, avoid: Avoid, most: int) -> list[DutId]:
        lab, idle = self._lab, self._lab.indexes.idle
        heap = self._duts_of(key)
        found: list[DutId] = []
        good = 0
        wanted = most + len(self._aside)  # some of these are for others
        aside: list[tuple[bytes, tuple[bool, DutId]]] = []
        while heap and good < wanted:
            each = heap[0][2]
            top = top_dut(lab, each)
            if top is None:
                heappop(heap)
                continue
            if top != heap[0][:2]:
                heapreplace(heap, (*top, each))
                continue
            row = lab.duts[top[1]]
            is_away = bool(away(lab.agents[row.agent], row))
            if not is_away and is_free(lab, need, run, row):
                found.append(top[1])
                good += top[1] not in avoid
            if good < wanted:  # the last one may stay where it is: most often it is the first
                heappop(idle.duts[each])
                (self._away_duts if is_away else aside).append((each, top))
        for each, entry in aside:
            heappush(idle.duts[each], entry)
            idle.open.add(each)
        if aside:
            del self._duts[key]  # its entries tell of what stood behind these
        return found

    def _duts_of(self, key: NeedKey) -> list[tuple[bool, DutId, bytes]]:
        heap = self._duts.get(key)
        if heap is None:
            tops = ((top_dut(self._lab, each), each) for each in open_classes(self._lab, key))
            heap = self._duts[key] = [(*top, each) for top, each in tops if top is not None]
            heapify(heap)
        return heap

    def host(self, key: NeedKey, run: Run, avoid: Avoid = ()) -> AgentId | None:
        """Return the fitting host with the most free slots; where it went wrong comes last."""
        lab = self._lab
        need = lab.indexes.needs[key]
        if need.target.hosts:
            return self._named_host(need, run, avoid)
        heap = self._hosts_of(key)
        aside: list[tuple[bytes, tuple[int, AgentId]]] = []
        worse: list[AgentId] = []
        found: AgentId | None = None
        while heap and found is None:
            each = heap[0][2]
            top = top_host(lab, each)
            if top is None or -top[0] < need.slots:
                heappop(heap)  # the others of this class have less still
            elif top != heap[0][:2]:
                heapreplace(heap, (*top, each))
            elif away(lab.agents[top[1]], None):
                self._away_hosts.append((each, heappop(lab.indexes.idle.hosts[each])))
            elif self._is_second(need, run, avoid, top[1], worse):
                aside.append((each, heappop(lab.indexes.idle.hosts[each])))
            else:
                found = top[1]
        self._restore_hosts(key, aside)
        return found or next(iter(worse), None)

    def _restore_hosts(self, key: NeedKey, aside: list[tuple[bytes, tuple[int, AgentId]]]) -> None:
        for each, entry in aside:
            heappush(self._lab.indexes.idle.hosts[each], entry)
        if aside:
            del self._hosts[key]

    def _is_second(
        self, need: Need, run: Run, avoid: Avoid, name: AgentId, worse: list[AgentId]
    ) -> bool:
        """Tell whether other hosts are to be looked at first; note one that would do."""
        if blocked(need, self._lab.agents[name], None, run.id) or self._is_aside(need, run, name):
            return True
        if name in avoid:
            worse.append(name)
        return name in avoid

    def _is_aside(self, need: Need, run: Run, name: AgentId) -> bool:
        return bool(self._slots_aside) and bool(
            slots_short(self._lab, self._slots_aside, need, run, name)
        )

    def _named_host(self, need: Need, run: Run, avoid: Avoid) -> AgentId | None:
        agents = [self._lab.agents.get(AgentId(name)) for name in need.target.hosts]
        free = [
            agent
            for agent in agents
            if agent is not None
            and not blocked(need, agent, None, run.id)
            and not misfits(need, agent.facts, None)
            and not self._is_aside(need, run, agent.facts.agent)
        ]
        best = min(
            free,
            key=lambda agent: (agent.facts.agent in avoid, -agent.free_slots, agent.facts.agent),
            default=None,
        )
        return best.facts.agent if best is not None else None

    def _hosts_of(self, key: NeedKey) -> list[tuple[int, AgentId, bytes]]:
        heap = self._hosts.get(key)
        if heap is None:
            tops = ((top_host(self._lab, each), each) for each in classes_of(self._lab, key))
            heap = self._hosts[key] = [(*top, each) for top, each in tops if top is not None]
            heapify(heap)
        return heap
