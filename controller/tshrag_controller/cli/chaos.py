"""A drill on a live lab: what happens, how long the lab takes to be well again, what was promised.

Nothing happens without --yes; then only where the settings of who suffers it allow drills.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import click
import msgspec
from rich.console import Console

from tshrag_common import requests as r
from tshrag_common.client import Client
from tshrag_common.drill_requests import MOST_S, Drill
from tshrag_common.errors import LabError, NotFound, Refused
from tshrag_common.views import AgentView
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.context import Connection

FAILED = 1
LOOK_S = 0.1
PATIENCE = 3.0
"""So many times what was promised is waited for; then the drill has failed."""

AGENT_BACK_S = 60.0  # so long the shepherd keeps the jobs of an agent that died
LINK_BACK_S = 10.0
HANDOVER_S, RESTART_S = 2.0, 10.0


class Drilled(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a drill. ``recovered_s`` counts from its begin; negative: it has not."""

    what: str
    target: str
    recovered_s: float
    promised_s: float
    jobs_before: tuple[str, ...] = ()
    jobs_kept: tuple[str, ...] = ()

    @property
    def is_kept(self) -> bool:
        return 0 <= self.recovered_s <= self.promised_s


@click.group()
def chaos() -> None:
    """Hold a drill on a live lab, and time how it recovers.

    Without --yes it says exactly what would happen, and does nothing. Whoever suffers a drill must
    allow it: `drills = true` in [agent] of agent.toml, in [controller] of controller.toml. Only
    operators hold drills.
    """


YES = click.option("--yes", is_flag=True, help="Do it. Without this, only say what would happen.")


@chaos.command(
    "kill-agent",
    cls=options.Command,
    examples=(
        "tshrag chaos kill-agent rack-7          # what would happen?",
        "tshrag chaos kill-agent rack-7 --yes",
    ),
)
@click.argument("agent")
@YES
@options.readable
@options.in_lab
def kill_agent(connection: Connection, output: str, agent: str, yes: bool) -> None:
    """Kill the process of an AGENT with -9; its supervisor starts it again.

    Processes of jobs on the host go on under the shepherd, and the next agent adopts them. What
    runs on boards is ended and tried again.
    """
    drill = Drill(what="kill-agent", agent=agent)
    will = f"agent {agent} kills itself with SIGKILL; its supervisor must start it again"
    _hold(connection, output, drill, will, AGENT_BACK_S, yes=yes)


@chaos.command(
    "cut-link",
    cls=options.Command,
    examples=("tshrag chaos cut-link rack-7 --for 20s --yes",),
)
@click.argument("agent")
@click.option("--for", "for_s", type=options.Seconds(), default=20, show_default=True,
              help="How long.")  # fmt: skip
@YES
@options.readable
@options.in_lab
def cut_link(connection: Connection, output: str, agent: str, for_s: float, yes: bool) -> None:
    """Cut an AGENT off the bus for a while; its jobs go on, what they say is spooled.

    After 15 s it is shown as suspect, after 30 s as lost. Attempts on shared DUTs end before
    their lease does.
    """
    if not 0 < for_s <= MOST_S:
        raise Refused("--for", f"{for_s:g} s", f"1s to {MOST_S:.0f}s", code="range")
    drill = Drill(what="cut-link", agent=agent, seconds=for_s)
    will = f"agent {agent} closes its connection to the bus for {for_s:g} s"
    _hold(connection, output, drill, will, for_s + LINK_BACK_S, yes=yes)


@chaos.command(
    "restart-controller",
    cls=options.Command,
    examples=("tshrag chaos restart-controller --yes",),
)
@YES
@options.readable
@options.in_lab
def restart_controller(connection: Connection, output: str, yes: bool) -> None:
    """End the leading controller in order; a standby leads, or its supervisor starts it again."""
    drill = Drill(what="restart-controller")
    will = "the controller that leads ends with SIGTERM; a standby takes over, or its supervisor "
    will += "must start it again"
    _hold(connection, output, drill, will, RESTART_S, yes=yes)


def _hold(
    connection: Connection, output: str, drill: Drill, will: str, promised_s: float, *, yes: bool
) -> None:
    """Say what will happen; do it, and tell what came of it, only with --yes."""
    if not yes:
        about = ask(connection, lambda lab: _about(lab, drill))
        raise Refused("", f"{will}; {about}", "say --yes, and it happens at once", code="yes")
    found = ask(connection, lambda lab: _drilled(lab, drill, promised_s))
    render.emit(output, found, lambda out: _print(out, found), [found.target])
    if not found.is_kept:
        raise SystemExit(FAILED)


