"""The lab as a whole: its counters, its health, its DUTs."""

import sys
from collections.abc import Mapping, Sequence

import click
from rich.console import Console
from rich.text import Text

from tshrag_common import flaky_requests as fr, requests as r
from tshrag_common.client import Client
from tshrag_common.errors import NotFound
from tshrag_common.setup_stats import SetupStats
from tshrag_common.views import ControllerView, DutView
from tshrag_controller.cli import intents, options, render
from tshrag_controller.cli.agents import checked
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.context import Connection
from tshrag_controller.reports.text import clean, duration


@options.command(examples=("tshrag stats", "watch -n 5 tshrag stats"))
@options.readable
@options.in_lab
def stats(connection: Connection, output: str) -> None:
    """Show the counters of the lab: runs, jobs, agents, DUTs, slots."""
    answer = ask(connection, lambda lab: lab.stats())
    render.emit(
        output, answer, lambda out: _print_stats(out, answer), [str(sum(answer.runs.values()))]
    )


def _print_stats(out: Console, answer: r.StatsAnswer) -> None:
    ratio = answer.success_ratio
    rows: list[tuple[str, render.Cell]] = [
        ("runs", render.counted(answer.runs)),
        ("jobs", render.counted(answer.jobs)),
        ("passed", "-" if ratio is None else f"{ratio:.1%} of what has ended"),
        ("attempts", str(answer.attempts)),
        ("samples", str(answer.samples)),
        ("agents", render.counted(answer.agents)),
        ("duts", render.counted(answer.duts)),
        ("slots", f"{answer.slots_taken} of {answer.slots} taken"),
    ]
    rows += _setups(answer.setups) if answer.setups is not None else []
    out.print(render.facts([*rows, *_counters(answer.counters)]))


def _setups(setups: SetupStats) -> list[tuple[str, render.Cell]]:
    """Say what groups cost and saved, where there are any."""
    if not (setups.made or setups.avoided or setups.failed):
        return []
    said = f"{setups.made} made in {duration(setups.spent_s)}"
    said += f", {setups.avoided} avoided ({duration(setups.saved_s)} saved)"
    rows: list[tuple[str, render.Cell]] = [
        ("setups", said + (f", {setups.failed} failed" if setups.failed else ""))
    ]
    return rows + ([("teardowns", render.counted(setups.teardowns))] if setups.teardowns else [])


def _counters(counters: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(name, str(count)) for name, count in sorted(counters.items()) if count]


@options.command(examples=("tshrag health", "tshrag health -o quiet || page-somebody"))
@options.readable
@options.in_lab
def health(connection: Connection, output: str) -> None:
    """Say whether the lab is well. Exit 0 when it is, 1 when degraded, 3 when nobody answers."""
    answer = ask(connection, lambda lab: lab.health())
    render.emit(output, answer, lambda out: _print_health(out, answer), [answer.status])
    sys.exit(0 if answer.status == "ok" else 1)


def _print_health(out: Console, answer: r.HealthAnswer) -> None:
    behind = answer.sequence - answer.projected
    leader = next((each for each in answer.controllers if each.role == "leader"), None)
    rows: list[tuple[str, render.Cell]] = [("status", render.state(answer.status))]
    rows += [("why", Text(clean(reason), "yellow")) for reason in answer.reasons]
    rows += [
        ("leader", _leader(leader) if leader else Text("nobody leads", "red")),
        ("broker", answer.broker),
        ("durable", "yes" if answer.durable else "no: a power cut may take what was accepted"),
        ("log", f"frame {answer.sequence}" + (f", projection {behind} behind" if behind else "")),
    ]
    out.print(render.facts([*rows, *_counters(answer.counters)]))
    if len(answer.controllers) > 1:
        out.print()
        print_controllers(out, answer.controllers)


def _leader(view: ControllerView) -> str:
    return f"{clean(view.node)}, epoch {view.epoch}, version {clean(view.version)}"


def print_controllers(out: Console, views: Sequence[ControllerView]) -> None:
    """Print all controllers; ``behind`` counts frames of the LOG."""
    heads = ("controller", "role", "epoch", "frame", "behind", "heard", "version")
    rows = [
        (
            clean(view.node),
            render.state(view.role),
            str(view.epoch),
            str(view.sequence),
            Text(str(view.lag)),
            f"{view.heard_s:.1f} s ago" if view.heard_s else "answers",
            clean(view.version),
        )
        for view in views
    ]
    out.print(render.table(heads, rows, ("behind",)))


