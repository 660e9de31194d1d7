"""PURE: what a submit would do: the plan for people, with the place each job would get now."""

import msgspec

from tshrag_common import requests as r
from tshrag_common.errors import Invalid, Problem
from tshrag_common.inventory import Dut
from tshrag_common.jobs import JobSpec, Need, Plan
from tshrag_common.views import PlaceView, PlannedView, ReasonView
from tshrag_controller.core.events import RunAdmitted
from tshrag_controller.core.lab import Agent, DutRow, Lab
from tshrag_controller.core.needs import blocked, misfits
from tshrag_controller.core.specs import what_it_does
from tshrag_controller.core.ways import ways

MOST_PLACES = 5000
"""Told in all; jobs beyond that say where they would go, but not why nowhere else."""
MOST_JOBS = 2000
"""Told one by one; ``total`` says how many there are."""


def narrowed(plan: Plan, asked: r.Submit) -> Plan:
    """Return `plan` on the hosts and DUTs that the submit names; the others are out of question.

    Raises:
        Invalid: DUTs are named, and no job of the plan goes to one.

    """
    if not asked.hosts and not asked.duts:
        return plan
    if asked.duts and not any(spec.need.wants_dut for spec in plan.specs):
        what = f"{', '.join(asked.duts)}: no step of this profile goes to a DUT"
        fix = "give the steps a target, or the load runs = 'dut'"
        raise Invalid([Problem(code="no_target", where="duts", what=what, fix=fix)])
    specs = tuple(_narrowed(spec, asked) for spec in plan.specs)
    return msgspec.structs.replace(plan, specs=specs)


def _narrowed(spec: JobSpec, asked: r.Submit) -> JobSpec:
    if not spec.is_placed:
        return spec
    target = spec.need.target
    duts = asked.duts if spec.need.wants_dut else ()
    target = msgspec.structs.replace(
        target, hosts=asked.hosts or target.hosts, duts=duts or target.duts
    )
    need = msgspec.structs.replace(spec.need, target=target)
    return msgspec.structs.replace(spec, need=need)


def plan_answer(lab: Lab, admitted: RunAdmitted) -> r.PlanAnswer:
    """Return the DAG and, for each different need, where it would go and why not elsewhere."""
    plan = admitted.plan
    places = {index: places_of(lab, spec.need) for index, spec in enumerate(plan.specs)}
    jobs: list[PlannedView] = []
    told = 0
    for planned in plan.jobs[:MOST_JOBS]:
        spec = plan.specs[planned.spec]
        found = places[planned.spec] if spec.is_placed else ()
        free = next((place for place in found if place.fits and not place.reasons), None)
        told += len(found)
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
                places=found if told < MOST_PLACES else (),
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
            places += [_place(need, agent, row, dut) for agent, dut in ways(lab, row)]
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
