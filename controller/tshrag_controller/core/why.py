"""PURE: why does this job wait? Answered by the predicates that the scheduler filters with."""

import msgspec

from tshrag_common import ids
from tshrag_common.inventory import Dut
from tshrag_common.states import JOB, JobState
from tshrag_controller.core import preemption
from tshrag_controller.core.binding import match_roles
from tshrag_controller.core.consumables import scarce
from tshrag_controller.core.follow import is_shut
from tshrag_controller.core.gangs import consumed_by, role_of, waiting_mates
from tshrag_controller.core.lab import Agent, DutRow, Job, Lab, Run
from tshrag_controller.core.leases import held_by
from tshrag_controller.core.making_way import slots_aside
from tshrag_controller.core.needs import Reason, blocked, misfits
from tshrag_controller.core.order import order_of
from tshrag_controller.core.places import Places, free_duts, restraints, slots_short
from tshrag_controller.core.queues import is_waiting_for_binding, roles_to_bind
from tshrag_controller.core.quotas import over_quota
from tshrag_controller.core.seating import options, seat
from tshrag_controller.core.ways import ways

_HOPE = {"quota": 0, "reserved": 1, "intent": 3, "agent": 4, "gone": 4, "faulty": 4}
"""What is in the way of the places that are most likely to be free next comes first."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One place and what speaks against it; ``fits`` tells whether waiting can help."""

    host: str
    dut: str = ""
    fits: bool
    reasons: tuple[Reason, ...]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job is where it is: one word, one sentence, and place by place what is missing."""

    job: str
    state: str
    reason: str
    sentence: str
    places: tuple[Place, ...] = ()
    ahead: int = 0  # jobs that go before it in its queue


def explain(lab: Lab, job: Job, now: int) -> Explanation:
    """Say why `job` waits, or that it does not."""
    run = lab.runs[job.run]
    if job.state is not JobState.WAITING:
        return _of_started(lab, job)
    mates = waiting_mates(lab, job)
    simple = _not_ready(lab, run, job, now)
    if simple is not None and not mates:
        return Explanation(job=job.id, state=job.state, reason=simple.code, sentence=simple.text)
    places = tuple(_places(lab, run, job, now))
    ahead = _ahead(lab, run, job)
    reason, sentence = _sum_up(places, ahead)
    short = scarce(lab, run.spec(job).need, now)
    if short and reason != "target" and not is_waiting_for_binding(run, job):
        reason, sentence = short[0].code, "; ".join(each.text for each in short)
    if mates:
        reason, sentence = _of_gang(lab, run, mates, now)
    elif is_waiting_for_binding(run, job):
        sentence = _together(lab, run, now) or sentence
    giving = preemption.note_of(lab, job, now) if reason == "capacity" else ""
    return Explanation(
        job=job.id,
        state=job.state,
        reason=reason,
        sentence=f"{sentence}; {giving}" if giving else sentence,
        places=places,
        ahead=ahead,
    )


def _of_started(lab: Lab, job: Job) -> Explanation:
    attempt = lab.attempts.get(job.fence)
    where = (attempt.dut or attempt.agent) if attempt else ""
    if JOB.is_final(job.state):
        sentence = job.error.message if job.error else f"it has {job.state}"
    elif job.state is JobState.COLLECTING:
        sentence = "it has ended; its last samples and output are on their way"
    else:
        sentence = f"attempt {job.attempts} is {job.state} on {where}" if where else "it runs"
    return Explanation(job=job.id, state=job.state, reason=job.state, sentence=sentence)


def _not_ready(lab: Lab, run: Run, job: Job, now: int) -> Reason | None:
    if job.missing:
        before = run.plan.jobs[job.serial - 1].after
        names = [ids.job_of(run.id, serial) for serial in before]
        states = {name: lab.jobs[name].state for name in names}
        waits = [f"{name} ({state})" for name, state in states.items() if not JOB.is_final(state)]
        return Reason("dependency", f"it comes after {', '.join(waits[:5])}")
    if job.held:
        return Reason("on_hold", f"it is held back: {job.held}")
    if is_shut(run, job):
        guard = run.spec(job).when
        what = f"{guard.statistic} of {guard.key}" if guard and guard.key else "its condition"
        return Reason("gate", f"it starts when samples say so: {what} (when)")
    if run.not_before > now:
        return Reason("window", f"its window opens in {(run.not_before - now) / 1e6:.0f} s")
    if job.not_before > now:
        pause = (job.not_before - now) / 1e6
        why = f": {job.error.message}" if job.error else ""
        return Reason("backoff", f"attempt {job.attempts + 1} begins in {pause:.1f} s{why}")
    return None


def _of_gang(lab: Lab, run: Run, mates: list[Job], now: int) -> tuple[str, str]:
    """Say what jobs that start together wait for, whichever of them is asked about."""
    roles = {job.id: role_of(run, job) for job in mates}
    begin = f"{', '.join(roles.values())} start together"
    for job in mates:
        later = _not_ready(lab, run, job, now)
        if later is not None:
            return later.code, f"{begin}; {roles[job.id]}: {later.text}"
    short = [job for job in mates if not options(lab, run, job)]
    said = {job.id: _sum_up(tuple(_places(lab, run, job, now)), 0) for job in short}
    never = [job for job in short if said[job.id][0] == "target"]
    if short:
        first = (never or short)[0]
        reason, what = said[first.id]
        names = ", ".join(roles[job.id] for job in short)
        return reason, f"{begin}: none is free for {names}; {roles[first.id]}: {what}"
    scarcity = scarce(lab, consumed_by(run, mates), now)
    if scarcity:
        return scarcity[0].code, f"{begin}: {'; '.join(each.text for each in scarcity)}"
    places = Places(lab, now)
    seats = seat(lab, run, mates, places)
    places.close()
    if seats is None:
        return "capacity", f"{begin}: each has a place, there are too few for all of them at once"
    more = sum(1 for each in seats if each.dut and lab.duts[each.dut].kept_by != run.id)
    over = over_quota(lab, run.org, more)
    return ("quota", f"{begin}: {over}") if over else ("capacity", f"{begin}, in this very moment")


def _together(lab: Lab, run: Run, now: int) -> str:
    """Say which role has no DUT, where a run waits for those of several roles at once."""
    roles = roles_to_bind(lab, run)
    if len(roles) < 2 or match_roles(lab, run, now) is not None:
        return ""
    needs = lab.indexes.needs
    short = [role for role, key in roles.items() if not free_duts(lab, needs[key], run)]
    what = f"none is free for {', '.join(short)}" if short else "there are too few for all of them"
    return f"the DUTs of {', '.join(sorted(roles))} are given all at once: {what}"


def _places(lab: Lab, run: Run, job: Job, now: int) -> list[Place]:
    need = run.spec(job).need
    kept = run.bound.get(need.role) if need.wants_dut else None
    if kept is not None:
        row = lab.duts.get(kept[1])
        return _ways_to(lab, run, job, row, now) if row else []
    if not need.wants_dut:
        agents = sorted(lab.agents.items())
        return [_place(lab, run, job, agent, None, None, now) for _, agent in agents]
    with_duts = {name for row in lab.duts.values() for name in (row.agent, *row.ways)}
    rows = [
        each for _, row in sorted(lab.duts.items()) for each in _ways_to(lab, run, job, row, now)
    ]
    bare = [agent for name, agent in sorted(lab.agents.items()) if name not in with_duts]
    return rows + [_place(lab, run, job, agent, None, None, now) for agent in bare]


def _ways_to(lab: Lab, run: Run, job: Job, row: DutRow, now: int) -> list[Place]:
    """Return a place for every agent that reaches the DUT."""
    known = list(ways(lab, row)) or [(lab.agents[row.agent], row.dut)]
    return [_place(lab, run, job, agent, row, dut, now) for agent, dut in known]


def _place(
    lab: Lab, run: Run, job: Job, agent: Agent, row: DutRow | None, dut: Dut | None, now: int
) -> Place:
    need = run.spec(job).need
    wrong = misfits(need, agent.facts, dut)
    now_wrong = blocked(need, agent, row, run.id) if not wrong else ()
    if row is not None and not wrong and not now_wrong:
        now_wrong = restraints(lab, run, job, row, now)
    elif not wrong and not now_wrong and not need.wants_dut:
        now_wrong = slots_short(lab, slots_aside(lab), need, run, agent.facts.agent)
    return Place(
        host=agent.facts.agent,
        dut=row.dut.id if row else "",
        fits=not wrong,
        reasons=wrong or tuple(_named(lab, reason, row) for reason in now_wrong),
    )


def _named(lab: Lab, reason: Reason, row: DutRow | None) -> Reason:
    """Name the job behind a fence: people do not read fences."""
    if reason.code != "held" or row is None:
        return reason
    return Reason("held", held_by(lab, row) or reason.text)


def _ahead(lab: Lab, run: Run, job: Job) -> int:
    queue = lab.indexes.ready.get((lab.need_key(run, job), run.org), ())
    mine = order_of(lab, run, job)
    before = (lab.jobs.get(name) for order, name in queue if order < mine)
    return sum(1 for each in before if each is not None and each.state is JobState.WAITING)


def _sum_up(places: tuple[Place, ...], ahead: int) -> tuple[str, str]:
    if not places:
        return "target", "no agent has said hello to this lab; start one with 'tshrag-agent run'"
    fitting = [place for place in places if place.fits]
    if not fitting:
        near = min(places, key=lambda place: len(place.reasons))
        what = "; ".join(reason.text for reason in near.reasons)
        return "target", f"no place fits; nearest is {near.dut or near.host}: {what}"
    codes = [place.reasons[0].code for place in fitting if place.reasons]
    if len(codes) < len(fitting):
        return "capacity", "a place is free; it starts in this very moment"
    behind = f", {ahead} {'job goes' if ahead == 1 else 'jobs go'} before it" if ahead else ""
    first = min(fitting, key=lambda place: _HOPE.get(place.reasons[0].code, 2)).reasons[0]
    what = first.text
    if first.code == "quota":  # whichever place it is: that is in the way of all that are free
        return "quota", f"{what}{behind}"
    word = "place" if len(fitting) == 2 else "places"
    more = f" (and {len(fitting) - 1} more {word})" if len(fitting) > 1 else ""
    return "capacity", f"{what}{more}{behind}"
