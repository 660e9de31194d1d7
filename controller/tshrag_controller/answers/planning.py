"""PURE: what a submit would do: the plan for people, with the place each job would get now."""

import msgspec

from tshrag_common import requests as r
from tshrag_common.inventory import Dut
from tshrag_common.jobs import Need
from tshrag_common.profile import Profile, Role
from tshrag_common.views import PlaceView, PlannedView, ReasonView
from tshrag_controller.core.events import RunAdmitted
from tshrag_controller.core.lab import Agent, DutRow, Lab
from tshrag_controller.core.needs import blocked, misfits
from tshrag_controller.core.specs import what_it_does

MOST_JOBS = 2000
"""Told one by one; ``total`` says how many there are."""


def with_overrides(profile: Profile, asked: r.Submit) -> Profile:
    """Return `profile` with the hosts and DUTs that the submit names for all its targets."""
    if not asked.hosts and not asked.duts:
        return profile
    roles = dict(profile.targets) or {"dut": Role()}
    narrowed = {
        name: msgspec.structs.replace(
            role, hosts=asked.hosts or role.hosts, duts=asked.duts or role.duts
        )
        for name, role in roles.items()
    }
    return msgspec.structs.replace(profile, targets=narrowed)


def plan_answer(lab: Lab, admitted: RunAdmitted) -> r.PlanAnswer:
    """Return the DAG and, for each different need, where it would go and why not elsewhere."""
    plan = admitted.plan
    places = {index: places_of(lab, spec.need) for index, spec in enumerate(plan.specs)}
    jobs: list[PlannedView] = []
    for planned in plan.jobs[:MOST_JOBS]:
        spec = plan.specs[planned.spec]
        found = places[planned.spec] if spec.is_placed else ()
        free = next((place for place in found if place.fits and not place.reasons), None)
        jobs.append(
            PlannedView(
                serial=planned.serial,
                name=planned.name,
                kind=spec.kind,
                what=what_it_does(spec),
                after=planned.after,
                timeout_s=spec.timeout_s,
                target=spec.need.role or (spec.need.target.runtime if spec.is_placed else ""),
                place=(free.dut or free.host) if free else "",
                places=found,
            )
        )
    return r.PlanAnswer(
        name=admitted.name,
        loads=admitted.loads,
        jobs=tuple(jobs),
        criteria=tuple(each.name for each in admitted.criteria),
        total=len(plan.jobs),
    )


def places_of(lab: Lab, need: Need) -> tuple[PlaceView, ...]:
    """Return every place of the lab, the usable ones first, and what speaks against each."""
    places: list[PlaceView] = []
    if need.wants_dut:
        for _, row in sorted(lab.duts.items()):
            places.append(_place(need, lab.agents[row.agent], row, row.dut))
    else:
        for _, agent in sorted(lab.agents.items()):
            places.append(_place(need, agent, None, None))
    return tuple(sorted(places, key=lambda place: (not place.fits, len(place.reasons))))


def _place(need: Need, agent: Agent, row: DutRow | None, dut: Dut | None) -> PlaceView:
    wrong = misfits(need, agent.facts, dut)
    reasons = wrong or blocked(need, agent, row, "")
    return PlaceView(
        host=agent.facts.agent,
        dut=dut.id if dut else "",
        fits=not wrong,
        reasons=tuple(ReasonView(code=each.code, text=each.text) for each in reasons),
    )
