"""PURE: which places may be free, without looking at all of them.

Places of one class fit the same needs, so a need is held against a class once, and a class has a
heap of what may be free. An index may tell too much: whoever takes from it asks `blocked` of the
place itself. It never tells too little: a place that lets go is put back by `apply`.
"""

from collections.abc import Iterable
from heapq import heappop, heappush

import msgspec

from tshrag_common.ids import AgentId, DutId
from tshrag_common.inventory import AgentFacts, Dut
from tshrag_common.jobs import Need
from tshrag_controller.core.lab import Agent, DutRow, Lab, NeedKey
from tshrag_controller.core.needs import misfits
from tshrag_controller.core.owners import forget_owner, note_owner

_ENCODER = msgspec.msgpack.Encoder(order="deterministic")


def _host_class(facts: AgentFacts) -> bytes:
    """Return all that a need may ask of a host but its name, whatever facts there will be."""
    plain = msgspec.structs.replace(
        facts, agent=AgentId(""), boot="", version="", duts=(), pid=0, hostname=""
    )
    return _ENCODER.encode(plain)


def _dut_class(facts: AgentFacts, dut: Dut) -> bytes:
    plain = msgspec.structs.replace(dut, id=DutId(""), faulty="", carries=(), owes=())
    return _ENCODER.encode(plain) + _host_class(facts)


def note_agent(lab: Lab, agent: Agent) -> None:
    """Take in what a host says of itself and of its DUTs. Part of `apply`."""
    idle, facts = lab.indexes.idle, agent.facts
    key = _host_class(facts)
    if idle.host_class.get(facts.agent) != key:
        idle.host_class[facts.agent] = key
        idle.listed.pop(facts.agent, None)
        if key not in idle.hosts:
            idle.hosts[key] = []
            idle.host_samples[key] = facts
            idle.classes.clear()
    note_host(lab, agent)
    for dut in facts.duts:
        row = lab.duts.get(dut.id)
        if row is not None and row.agent == facts.agent:
            note_dut(lab, row)


def note_host(lab: Lab, agent: Agent) -> None:
    """List a host under the slots that it has free. Part of `apply`."""
    idle, name = lab.indexes.idle, agent.facts.agent
    free = agent.free_slots
    if idle.listed.get(name) == free:
        return
    idle.listed[name] = free
    heap = idle.hosts[idle.host_class[name]]
    heappush(heap, (-free, name))
    if len(heap) > 64 + 4 * len(idle.listed):  # most entries say what was
        heap[:] = sorted({entry for entry in heap if idle.listed.get(entry[1]) == -entry[0]})


def note_dut(lab: Lab, row: DutRow) -> None:
    """List a DUT as one that may be free, as one that waits for its run, or not at all.

    Part of `apply`, whenever its holder, its keeper or its inventory changes.
    """
    idle, name = lab.indexes.idle, row.dut.id
    facts = lab.agents[row.agent].facts
    seen = idle.dut_seen.get(name)
    if seen is None or seen[0] is not row.dut or seen[1] is not facts:
        key = _dut_class(facts, row.dut)
        idle.dut_seen[name] = (row.dut, facts)
    else:
        key = idle.dut_class[name]
    if idle.dut_class.get(name) != key:
        idle.dut_class[name] = key
        idle.in_heap.discard(name)  # its entry elsewhere is passed over
        if key not in idle.duts:
            idle.duts[key] = []
            idle.dut_samples[key] = (facts, row.dut)
            idle.classes.clear()
    note_owner(lab, row)
    _note_carried(lab, row)
    if row.dut.owes or row.undo:
        lab.indexes.undo_look.add(name)
    (idle.shared.add if row.ways else idle.shared.discard)(name)
    if row.kept_by and not row.holder:
        idle.kept.add(name)
        lab.indexes.look.add(row.kept_by)
        return
    idle.kept.discard(name)
    if not row.holder and name not in idle.in_heap:
        idle.in_heap.add(name)
        heappush(idle.duts[key], (bool(row.dut.carries), name))
        idle.open.add(key)


