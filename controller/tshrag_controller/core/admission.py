"""PURE: may this plan enter the lab? All reasons at once, each with what comes nearest.

Names of hosts and DUTs have to exist. That nobody serves a need is no reason to refuse, unless
it is asked for: the board may be connected tomorrow.
"""

from collections.abc import Collection, Iterable

from tshrag_common.errors import Problem, nearest, shown
from tshrag_common.inventory import AgentFacts, Dut
from tshrag_common.jobs import Need, Plan, Target
from tshrag_controller.core.consumables import unknown_consumables
from tshrag_controller.core.needs import Reason, amount_text, misfits
from tshrag_controller.core.policy import Policy

Place = tuple[AgentFacts, Dut | None]


def refusals(
    plan: Plan,
    hosts: Iterable[AgentFacts],
    *,
    require_agent: bool = False,
    policy: Policy | None = None,
) -> tuple[Problem, ...]:
    """Return why `plan` may not enter; empty: it may.

    With `require_agent` every need must have a place that could serve it, busy or not; with a
    `policy` the lab must have what it consumes.
    """
    facts = list(hosts)
    found: dict[str, Problem] = {}
    for need in different_needs(plan):
        unknown = _unknown_names(need, facts)
        if require_agent and not unknown:
            unknown = _unserved(need, facts)
        if policy is not None:
            unknown += unknown_consumables(policy, need)
        found.update((str(problem), problem) for problem in unknown)
    return tuple(found.values())


def different_needs(plan: Plan) -> list[Need]:
    """Return what the jobs of `plan` ask for, each once, in the order of the plan."""
    found: list[Need] = []
    for spec in plan.specs:
        if spec.is_placed and spec.need not in found[-64:]:
            found.append(spec.need)
    return found


def nearest_place(need: Need, hosts: Iterable[AgentFacts]) -> tuple[str, tuple[Reason, ...]]:
    """Return the place that misses least for `need`, and what it misses; empty: it fits."""
    best: tuple[str, tuple[Reason, ...]] = ("", (Reason("target", "the lab has no such place"),))
    fewest: tuple[int, str] | None = None
    for facts, dut in _places(need, hosts):
        reasons = misfits(need, facts, dut)
        name = str(dut.id if dut else facts.agent)
        rank = (len(reasons), name)
        if fewest is None or rank < fewest:
            best, fewest = (name, reasons), rank
    return best


def need_text(need: Need) -> str:
    """Return what is asked for in words: ``kind=rpi4, arch=arm64``."""
    target = need.target
    words = [f"{key}={value}" for key, value in sorted(target.labels.items())]
    words += [f"kind={target.kind}"] if target.kind else []
    words += [f"runtime={target.runtime}"] if target.runtime != "host" else []
    words += list(target.where)
    words += [f"tool={tool}" for tool in need.tools]
    words += [amount_text(name, amount) for name, amount in sorted(need.resources.items())]
    words += [f"{count} {name} of the lab" for name, count in sorted(need.consumes.items())]
    words += [f"dut={'|'.join(target.duts)}"] if target.duts else []
    words += [f"host={'|'.join(target.hosts)}"] if target.hosts else []
    return ", ".join(words) or f"{need.slots} slots of a host"


def _places(need: Need, hosts: Iterable[AgentFacts]) -> Iterable[Place]:
    for facts in hosts:
        if need.wants_dut:
            yield from ((facts, dut) for dut in facts.duts)
        else:
            yield facts, None


def _unknown_names(need: Need, hosts: Collection[AgentFacts]) -> list[Problem]:
    known_hosts = [str(facts.agent) for facts in hosts]
    known_duts = [str(dut.id) for facts in hosts for dut in facts.duts]
    return [
        *_unknown("host", need, need.target.hosts, known_hosts),
        *_unknown("dut", need, need.target.duts, known_duts),
    ]


def _unknown(
    kind: str, need: Need, names: Iterable[str], known: Collection[str]
) -> Iterable[Problem]:
    where = f"targets.{need.role}.{kind}s" if need.role else ""
    for name in names:
        if name not in known:
            near = nearest(name, known)
            fix = f"nearest: {', '.join(near)}" if near else f"the lab has {len(known)}"
            yield Problem(code=f"unknown_{kind}", where=where, what=shown(name), fix=fix)


def _unserved(need: Need, hosts: Collection[AgentFacts]) -> list[Problem]:
    name, reasons = nearest_place(need, hosts)
    if not reasons:
        return []
    where = f"targets.{need.role}" if need.role and need.target != Target() else ""
    missed = ", ".join(reason.text for reason in reasons)
    fix = f"best match {name} misses: {missed}" if name else missed
    fix += "; 'submit --park' keeps it waiting for one that fits"
    what = f"needs {need_text(need)}"
    return [Problem(code="unsatisfiable", where=where, what=what, fix=fix)]