async def _about(lab: Client, drill: Drill) -> str:
    """Say what is at work there now."""
    if not drill.agent:
        health = await lab.health()
        others = [view.node for view in health.controllers if view.role == "standby"]
        standby = f"{', '.join(others)} stands by" if others else "nobody stands by"
        return f"{health.node} answers, {standby}"
    agent = await _agent(lab, drill.agent)
    allows = "allows drills" if agent.facts.drills else "does not allow drills"
    return f"it is {agent.state}, {allows}, and has {len(agent.jobs)} jobs at work"


async def _agent(lab: Client, name: str) -> AgentView:
    agents = (await lab.agents()).agents
    for agent in agents:
        if agent.facts.agent == name:
            return agent
    raise NotFound("agent", name, [agent.facts.agent for agent in agents])


async def _drilled(lab: Client, drill: Drill, promised_s: float) -> Drilled:
    if drill.agent:
        return await _on_agent(lab, drill, promised_s)
    before = await lab.health()
    if any(view.role == "standby" for view in before.controllers):
        promised_s = HANDOVER_S
    answer = await lab.drill(drill)
    began = time.monotonic()
    took_s = await _until(lambda: _leads_anew(lab, answer.epoch), began, promised_s)
    return Drilled(what=drill.what, target=answer.target, recovered_s=took_s, promised_s=promised_s)


async def _on_agent(lab: Client, drill: Drill, promised_s: float) -> Drilled:
    before = await _agent(lab, drill.agent)
    attempts = await _attempts(lab, before.jobs)
    await lab.drill(drill)
    began = time.monotonic()
    dark_s = drill.seconds

    async def is_back() -> bool:
        now = await _agent(lab, drill.agent)
        if drill.what == "kill-agent":
            return now.state == "online" and now.facts.boot != before.facts.boot
        heard_since = time.monotonic() - began > dark_s and now.heard_at > before.heard_at
        return now.state == "online" and heard_since and await _is_fresh(lab, now)

    took_s = await _until(is_back, began, promised_s)
    after = await _attempts(lab, before.jobs)
    kept = tuple(job for job in before.jobs if after.get(job) == attempts.get(job))
    return Drilled(
        what=drill.what,
        target=drill.agent,
        recovered_s=took_s,
        promised_s=promised_s,
        jobs_before=before.jobs,
        jobs_kept=kept,
    )


async def _is_fresh(lab: Client, agent: AgentView) -> bool:
    """Tell whether an agent was heard a moment ago, by the clock of the lab."""
    at = (await lab.health()).at
    return at - agent.heard_at < 2_000_000


async def _attempts(lab: Client, jobs: Sequence[str]) -> dict[str, int]:
    """Return the number of the newest attempt of each job."""
    found: dict[str, int] = {}
    for name in jobs[:200]:
        for job in (await lab.jobs(r.ListJobs(id=name))).jobs:
            found[job.id] = len(job.attempts)
    return found


async def _leads_anew(lab: Client, epoch: int) -> bool:
    return (await lab.ask("health", r.Nothing(), r.HealthAnswer, 1.0)).epoch > epoch


async def _until(holds: Callable[[], Awaitable[bool]], began: float, promised_s: float) -> float:
    """Return how long it took until `holds` is true; -1: it has not come to that."""
    while time.monotonic() - began < promised_s * PATIENCE:
        try:
            if await holds():
                return round(time.monotonic() - began, 2)
        except LabError:
            pass  # nobody leads, or answers, for a moment: that is the drill
        await asyncio.sleep(LOOK_S)
    return -1.0


def _print(out: Console, found: Drilled) -> None:
    took = f"{found.recovered_s:.1f} s" if found.recovered_s >= 0 else "not in time"
    verdict = "kept" if found.is_kept else "NOT KEPT"
    rows: list[tuple[str, render.Cell]] = [
        ("drill", f"{found.what} {found.target}"),
        ("well again after", took),
        ("promised", f"{found.promised_s:g} s: {verdict}"),
    ]
    if found.jobs_before:
        kept, all_ = len(found.jobs_kept), len(found.jobs_before)
        rows.append(("jobs", f"{kept} of {all_} go on in the same attempt, or have ended"))
    out.print(render.facts(rows))
