"""PURE: does a place fit a need, and may it be used now? One predicate filters and explains.

`misfits` says what can never fit as things are; `blocked` says what is in the way at this
moment. Both empty: the place can be given.
"""

from collections.abc import Mapping

import msgspec

from tshrag_common.conditions import condition
from tshrag_common.inventory import AgentFacts, Dut
from tshrag_common.jobs import Need
from tshrag_common.states import AgentState
from tshrag_controller.core.lab import Agent, DutRow


class Reason(msgspec.Struct, frozen=True):
    """One thing in the way: a word for programs, a sentence for people."""

    code: str
    text: str


def misfits(need: Need, host: AgentFacts, dut: Dut | None) -> tuple[Reason, ...]:
    """Return why this host (and DUT) can never serve `need`, all reasons; empty: it fits."""
    reasons: list[Reason] = []
    target = need.target
    if target.hosts and host.agent not in target.hosts:
        reasons.append(Reason("host", f"host {host.agent} is not one of {_list(target.hosts)}"))
    tools = sorted(set(need.tools) - set(host.tools))
    if tools:
        reasons.append(Reason("tool", f"host lacks {_list(tools)}"))
    if need.wants_dut:
        reasons += _dut_misfits(need, host, dut)
    else:
        reasons += _label_misfits(need, host, {})
        if need.slots > host.slots:
            reasons.append(Reason("slots", f"needs {need.slots} slots, host has {host.slots}"))
        reasons += _platform_misfits(need, host.os, host.arch)
    if need.resources:
        reasons += _resource_misfits(need, host)
    return tuple(reasons)


def _resource_misfits(need: Need, host: AgentFacts) -> list[Reason]:
    reasons: list[Reason] = []
    capacity = host.capacity
    for name, amount in sorted(need.resources.items()):
        has = capacity.get(name, 0)
        if amount > has:
            what = f"needs {amount_text(name, amount)}, host has {amount_text(name, has)}"
            reasons.append(Reason("resource", what))
    return reasons


def amount_text(name: str, amount: float) -> str:
    """Return an amount in words: ``2 cpus``, ``8 GiB of memory``."""
    if name == "memory":
        return f"{amount / 2**30:.3g} GiB of memory"
    return f"{amount:g} {name}"


def _dut_misfits(need: Need, host: AgentFacts, dut: Dut | None) -> list[Reason]:
    target = need.target
    if dut is None:
        return [Reason("dut", "host has no DUT")]
    reasons: list[Reason] = []
    if target.duts and dut.id not in target.duts:
        reasons.append(Reason("dut", f"DUT {dut.id} is not one of {_list(target.duts)}"))
    if target.kind and dut.kind != target.kind:
        reasons.append(Reason("kind", f"kind is {dut.kind}, not {target.kind}"))
    if target.runtime != "dut" and target.runtime not in dut.transports:
        has = _list(dut.transports)
        reasons.append(Reason("runtime", f"reached by {has}, not by {target.runtime}"))
    lacks = tuple(each for each in need.can if each not in dut.can)
    if lacks:
        reasons.append(Reason("can", f"DUT {dut.id} has no {_list(lacks)} set up"))
    reasons += _label_misfits(need, host, dut.labels)
    if dut.arch:
        reasons += _platform_misfits(need, dut.os, dut.arch)
    return reasons


def _label_misfits(need: Need, host: AgentFacts, own: Mapping[str, str]) -> list[Reason]:
    """Hold what is asked of labels against those of a DUT (`own`), then those of its host."""
    target = need.target
    if not target.labels and not target.where:
        return []
    has = {**host.labels, **own}
    reasons: list[Reason] = []
    for key, value in sorted(target.labels.items()):
        if key not in has:
            reasons.append(Reason("label", f"label {key} is missing"))
        elif has[key] != value:
            reasons.append(Reason("label", f"label {key} is {has[key]}, not {value}"))
    if target.where:
        both = {**{f"host.{key}": value for key, value in host.labels.items()}, **has}
        faults = (condition(each).fault(both) for each in target.where)
        reasons += [Reason("label", fault) for fault in faults if fault]
    return reasons


def _platform_misfits(need: Need, os: str, arch: str) -> list[Reason]:
    if not need.platforms or (os, arch) in need.platforms:
        return []
    known = _list([f"{name}/{machine}" for name, machine in need.platforms])
    return [Reason("platform", f"the load has no entry for {os}/{arch}, only for {known}")]


def away(agent: Agent, row: DutRow | None, run: str = "") -> list[Reason]:
    """Return why nobody at all can have this place now, whoever holds it.

    Where nothing new may come, a `run` that has the DUT already may go on with it.
    """
    reasons: list[Reason] = []
    if agent.state is not AgentState.ONLINE:
        reasons.append(Reason("agent", f"host {agent.facts.agent} is {agent.state}"))
    if row is not None and row.gone:
        text = f"host {agent.facts.agent} does not tell of DUT {row.dut.id} any more"
        reasons.append(Reason("gone", text))
    if row is not None and row.faulty:
        reasons.append(Reason("faulty", f"DUT {row.dut.id} is faulty: {row.faulty}"))
    return reasons + unwanted(agent, row, run)


def unwanted(agent: Agent, row: DutRow | None, run: str = "") -> list[Reason]:
    """Return why people do not want anything to start at a place."""
    reasons: list[Reason] = []
    named = [(f"host {agent.facts.agent}", agent.intent)]
    if row is not None:
        named.append((f"DUT {row.dut.id}", row.intent))
    is_own = row is not None and bool(run) and row.kept_by == run
    for name, intent in named:
        is_check = intent is not None and bool(run) and intent.check == run
        if intent is not None and not is_check and not (is_own and intent.what == "cordoned"):
            reasons.append(Reason("intent", f"{name} is {intent.text}"))
    return reasons


def blocked(need: Need, agent: Agent, row: DutRow | None, run: str) -> tuple[Reason, ...]:
    """Return what is in the way now, at a place that fits; empty: it is free for `run`."""
    reasons = away(agent, row, run)
    if need.resources:
        reasons += _short(need, agent)
    if row is None:
        if agent.free_slots < need.slots:
            slots = agent.facts.slots
            reasons.append(Reason("capacity", f"{slots - agent.free_slots} of {slots} slots taken"))
        return tuple(reasons)
    if row.holder:
        reasons.append(Reason("held", f"DUT {row.dut.id} is held under fence {row.holder}"))
    elif row.kept_by and row.kept_by != run:
        reasons.append(Reason("kept", f"DUT {row.dut.id} is kept by {row.kept_by}"))
    return tuple(reasons)


def _short(need: Need, agent: Agent) -> list[Reason]:
    """Say which resources of a host others have now."""
    reasons: list[Reason] = []
    capacity = agent.facts.capacity
    for name, amount in sorted(need.resources.items()):
        taken = agent.taken.get(name, 0)
        if taken + amount > capacity.get(name, 0):
            has = amount_text(name, capacity.get(name, 0))
            what = f"{taken / 2**30:.3g}" if name == "memory" else f"{taken:g}"
            reasons.append(Reason("resource", f"{what} of {has} taken on {agent.facts.agent}"))
    return reasons


def _list(words: tuple[str, ...] | list[str]) -> str:
    return ", ".join(words) or "nothing"