def _note_carried(lab: Lab, row: DutRow) -> None:
    idle, name = lab.indexes.idle, row.dut.id
    before = idle.carried.get(name, ())
    if before == row.dut.carries:
        return
    for digest in before:
        idle.carriers[digest].discard(name)
        if not idle.carriers[digest]:
            del idle.carriers[digest]
    for digest in row.dut.carries:
        idle.carriers.setdefault(digest, set()).add(name)
    idle.carried[name] = row.dut.carries


def classes_of(lab: Lab, key: NeedKey) -> frozenset[bytes]:
    """Return the classes of DUTs, or of hosts, whose members fit a need but for their names."""
    idle = lab.indexes.idle
    known = idle.classes.get(key)
    if known is None:
        need = _nameless(lab.indexes.needs[key])
        samples: Iterable[tuple[bytes, AgentFacts, Dut | None]]
        if need.wants_dut:
            samples = ((each, *sample) for each, sample in idle.dut_samples.items())
        else:
            samples = ((each, facts, None) for each, facts in idle.host_samples.items())
        fits = idle.fits.setdefault(key, {})
        for each, facts, dut in samples:
            if each not in fits:
                fits[each] = not misfits(need, facts, dut)
        known = idle.classes[key] = frozenset(each for each, good in fits.items() if good)
    return known


def open_classes(lab: Lab, key: NeedKey) -> list[bytes]:
    """Return the classes that fit a need and that have a DUT which may be free."""
    fitting, is_open = classes_of(lab, key), lab.indexes.idle.open
    return [each for each in fitting if each in is_open] if len(fitting) < len(is_open) else [
        each for each in is_open if each in fitting
    ]  # fmt: skip


def _nameless(need: Need) -> Need:
    target = msgspec.structs.replace(need.target, duts=(), hosts=())
    return msgspec.structs.replace(need, target=target)


def forget_need(lab: Lab, key: NeedKey) -> None:
    """Drop what is known of a need that no run in memory has."""
    idle = lab.indexes.idle
    idle.classes.pop(key, None)
    idle.fits.pop(key, None)


def forget_dut(lab: Lab, name: DutId) -> None:
    idle = lab.indexes.idle
    idle.dut_class.pop(name, None)
    idle.dut_seen.pop(name, None)
    idle.in_heap.discard(name)
    idle.kept.discard(name)
    idle.shared.discard(name)
    forget_owner(lab, name)
    for digest in idle.carried.pop(name, ()):
        idle.carriers[digest].discard(name)
        if not idle.carriers[digest]:
            del idle.carriers[digest]


def top_dut(lab: Lab, key: bytes) -> tuple[bool, DutId] | None:
    """Return the first of a class that may be free; drop from its heap what is not."""
    idle = lab.indexes.idle
    heap = idle.duts[key]
    while heap:
        entry = heap[0]
        row = lab.duts.get(entry[1])
        listed = entry[1] in idle.in_heap and idle.dut_class.get(entry[1]) == key
        if row is not None and listed and not row.holder and not row.kept_by:
            if entry[0] == bool(row.dut.carries):
                return entry
            heappop(heap)  # it carries a setup now, or no more
            heappush(heap, (bool(row.dut.carries), entry[1]))
            continue
        heappop(heap)
        if listed:
            idle.in_heap.discard(entry[1])
    idle.open.discard(key)
    return None


def top_host(lab: Lab, key: bytes) -> tuple[int, AgentId] | None:
    """Return the host of a class with the most free slots, as (-slots, name)."""
    idle = lab.indexes.idle
    heap = idle.hosts[key]
    while heap:
        entry = heap[0]
        if idle.listed.get(entry[1]) == -entry[0] and idle.host_class.get(entry[1]) == key:
            return entry
        heappop(heap)
    return None


def reindex(lab: Lab) -> None:
    """Make the index anew, for a Lab that was not made by events."""
    for name in sorted(lab.agents):
        note_agent(lab, lab.agents[name])
    for row in lab.duts.values():
        note_dut(lab, row)
