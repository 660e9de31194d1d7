"""PURE: the line for each kind of place: how many wait, who is next, when."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from tshrag_common import ids
from tshrag_common.ids import JobId, RunId
from tshrag_common.jobs import Need
from tshrag_common.states import JobState
from tshrag_controller.core.admission import need_text
from tshrag_controller.core.free_at import Span, Typical
from tshrag_controller.core.lab import Lab, Order, Run
from tshrag_controller.core.line import need_of_ask, order_of_ask
from tshrag_controller.core.order import NEVER
from tshrag_controller.core.outlook import Claim, Line
from tshrag_controller.core.queues import roles_to_bind

MOST_CLASSES = 40


class Waiting(NamedTuple):
    """One who waits, and for what."""

    need: Need
    order: Order
    name: str
    org: str
    came_at: int
    is_person: bool = False


class Class(NamedTuple):
    """All who wait for the same."""

    target: str
    waiting: int
    people: int
    orgs: Counter[str]
    head: str
    head_org: str
    since: int
    places: int
    free: int
    next: Span | None
    last: Span | None


def lines(lab: Lab, now: int, typical: Typical) -> tuple[list[Class], int]:
    """Return the lines, the longest first, and how many are left out."""
    by_target: dict[str, list[Waiting]] = {}
    for each in everybody(lab):
        by_target.setdefault(need_text(each.need), []).append(each)
    longest = sorted(by_target.items(), key=lambda item: (-len(item[1]), item[0]))
    line = Line(lab, now, typical)
    found = [_class(lab, line, target, each) for target, each in longest[:MOST_CLASSES]]
    return found, max(0, len(longest) - MOST_CLASSES)


def everybody(lab: Lab) -> Iterator[Waiting]:
    """Yield everybody who waits for a place: jobs, roles of runs, people."""
    for queue in lab.indexes.ready.values():
        for order, name in queue:
            job = lab.jobs.get(name)
            if job is not None and job.state is JobState.WAITING:
                run = lab.runs[job.run]
                yield Waiting(run.spec(job).need, order, job.id, run.org, run.created_at)
    for run_name in lab.indexes.wants_binding:
        run, jobs = lab.runs[run_name], lab.indexes.bound_ready.get(run_name)
        for key in roles_to_bind(lab, run).values() if jobs else ():
            order = min(entry[0] for entry in jobs or ())
            yield Waiting(lab.indexes.needs[key], order, run.id, run.org, run.created_at)
    for ask in lab.people.asks.values():
        order = order_of_ask(lab, ask)
        yield Waiting(need_of_ask(ask), order, ask.id, ask.org, ask.asked_at, True)


def _class(lab: Lab, line: Line, target: str, waiting: list[Waiting]) -> Class:
    head = min(waiting, key=lambda each: line.scored(each.order, _run_of(lab, each)))
    servers = line.servers(line.places(head.need))
    behind_all = (NEVER, NEVER, NEVER, NEVER)
    return Class(
        target=target,
        waiting=sum(not each.is_person for each in waiting),
        people=sum(each.is_person for each in waiting),
        orgs=Counter(each.org for each in waiting),
        head=head.name,
        head_org=head.org,
        since=min(each.came_at for each in waiting),
        places=len(line.places(head.need)),
        free=sum(not each.holder and each.free is not None for each in servers),
        next=_start(lab, line, head),
        last=line.start(head.need, behind_all)[1],
    )


def _start(lab: Lab, line: Line, each: Waiting) -> Span | None:
    run = _run_of(lab, each)
    claim = Claim(run, each.need) if run is not None else None
    return line.start(each.need, line.scored(each.order, run), claim=claim)[1]


def _run_of(lab: Lab, each: Waiting) -> Run | None:
    """Return the run of one who waits; None: it is a person."""
    if each.is_person:
        return None
    name = ids.run_of(JobId(each.name)) if each.name.startswith("job-") else RunId(each.name)
    return lab.runs[name]