@click.group()
def dut() -> None:
    """DUTs: the devices under test, behind the agents."""


@dut.command("list", cls=options.Command, examples=("tshrag dut list", "tshrag dut list --json"))
@options.readable
@options.in_lab
def list_duts(connection: Connection, output: str) -> None:
    """List DUTs with their state, and which job holds them."""
    answer = ask(connection, lambda lab: lab.duts())
    names = [each.dut.id for each in answer.duts]
    render.emit(output, answer, lambda out: _print_duts(out, answer), names)


def _print_duts(out: Console, answer: r.DutsAnswer) -> None:
    if not answer.duts:
        out.print("no DUTs; an agent brings them by [[dut]] in its agent.toml")
        return
    rows = [
        (
            each.dut.id,
            each.dut.kind,
            render.state(each.state),
            ", ".join(each.dut.transports),
            ", ".join(each.ways) or each.agent,
            _held_by(each),
            Text(render.when(each.since) if each.since else ""),
            "; ".join(filter(None, (each.faulty, each.intent))),
        )
        for each in answer.duts
    ]
    heads = ("dut", "kind", "state", "ways", "agent", "held by", "since", "out of service")
    out.print(render.table(heads, rows))


def _held_by(each: DutView) -> str:
    """Say who holds a DUT: a job, a person until when, a run between its jobs."""
    if each.job:
        return f"{each.job} of {each.owner}"
    if each.owner:
        return f"{each.owner} until {render.when(each.until)}"
    return f"kept by {each.kept_by}" if each.kept_by else ""


@dut.command("show", cls=options.Command, examples=("tshrag dut show rpi4-1",))
@click.argument("name")
@options.readable
@options.in_lab
def show_dut(connection: Connection, output: str, name: str) -> None:
    """Show one DUT: what it is, who has it, how it did lately."""

    async def asked(lab: Client) -> tuple[r.DutsAnswer, fr.FlakyAnswer]:
        answer = await lab.duts()
        known = [str(each.dut.id) for each in answer.duts]
        if name not in known:
            raise NotFound("dut", name, known)
        return answer, await lab.flaky(fr.AskFlaky(dut=name))

    answer, results = ask(connection, asked)
    found = next(each for each in answer.duts if each.dut.id == name)
    lately = results.boards[0] if results.boards else fr.BoardView(dut=name)
    render.emit(output, found, lambda out: _print_dut(out, found, lately), [name])


def _results(lately: fr.BoardView) -> str:
    """Say in a line how a board did in the last days; `tshrag flaky` tells more."""
    if not lately.passed + lately.failed + lately.errors:
        return "no job has ended there in the last 14 days"
    suspected = sorted({each.verdict for each in lately.suspicions})
    said = f"{lately.passed} passed, {lately.failed} failed, {lately.errors} in error"
    more = f"; suspected: {', '.join(suspected)} (see tshrag flaky)" if suspected else ""
    return f"{said} in 14 days{more}"


def _print_dut(out: Console, found: DutView, lately: fr.BoardView) -> None:
    dut = found.dut
    labels = " ".join(f"{name}={value}" for name, value in sorted(dut.labels.items()))
    rows: list[tuple[str, render.Cell]] = [
        ("dut", dut.id),
        ("state", render.state(found.state)),
        ("kind", dut.kind),
        ("ways", ", ".join(dut.transports)),
        ("platform", f"{dut.os}/{dut.arch or 'any'}"),
        ("labels", labels or "-"),
        ("agent", found.agent),
        ("shared", f"by {', '.join(found.ways)}" if found.ways else "no"),
        ("held by", _held_by(found) or "-"),
        ("since", render.when(found.since)),
        ("kept by", found.kept_by or "-"),
        ("faulty", found.faulty or dut.faulty or "-"),
        ("wanted", found.intent or "in service"),
        ("back", render.when(found.intent_until)),
        ("health check", checked(found.checked)),
        ("results", _results(lately)),
        ("carries", ", ".join(each[:12] for each in dut.carries) or "-"),
        ("to undo", ", ".join(each[:12] for each in dut.owes) or "-"),
    ]
    out.print(render.facts(rows))


intents.add_to(dut, "dut")
