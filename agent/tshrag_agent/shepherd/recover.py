"""After a shepherd was killed: end what it left alive, say of each attempt that it is lost."""

import time

from tshrag_agent.shepherd import cgroups, proctree
from tshrag_agent.shepherd.protocol import Message
from tshrag_agent.shepherd.records import Records

_PATIENCE_S = 5.0


def end_what_is_left(records: Records, state_id: str) -> None:
    """Kill everything of an earlier shepherd until two looks find nothing; note the exits.

    What can still not be ended after five seconds hangs in the kernel; every exit names it.
    """
    ends = time.monotonic() + _PATIENCE_S
    left = _kill_all(records, state_id)
    clean = 0
    while clean < 2 and time.monotonic() < ends:
        time.sleep(0.01 if left else 0)
        left = _kill_all(records, state_id)
        clean = 0 if left else clean + 1
    for folder in records.folders:
        cgroups.remove_tree(folder)
    for fact in list(records.started.values()):
        records.note_exit(_lost(fact, sorted(left)))


def _kill_all(records: Records, state_id: str) -> set[int]:
    found: set[int] = set()
    for folder in records.folders:
        found.update(cgroups.kill_tree(folder))
    for one in proctree.marked(state_id):
        found.add(one.pid)
        proctree.kill_process(one)
    if records.is_same_boot:
        found.update(_kill_mains(records))
    return found


def _kill_mains(records: Records) -> set[int]:
    found: set[int] = set()
    for fact in records.started.values():
        main = proctree.process(int(fact["pid"]))
        if main and main.started == fact["ticks"]:
            found.add(main.pid)
            proctree.kill_process(main)
    return found


def _lost(fact: Message, unkillable: list[int]) -> Message:
    now = time.time_ns() // 1000
    return {
        "key": fact["key"],
        "pid": fact["pid"],
        "cause": "lost",
        "started_at": fact["at"],
        "ended_at": now,
        "wall_us": max(now - int(fact["at"]), 0),
        "unkillable": unkillable,
    }
