"""PURE: when will a place be free? From what holds it, and how long such things took before.

Three answers: if all goes fast, as it mostly goes, and at the latest. None: nobody can say.
"""

from collections.abc import Callable
from typing import NamedTuple

from tshrag_common.ids import Fence
from tshrag_common.jobs import JobSpec
from tshrag_common.states import JobState
from tshrag_controller.core.lab import Agent, DutRow, Lab, Run
from tshrag_controller.core.leases import held_by
from tshrag_controller.core.needs import away, unwanted
from tshrag_controller.core.on_run import open_jobs
from tshrag_controller.core.people import Intent
from tshrag_controller.core.specs import what_it_does


class Span(NamedTuple):
    """Microseconds, of a duration or since 1970: early, likely, late."""

    low: int
    mid: int
    high: int

    def plus(self, other: "Span") -> "Span":
        return Span(self.low + other.low, self.mid + other.mid, self.high + other.high)


ZERO = Span(0, 0, 0)
Typical = Callable[[str], Span | None]
"""How long jobs took that did this (`what_it_does`); None: none has ended yet."""


class Server(NamedTuple):
    """Something that one job has at a time: a DUT, a slot of a host."""

    name: str
    host: str
    dut: str
    free: Span | None
    holder: str = ""  # a sentence; empty: it is free
    until: int = 0  # when the hold ends by itself
    lease: str = ""  # owner of the lease that holds it, where nothing else is in the way
    out: str = ""  # what people have taken out of service, where nothing else is in the way


def takes(spec: JobSpec, typical: Typical) -> Span:
    """Return how long a job takes; where nothing like it has ended, its limit bounds it."""
    found = typical(what_it_does(spec))
    limit = round(spec.timeout_s * 1e6)
    return found if found is not None else Span(0, limit, limit)


def left(lab: Lab, fence: Fence, now: int, typical: Typical) -> Span:
    """Return how long an attempt still takes, knowing for how long it has been at work."""
    attempt = lab.attempts[fence]
    job = lab.jobs[attempt.job]
    spec = lab.runs[job.run].spec(job)
    gone = now - (attempt.started_at or attempt.assigned_at)
    rest = [max(0, each - gone) for each in takes(spec, typical)]
    if not rest[2]:  # it takes longer than any before: until its limit, anything
        rest[2] = max(0, round(spec.timeout_s * 1e6) - gone)
        rest[1] = rest[2] // 2
    return Span(*rest)


def of_role(lab: Lab, run: Run, role: str, typical: Typical) -> Span:
    """Return how long the waiting jobs of a role take, one after the other."""
    total = ZERO
    for job in open_jobs(lab, run):
        spec = run.spec(job)
        if job.state is JobState.WAITING and spec.is_placed and spec.need.role == role:
            total = total.plus(takes(spec, typical))
    return total


def dut_server(lab: Lab, row: DutRow, now: int, typical: Typical) -> Server:
    """Return a DUT, what holds it, and when it will be free."""
    agent = lab.agents[row.agent]
    name, host = str(row.dut.id), str(agent.facts.agent)
    intents = [each for each in (agent.intent, row.intent) if each is not None]
    observed = [each for each in away(agent, row) if each not in unwanted(agent, row)]
    if observed:
        return Server(name, host, name, None, observed[0].text)
    begin = _back(intents, now)
    out = _out(agent, row)
    if begin is None:
        return Server(name, host, name, None, unwanted(agent, row)[0].text, out=out)
    holder, until, owner = "", max((each.until for each in intents), default=0), ""
    if intents:
        holder = unwanted(agent, row)[0].text
    lease = lab.people.leases.get(row.holder)
    if lease is not None:
        begin = Span(max(begin.low, now), max(begin.mid, lease.until), max(begin.high, lease.until))
        holder, until, owner = held_by(lab, row), lease.until, "" if intents else lease.owner
    elif row.holder in lab.attempts:
        begin = begin.plus(left(lab, row.holder, now, typical))
        holder = held_by(lab, row)
    if row.kept_by in lab.runs:
        run = lab.runs[row.kept_by]
        begin = _let_go(lab, run, row, begin, typical)
        holder = holder or f"DUT {name} is kept by {run.id} ({run.name}) of {run.org}"
    return Server(name, host, name, begin, holder, until, owner, out)


def _out(agent: Agent, row: DutRow) -> str:
    """Return what would have to go back into service, where that alone would free a DUT."""
    if row.holder or row.kept_by or (agent.intent and row.intent):
        return ""
    if agent.intent:
        return f"host {agent.facts.agent}"
    return f"DUT {row.dut.id}" if row.intent else ""


def _let_go(lab: Lab, run: Run, row: DutRow, begin: Span, typical: Typical) -> Span:
    """Return when a run lets go of a DUT that it keeps, for its jobs or for its verdict."""
    roles = [role for role, (_, dut) in run.bound.items() if dut == row.dut.id]
    for role in roles:
        begin = begin.plus(of_role(lab, run, role, typical))
    awaited = run.awaits.get(row.dut.id)
    return begin if awaited is None else Span(begin.low, begin.mid, max(begin.high, awaited.until))


def _back(intents: list[Intent], now: int) -> Span | None:
    """Return when what people want ends; None: when somebody undoes it."""
    if any(not intent.until for intent in intents):
        return None
    at = max([now, *(intent.until for intent in intents)])
    return Span(now if not intents else at, at, at)


def held_limit(lab: Lab, row: DutRow, now: int) -> int:
    """Return the latest instant at which the attempt on a DUT ends by its limit; now: none has it.

    A run that keeps it may go on behind that: it gives way at the start of a reservation.
    """
    attempt = lab.attempts.get(row.holder)
    if attempt is None:
        return now
    spec = lab.runs[lab.jobs[attempt.job].run].spec(lab.jobs[attempt.job])
    return (attempt.started_at or now) + round(spec.timeout_s * 1e6)


def host_servers(lab: Lab, agent: Agent, slots: int, now: int, typical: Typical) -> list[Server]:
    """Return what a host has for jobs of so many slots each, and when each of it is free."""
    name = str(agent.facts.agent)
    reasons = away(agent, None)
    if reasons:
        return [Server(name, name, "", None, reasons[0].text)]
    free = max(0, agent.free_slots) // max(1, slots)
    servers = [Server(f"{name}#{n}", name, "", Span(now, now, now)) for n in range(min(free, 64))]
    busy = [fence for fence in sorted(agent.fences) if lab.attempts[fence].dut is None]
    for fence in busy[:256]:
        rest = left(lab, fence, now, typical)
        job = lab.attempts[fence].job
        free_at = Span(now + rest.low, now + rest.mid, now + rest.high)
        servers.append(Server(f"{name}#{fence}", name, "", free_at, f"a slot is taken by {job}"))
    return servers
