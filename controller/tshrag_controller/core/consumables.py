"""PURE: what jobs take beside places: resources of a host, things that the whole lab shares."""

from tshrag_common.errors import Problem, nearest, shown
from tshrag_common.jobs import Need
from tshrag_controller.core.lab import Agent, Consumed, Lab, set_timer
from tshrag_controller.core.needs import Reason
from tshrag_controller.core.policy import Policy


def take_resources(lab: Lab, agent: Agent, need: Need, at: int) -> None:
    """Count what an attempt has from now on. Part of `apply`."""
    for name, amount in need.resources.items():
        agent.taken[name] = round(agent.taken.get(name, 0) + amount, 3)
    for name, count in need.consumes.items():
        use = lab.consumed.setdefault(name, Consumed())
        use.taken += count
        use.given_at = at


def give_back_resources(lab: Lab, agent: Agent, need: Need) -> None:
    """Count what an attempt has no more. Part of `apply`."""
    for name, amount in need.resources.items():
        agent.taken[name] = round(agent.taken[name] - amount, 3)
        if agent.taken[name] <= 0:
            del agent.taken[name]
    for name, count in need.consumes.items():
        lab.consumed[name].taken -= count


def scarce(lab: Lab, need: Need, now: int) -> tuple[Reason, ...]:
    """Return what the lab has not got for `need` now, wherever it would go; empty: all is there."""
    reasons: list[Reason] = []
    for name, count in sorted(need.consumes.items()):
        limit = lab.policy.consumables.get(name)
        if limit is None:
            reasons.append(Reason("consumable", f"the lab has no {name}"))
            continue
        use = lab.consumed.get(name, Consumed())
        if limit.count and use.taken + count > limit.count:
            text = f"{use.taken} of {limit.count} {name} taken in the lab"
            reasons.append(Reason("consumable", text))
        if use.given_at and next_at(lab.policy, name, use) > now:
            pause = (next_at(lab.policy, name, use) - now) / 1e6
            text = f"{name} is given every {limit.every_s:g} s, again in {pause:.3g} s"
            reasons.append(Reason("rate", text))
    return tuple(reasons)


def next_at(policy: Policy, name: str, use: Consumed) -> int:
    return use.given_at + round(policy.consumables[name].every_s * 1e6)


def look_again(lab: Lab, need: Need, now: int) -> None:
    """Let time make a pass when what is given at a rate can be given again."""
    for name in need.consumes:
        use = lab.consumed.get(name)
        if use is None or name not in lab.policy.consumables:
            continue
        at = next_at(lab.policy, name, use)
        if at > now:
            look_at(lab, at)


def look_at(lab: Lab, at: int) -> None:
    """Make a pass at an instant, once."""
    if at not in lab.indexes.looks:
        lab.indexes.looks.add(at)
        set_timer(lab, at, "look", str(at))


def unknown_consumables(policy: Policy, need: Need) -> list[Problem]:
    """Return what `need` takes of things that the lab does not have, or has too few of."""
    problems: list[Problem] = []
    where = f"targets.{need.role}.consumes" if need.role else ""
    for name, count in sorted(need.consumes.items()):
        limit = policy.consumables.get(name)
        if limit is None:
            near = nearest(name, policy.consumables)
            known = f"nearest: {', '.join(near)}" if near else "see [scheduler] consumables"
            problem = Problem(code="unknown_consumable", where=where, what=shown(name), fix=known)
            problems.append(problem)
        elif limit.count and count > limit.count:
            what = f"needs {count} {name}, the lab has {limit.count}"
            problems.append(Problem(code="unsatisfiable", where=where, what=what))
    return problems
