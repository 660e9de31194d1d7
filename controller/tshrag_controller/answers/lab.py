"""Answers about the lab: agents, DUTs, stats, health."""

from collections.abc import Callable
from functools import partial

from tshrag_common import requests as r
from tshrag_common.clock import Clock
from tshrag_common.ids import DEFAULT_ORG, OrgId
from tshrag_common.setup_stats import SetupStats
from tshrag_common.views import AgentView, CheckedView, ControllerView, DutView
from tshrag_controller.answers.asker import Asker
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.intent_events import Kind
from tshrag_controller.core.lab import DutRow, Lab
from tshrag_controller.core.needs import unwanted
from tshrag_controller.core.people import Health, place_of
from tshrag_controller.core.stopping import must_end
from tshrag_controller.core.ways import is_reachable
from tshrag_controller.engine import Engine
from tshrag_controller.intake.beats import Beats
from tshrag_controller.store import queries
from tshrag_controller.store.setup_rows import SAVED_US, SPENT_US
from tshrag_controller.store.store import Store


class LabAnswers:
    """Agents and DUTs are asked of the Lab, counters of the projection."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        beats: Beats,
        clock: Clock,
        about: "About",
    ) -> None:
        self._engine, self._store, self._beats = engine, store, beats
        self._clock, self._about = clock, about

    async def agents(self, asker: Asker, asked: r.Nothing) -> r.AgentsAnswer:
        views = await self._engine.ask(self._agent_views)
        return r.AgentsAnswer(agents=views)

    def _agent_views(self, decision: Decision) -> tuple[AgentView, ...]:
        lab = decision.lab
        now, now_s = self._clock.now(), self._clock.monotonic()
        views: list[AgentView] = []
        for name, agent in sorted(lab.agents.items()):
            beat = self._beats.last.get(name)
            silent_us = round((now_s - self._beats.heard_at(name)) * 1e6)
            views.append(
                AgentView(
                    facts=agent.facts,
                    state=agent.state,
                    since=agent.since,
                    free_slots=agent.free_slots,
                    jobs=tuple(sorted(lab.attempts[fence].job for fence in agent.fences)),
                    heard_at=now - silent_us if beat else 0,
                    spool_bytes=beat.spool_bytes if beat else 0,
                    intent=agent.intent.text if agent.intent else "",
                    intent_until=agent.intent.until if agent.intent else 0,
                    checked=_checked(lab, "agent", name),
                )
            )
        return tuple(views)

    async def duts(self, asker: Asker, asked: r.Nothing) -> r.DutsAnswer:
        views = await self._engine.ask(
            lambda decision: tuple(
                _dut_view(decision.lab, row) for _, row in sorted(decision.lab.duts.items())
            )
        )
        return r.DutsAnswer(duts=views)

    async def stats(self, asker: Asker, asked: r.Nothing) -> r.StatsAnswer:
        await self._store.wait_applied(self._engine.sequence)
        own = asker.org if asker.org != DEFAULT_ORG else None  # the lab's own org sees all
        read = partial(queries.counters_of, org=own) if own else queries.counters
        counters = await self._store.query(read)
        return await self._engine.ask(lambda decision: _stats(decision.lab, counters, own))

    async def health(self, asker: Asker, asked: r.Nothing) -> r.HealthAnswer:
        about = self._about
        reasons = about.reasons()
        return r.HealthAnswer(
            status="degraded" if reasons else "ok",
            at=self._clock.now(),
            version=about.version,
            node=about.node,
            epoch=self._engine.epoch,
            sequence=self._engine.sequence,
            projected=self._store.applied,
            broker=about.broker,
            durable=about.durable,
            reasons=reasons,
            counters=about.counters(),
            controllers=about.controllers(),
        )


class About:
    """What the daemon knows of itself and its surroundings."""

    def __init__(
        self,
        version: str,
        node: str,
        broker: str,
        durable: bool,
        reasons: Callable[[], tuple[str, ...]],
        counters: Callable[[], dict[str, int]],
        controllers: Callable[[], tuple[ControllerView, ...]],
    ) -> None:
        self.version, self.node, self.broker, self.durable = version, node, broker, durable
        self.reasons, self.counters = reasons, counters
        self.controllers = controllers


def dut_state(lab: Lab, row: DutRow) -> str:
    """Return available, leased, cancelling (being ended), teardown, faulty or unreachable."""
    if row.faulty:
        return "faulty"
    if not is_reachable(lab, row):
        return "unreachable"
    if row.holder in lab.attempts and must_end(lab, row.holder):
        return "cancelling"
    if row.undo and row.holder and row.holder in lab.attempts:
        run = lab.jobs[lab.attempts[row.holder].job].run
        if run == row.undo:
            return "teardown"
    return "leased" if row.holder or row.kept_by else "available"


def _dut_view(lab: Lab, row: DutRow) -> DutView:
    attempt = lab.attempts.get(row.holder)
    lease = lab.people.leases.get(row.holder)
    owner, since = (lease.owner, lease.since) if lease else ("", 0)
    if attempt is not None:
        owner, since = lab.runs[lab.jobs[attempt.job].run].org, attempt.assigned_at
    return DutView(
        dut=row.dut,
        agent=row.agent,
        state=dut_state(lab, row),
        job=attempt.job if attempt else "",
        kept_by=row.kept_by or "",
        faulty=row.faulty,
        owner=owner,
        since=since,
        until=lease.until if lease else 0,
        ways=row.ways,
        intent="; ".join(reason.text for reason in unwanted(lab.agents[row.agent], row)),
        intent_until=row.intent.until if row.intent else 0,
        checked=_checked(lab, "dut", row.dut.id),
    )


def _checked(lab: Lab, kind: Kind, name: str) -> CheckedView:
    health = lab.people.health.get(place_of(kind, name), Health())
    return CheckedView(at=health.at, state=health.state, run=health.run, faults=health.faults)


def _setups(counters: dict[str, int]) -> SetupStats:
    teardowns = {name[10:]: n for name, n in counters.items() if name.startswith("teardowns.")}
    return SetupStats(
        made=counters.get("setups.made", 0),
        avoided=counters.get("setups.found", 0),
        failed=counters.get("setups.failed", 0),
        spent_s=counters.get(SPENT_US, 0) / 1e6,
        saved_s=counters.get(SAVED_US, 0) / 1e6,
        teardowns=teardowns,
    )


def _stats(lab: Lab, counters: dict[str, int], org: OrgId | None) -> r.StatsAnswer:
    jobs = {name[5:]: count for name, count in counters.items() if name.startswith("jobs.")}
    runs = {name[5:]: count for name, count in counters.items() if name.startswith("runs.")}
    alive = [run for run in lab.runs.values() if org in (None, run.org)]
    for run in alive:
        if not run.ended_at:
            runs[run.state] = runs.get(run.state, 0) + 1
    jobs["open"] = sum(run.open_jobs for run in alive)
    ended = sum(count for name, count in jobs.items() if name not in ("open", "skipped"))
    agents: dict[str, int] = {}
    for agent in lab.agents.values():
        agents[agent.state] = agents.get(agent.state, 0) + 1
    duts: dict[str, int] = {}
    for row in lab.duts.values():
        state = dut_state(lab, row)
        duts[state] = duts.get(state, 0) + 1
    return r.StatsAnswer(
        runs=runs,
        jobs=jobs,
        agents=agents,
        duts=duts,
        slots=sum(agent.facts.slots for agent in lab.agents.values()),
        slots_taken=sum(agent.host_slots for agent in lab.agents.values()),
        attempts=counters.get("attempts", 0),
        samples=counters.get("samples", 0),
        success_ratio=jobs.get("passed", 0) / ended if ended else None,
        setups=_setups(counters),
        counters={} if org else {**lab.counters, "set_aside": counters.get("set_aside", 0)},
    )
