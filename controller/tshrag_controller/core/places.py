"""PURE: the places that are free for a need, best first, within one pass.

Within a pass nothing becomes free, so what was found to be taken or away stays so, and the work
is the number of placements plus the number of classes, not their product with the DUTs.
"""

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace

from tshrag_common.ids import AgentId, DutId
from tshrag_common.jobs import Need
from tshrag_controller.core.idle import classes_of, open_classes, top_dut, top_host
from tshrag_controller.core.lab import DutRow, Job, Lab, NeedKey, Run
from tshrag_controller.core.needs import Reason, away, blocked, misfits
from tshrag_controller.core.queues import roles_to_bind
from tshrag_controller.core.quotas import Quotas
from tshrag_controller.core.reservations import run_into
from tshrag_controller.core.ways import way_for

Avoid = tuple[str, ...]


def is_free(lab: Lab, need: Need, run: Run, row: DutRow) -> bool:
    """Tell whether `run` could have a DUT now."""
    return way_for(lab, need, row, run.id) is not None


def free_duts(lab: Lab, need: Need, run: Run) -> list[DutId]:
    """Return all DUTs that `run` could have now, by name: a look at every one."""
    return sorted(name for name, row in lab.duts.items() if is_free(lab, need, run, row))


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


def restraints(lab: Lab, run: Run, job: Job, row: DutRow) -> tuple[Reason, ...]:
    """Say why a job does not take a DUT that is free for it; empty: it does."""
    reserved = run_into(lab, run.spec(job).need, row, run.id)
    if reserved is not None:
        return (reserved,)
    if row.kept_by == run.id:
        return ()
    need = run.spec(job).need
    avoid = (*job.avoid, *run.avoid.get(need.role, ()))
    if is_shunned(lab, need, avoid, row.dut.id):
        text = f"it went wrong on DUT {row.dut.id} before, and waits for another that fits"
        return (Reason("avoid", text),)
    over = Quotas(lab).reason(run.org, max(1, len(roles_to_bind(lab, run))))
    return (Reason("quota", over),) if over else ()


class Places:
    """What one pass has not given away yet."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
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

        Its own, which it keeps for other jobs, come by name among the others.
        """
        lab = self._lab
        need = lab.indexes.needs[key]
        own = [row.dut.id for row in self._kept_by(run) if is_free(lab, need, run, row)]
        named = self._named(need)
        if named is not None:
            found = [row.dut.id for row in named if is_free(lab, need, run, row)]
        else:
            found = self._first(key, need, run, avoid, most) or self._other_ways(need, run)
        ranked = sorted({*own, *found}, key=lambda name: (name in avoid, self._carries(name), name))
        if avoid:
            ranked = [name for name in ranked if not is_shunned(lab, need, avoid, name)]
        return ranked[:most]

    def _carries(self, name: DutId) -> bool:
        return bool(self._lab.duts[name].dut.carries)

    def _kept_by(self, run: Run) -> Iterator[DutRow]:
        for _, dut in run.bound.values():
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
        aside: list[tuple[bytes, tuple[bool, DutId]]] = []
        while heap and good < most:
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
            if good < most:  # the last one may stay where it is: most often it is the first
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
        if blocked(need, self._lab.agents[name], None, run.id):
            return True
        if name in avoid:
            worse.append(name)
        return name in avoid

    def _named_host(self, need: Need, run: Run, avoid: Avoid) -> AgentId | None:
        agents = [self._lab.agents.get(AgentId(name)) for name in need.target.hosts]
        free = [
            agent
            for agent in agents
            if agent is not None
            and not blocked(need, agent, None, run.id)
            and not misfits(need, agent.facts, None)
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
