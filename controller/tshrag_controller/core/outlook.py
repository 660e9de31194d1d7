"""PURE: where a waiting job stands, when it may start, and what would start it sooner.

An estimate, made by letting the line go through the places in its order: jobs take as long as
such jobs took before. It decides nothing. Of a very long line the first are counted one by one,
the rest by their number.
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple

import msgspec

from tshrag_common.ids import DutId, OrgId
from tshrag_common.jobs import Need
from tshrag_common.states import JobState
from tshrag_controller.core.below_quota import opening, seats
from tshrag_controller.core.free_at import (
    Server,
    Span,
    Typical,
    dut_server,
    host_servers,
    of_role,
    takes,
)
from tshrag_controller.core.lab import Job, Lab, Order, Run, is_kept
from tshrag_controller.core.line import need_of_ask, order_of_ask
from tshrag_controller.core.needs import misfits
from tshrag_controller.core.order import Shares, order_of, place_of
from tshrag_controller.core.queues import roles_to_bind
from tshrag_controller.core.reservations import behind, limit_us
from tshrag_controller.core.specs import what_it_does
from tshrag_controller.core.ways import ways

MOST_EXACT = 300
MOST_PLACES = 500
MOST_CHANGES = 5
TOP = 100


class Change(NamedTuple):
    """Something that would start it sooner, and when it would start then."""

    what: str
    start: Span


class Outlook(NamedTuple):
    """How it looks for one job. ``start`` None: nobody can say, or it starts nowhere."""

    ahead: int
    start: Span | None
    observed: bool  # how long it takes is known from earlier ones
    servers: tuple[Server, ...]
    changes: tuple[Change, ...]


class Claim(NamedTuple):
    """A run that wants a place, and what it asks for."""

    run: Run
    need: Need


class _Ahead(NamedTuple):
    order: Order
    need: Need
    span: Span
    org: str = ""  # whose quota it counts for; a lease is never refused for one


class Line:
    """The lab as one estimate sees it: places, and who waits; made once, used for every change."""

    def __init__(self, lab: Lab, now: int, typical: Typical) -> None:
        self._lab, self._now, self._typical = lab, now, typical
        self._shares = Shares(lab, now)
        self._servers: dict[str, list[Server]] = {}
        self._fits: dict[bytes, tuple[str, ...]] = {}
        self.waiting = sorted(self._all(), key=lambda each: each.order)

    def scored(self, order: Order, run: Run | None) -> Order:
        points = self._shares.points(run.org) if run is not None else 0
        return (order[0] + points, *order[1:])

    def _all(self) -> Iterator[_Ahead]:
        lab = self._lab
        for ask in lab.people.asks.values():
            span = Span(0, ask.for_us, ask.for_us)
            yield _Ahead(order_of_ask(lab, ask), need_of_ask(ask), span)
        for queue in lab.indexes.ready.values():
            for order, name in queue:
                job = lab.jobs.get(name)
                if job is not None and job.state is JobState.WAITING:
                    run = lab.runs[job.run]
                    spec = run.spec(job)
                    span = takes(spec, self._typical)
                yield _Ahead(self.scored(order, run), spec.need, span, run.org)
        for run_name in lab.indexes.wants_binding:
            yield from self._binding(lab.runs[run_name])

    def _binding(self, run: Run) -> Iterator[_Ahead]:
        queue = self._lab.indexes.bound_ready.get(run.id)
        for role, key in roles_to_bind(self._lab, run).items() if queue else ():
            order = self.scored(min(entry[0] for entry in queue or ()), run)
            span = of_role(self._lab, run, role, self._typical)
            yield _Ahead(order, self._lab.indexes.needs[key], span, run.org)

    def places(self, need: Need) -> tuple[str, ...]:
        """Return the names of the places that could ever serve a need."""
        key = msgspec.msgpack.encode(need)
        if key not in self._fits:
            self._fits[key] = tuple(self._fitting(need))
        return self._fits[key]

    def _fitting(self, need: Need) -> Iterator[str]:
        lab = self._lab
        if need.wants_dut:
            for dut_name, row in sorted(lab.duts.items()):
                reached = ways(lab, row)
                if any(not misfits(need, agent.facts, dut) for agent, dut in reached):
                    server = dut_server(lab, row, self._now, self._typical)
                    self._servers.setdefault(dut_name, [server])
                    yield dut_name
            return
        for host, agent in sorted(lab.agents.items()):
            if not misfits(need, agent.facts, None):
                name = f"{host}/{need.slots}"
                made = host_servers(lab, agent, need.slots, self._now, self._typical)
                self._servers.setdefault(name, made)
                yield name

    def servers(self, names: tuple[str, ...]) -> list[Server]:
        return [server for name in names for server in self._servers[name]]

    def start(
        self,
        need: Need,
        mine: Order,
        free_too: Collection[str] = (),
        claim: Claim | None = None,
        quota: bool = True,
    ) -> tuple[int, Span | None]:
        """Return how many stand before, and when it starts.

        What is named in `free_too`, places and reservations, would be given back now. A `claim`
        starts within the `quota` of its org, and in front of no reservation that it runs into.
        """
        names = set(self.places(need)[:MOST_PLACES])
        before = [each for each in self.waiting if each.order < mine]
        before = [each for each in before if names.intersection(self.places(each.need))]
        found = [self._scenario(need, before, which, free_too, claim) for which in range(3)]
        low, mid, high = found
        if low is None or mid is None or high is None:
            return len(before), None
        start = Span(low, max(low, mid), max(low, mid, high))
        if claim is None or not quota or not need.wants_dut:
            return len(before), start
        return len(before), self._within(claim.run.org, start, mine, free_too)

    def _within(
        self, org: OrgId, start: Span, mine: Order, free_too: Collection[str]
    ) -> Span | None:
        """Return when it starts where its org may not have more DUTs than its quota."""
        found = seats(self._lab, org, self._now, self._typical, free_too)
        if found is None:
            return start
        own = [x.span for x in self.waiting if x.org == org and x.order < mine and x.need.wants_dut]
        low, mid, high = (opening(found, own[:MOST_EXACT], which) for which in range(3))
        if low is None or mid is None or high is None:
            return None
        return Span(max(start.low, low), max(start.mid, low, mid), max(start.high, mid, high))

    def _free_at(
        self, names: tuple[str, ...], which: int, free_too: Collection[str]
    ) -> dict[str, int]:
        found: dict[str, int] = {}
        for server in self.servers(names):
            if server.name in free_too:
                found[server.name] = self._now
            elif server.free is not None:
                found[server.name] = server.free[which]
        return found

    def _unreserved(
        self, name: str, at: int, claim: Claim | None, given_up: Collection[str]
    ) -> int:
        """Return when it starts on a place that is free at an instant."""
        row = self._lab.duts.get(DutId(name))
        if claim is None or row is None or not self._lab.people.reservations:
            return at
        return behind(
            self._lab, name, at, limit_us(self._lab, claim.need, row, claim.run), given_up
        )

    def _scenario(
        self,
        need: Need,
        before: list[_Ahead],
        which: int,
        free_too: Collection[str],
        claim: Claim | None,
    ) -> int | None:
        """Let the line go through the places at one speed; return when it is our turn."""
        free: dict[str, int] = {}
        of: dict[tuple[str, ...], list[str]] = {}
        for each in (need, *(ahead.need for ahead in before[:MOST_EXACT])):
            names = self.places(each)[:MOST_PLACES]
            if names in of:
                continue
            instants = self._free_at(names, which, free_too)
            of[names] = list(instants)
            free.update(instants)
        own = of[self.places(need)[:MOST_PLACES]]
        if not own:
            return None
        for ahead in before[:MOST_EXACT]:
            names_of = of[self.places(ahead.need)[:MOST_PLACES]]
            if names_of:
                first = min(names_of, key=lambda name: (free[name], name))
                free[first] += ahead.span[which]
        rest = before[MOST_EXACT:]
        more = sum(each.span[which] for each in rest) // len(own)
        begins = ((name, max(self._now, free[name] + more)) for name in own)
        return min(self._unreserved(name, at, claim, free_too) for name, at in begins)


def outlook(lab: Lab, job: Job, now: int, typical: Typical) -> Outlook:
    """Return how it looks for a job that waits for a place."""
    run = lab.runs[job.run]
    need, line = run.spec(job).need, Line(lab, now, typical)
    mine = line.scored(order_of(lab, run, job), run)
    observed = typical(what_it_does(run.spec(job))) is not None
    if is_kept(need) and need.role in run.bound:
        return _on_kept(lab, run, job, now, typical, observed)
    ahead, start = line.start(need, mine, claim=Claim(run, need))
    servers = tuple(line.servers(line.places(need)))
    changes = _changes(lab, run, job, line, mine, start)
    return Outlook(ahead, start, observed, servers, changes)


def _on_kept(lab: Lab, run: Run, job: Job, now: int, typical: Typical, observed: bool) -> Outlook:
    """Tell of a job whose run has its DUT: it waits for what is at work there."""
    row = lab.duts.get(run.bound[run.spec(job).need.role][1])
    if row is None:
        return Outlook(0, None, observed, (), ())
    server = dut_server(lab, row, now, typical)
    before = [
        each
        for order, name in lab.indexes.bound_ready.get(run.id, ())
        if order < order_of(lab, run, job)
        and (each := lab.jobs.get(name)) is not None
        and each.state is JobState.WAITING
    ]
    own = of_role(lab, run, run.spec(job).need.role, typical)
    free = server.free
    start = None
    if free is not None:  # the free instant counts all of the role, this job and later ones too
        first = [max(now, at - span) for at, span in zip(free, own, strict=True)]
        for each in before:
            first = [at + s for at, s in zip(first, takes(run.spec(each), typical), strict=True)]
        start = Span(*first)
    return Outlook(len(before), start, observed, (server,), ())


def _changes(
    lab: Lab, run: Run, job: Job, line: Line, mine: Order, start: Span | None
) -> tuple[Change, ...]:
    """Return what would start the job sooner, the soonest first."""
    found: list[Change] = []
    need = run.spec(job).need
    claim = Claim(run, need)
    for what, easier in _easier(need):
        _note(found, what, line.start(easier, mine, claim=claim)[1], start)
    for what, freed in _given_back(lab, line.servers(line.places(need))).items():
        _note(found, what, line.start(need, mine, freed, claim)[1], start)
    if run.priority < TOP:
        first = line.scored(place_of(lab, run.created_at, TOP, run.order), run)
        what = f"with priority {TOP}, not {run.priority}"
        _note(found, what, line.start(need, first, claim=claim)[1], start)
    quota = lab.policy.quota(run.org).running_duts
    if quota:
        what = f"if the quota of org {run.org} were more than {quota}"
        _note(found, what, line.start(need, mine, claim=claim, quota=False)[1], start)
    return tuple(sorted(found, key=lambda change: change.start.mid)[:MOST_CHANGES])


def _given_back(lab: Lab, servers: list[Server]) -> dict[str, set[str]]:
    """Return what people could do, and which places or reservations would be free then."""
    found: dict[str, set[str]] = {}
    names = {server.name for server in servers}
    for each in lab.people.reservations.values():
        if each.dut in names:
            what = f"if {each.owner} gives up the reservation of {each.dut}"
            found.setdefault(what, set()).add(each.id)
    for server in servers:
        if server.lease:
            found[f"if {server.lease} gives {server.name} back"] = {server.name}
        elif server.out:
            found.setdefault(f"if {server.out} is taken back into service", set()).add(server.name)
    return found


def _note(found: list[Change], what: str, then: Span | None, now: Span | None) -> None:
    if then is not None and (now is None or then.mid < now.mid - 1_000_000):
        found.append(Change(what, then))


def _easier(need: Need) -> Iterator[tuple[str, Need]]:
    """Yield what is asked for with one condition less, and which one that is."""
    target = need.target

    def without(**fields: object) -> Need:
        return msgspec.structs.replace(need, target=msgspec.structs.replace(target, **fields))

    for name, value in sorted(target.labels.items()):
        others = {key: each for key, each in target.labels.items() if key != name}
        yield f"without label {name}={value}", without(labels=others)
    for condition in target.where:
        yield (
            f"without {condition}",
            without(where=tuple(x for x in target.where if x != condition)),
        )
    if target.kind:
        yield f"on another kind than {target.kind}", without(kind="")
    if target.duts:
        yield f"on another DUT than {', '.join(target.duts)}", without(duts=())
    if target.hosts:
        yield f"on another host than {', '.join(target.hosts)}", without(hosts=())
    for tool in need.tools:
        tools = tuple(each for each in need.tools if each != tool)
        yield f"without tool {tool}", msgspec.structs.replace(need, tools=tools)
