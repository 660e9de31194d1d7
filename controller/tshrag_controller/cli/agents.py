"""Agents and people: list, show, enroll, add, revoke."""

from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from tshrag_common import requests as r
from tshrag_common.errors import NotFound
from tshrag_common.ids import OrgId, org_id
from tshrag_common.keys import Bundle, write_secret
from tshrag_common.views import AgentView, CheckedView
from tshrag_controller.cli import intents, options, render
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.context import Connection, state_folder
from tshrag_controller.cli.enrolling import keyring
from tshrag_controller.reports.text import clean, plural, size

_OUT = click.option("--out", type=click.Path(path_type=Path), help="Write it there, mode 0600.")
_ADDRESS = click.option("--address", default="", help="How that machine reaches the bus, as a URL.")
_ORG = click.option("--org", default="default", show_default=True, help="Whose runs they see.")


@click.group()
def agent() -> None:
    """Agents: one on each lab host."""


@agent.command(
    "list", cls=options.Command, examples=("tshrag agent list", "tshrag agent list --json")
)
@options.readable
@options.in_lab
def list_agents(connection: Connection, output: str) -> None:
    """List agents with their state, slots and DUTs."""
    answer = ask(connection, lambda lab: lab.agents())
    names = [each.facts.agent for each in answer.agents]
    render.emit(output, answer, lambda out: _print_agents(out, answer), names)


def _print_agents(out: Console, answer: r.AgentsAnswer) -> None:
    if not answer.agents:
        out.print("no agents; 'tshrag agent enroll NAME' makes the file that one starts with")
        return
    rows = [
        (
            each.facts.agent,
            render.state(each.state),
            Text(f"{each.free_slots}/{each.facts.slots}"),
            Text(str(len(each.jobs))),
            render.text(", ".join(dut.id for dut in each.facts.duts), 40),
            f"{each.facts.os}/{each.facts.arch}",
            each.facts.version,
            Text(render.when(each.heard_at)),
            each.intent,
        )
        for each in answer.agents
    ]
    heads = (
        "agent",
        "state",
        "free",
        "jobs",
        "duts",
        "platform",
        "version",
        "heard",
        "out of service",
    )
    out.print(render.table(heads, rows, ("free", "jobs")))


@agent.command("show", cls=options.Command, examples=("tshrag agent show a1",))
@click.argument("name")
@options.readable
@options.in_lab
def show_agent(connection: Connection, output: str, name: str) -> None:
    """Show one agent: its host, its DUTs, what it does."""
    answer = ask(connection, lambda lab: lab.agents())
    known = {each.facts.agent: each for each in answer.agents}
    found = next((each for key, each in known.items() if key == name), None)
    if found is None:
        raise NotFound("agent", name, known)
    render.emit(output, found, lambda out: _print_agent(out, found), [found.facts.agent])


def _print_agent(out: Console, found: AgentView) -> None:
    facts = found.facts
    labels = " ".join(f"{name}={value}" for name, value in sorted(facts.labels.items()))
    rows: list[tuple[str, render.Cell]] = [
        ("agent", facts.agent),
        ("state", render.state(found.state)),
        ("since", render.when(found.since)),
        ("wanted", found.intent or "in service"),
        ("back", render.when(found.intent_until)),
        ("health check", checked(found.checked)),
        ("heard", render.when(found.heard_at)),
        ("host", f"{facts.hostname}, {facts.os}/{facts.arch}, {plural(facts.cores, 'core')}"),
        ("memory", size(facts.memory_bytes) if facts.memory_bytes else "-"),
        ("slots", f"{found.free_slots} of {facts.slots} free"),
        ("labels", labels or "-"),
        ("tools", ", ".join(facts.tools) or "-"),
        ("version", f"{facts.version}, pid {facts.pid}"),
        ("spooled", size(found.spool_bytes)),
        ("jobs", ", ".join(found.jobs) or "-"),
    ]
    out.print(render.facts(rows))
    if facts.duts:
        out.print()
        heads = ("dut", "kind", "ways", "faulty")
        table = [(dut.id, dut.kind, ", ".join(dut.transports), dut.faulty) for dut in facts.duts]
        out.print(render.table(heads, table))


def checked(found: CheckedView) -> str:
    """Return what health checks say, in one line."""
    faults = plural(found.faults, "infrastructure error") + " in a row" if found.faults else ""
    if not found.at:
        return faults or "-"
    said = f"{found.state or 'ordered'} {render.when(found.at)} ({found.run})"
    return f"{said}; then {faults}" if faults else said


@agent.command(
    "enroll",
    cls=options.Command,
    examples=(
        "tshrag agent enroll rack-7 --address nats://lab.example:4222 --out rack-7.json",
        "scp rack-7.json rack-7:/etc/tshrag/      # then [nats] bundle in its agent.toml",
    ),
)
@click.argument("name")
@_OUT
@_ADDRESS
def enroll(name: str, out: Path | None, address: str) -> None:
    """Print the one file with which the agent NAME joins this lab.

    It is made here, from the keys in the lab's state folder (TSHRAG_STATE); nothing is sent.
    Who has the file is the agent: hand it over as you would a password.
    """
    with keyring(state_folder(), address) as ring:
        bundle = ring.enroll(name)
        _hand_out(bundle, out, ring.is_plain, ring.is_loopback)


_ROLE = click.option(
    "--role",
    type=click.Choice(("member", "operator")),
    default="member",
    show_default=True,
    help="An operator takes hosts and boards out of service, and leases over.",
)
_FINISH = click.option("--finish", is_flag=True, help="End the right of what was issued before.")


@agent.command(
    "rotate",
    cls=options.Command,
    examples=(
        "tshrag agent rotate rack-7 --out rack-7.json     # copy it over the one on the host",
        "tshrag agent rotate rack-7 --finish              # when it has taken it",
    ),
)
@click.argument("name")
@_FINISH
@_OUT
@_ADDRESS
def rotate_agent(name: str, finish: bool, out: Path | None, address: str) -> None:
    """Exchange the credentials of the agent NAME, and the seal of its reports, while it works.

    The new file takes the place of the old one on its host: the agent sees that within seconds,
    and no job notices. With --finish the old one ends.
    """
    with keyring(state_folder(), address) as ring:
        if finish:
            ring.end_rotation(name)
            render.note(f"what agent {clean(name)} was issued before is revoked")
            return
        bundle = ring.rotate_agent(name)
        _hand_out(bundle, out, ring.is_plain, ring.is_loopback)


@agent.command("revoke", cls=options.Command, examples=("tshrag agent revoke rack-7",))
@click.argument("name")
def revoke_agent(name: str) -> None:
    """End the right of the agent NAME; it is cut off within a second."""
    with keyring(state_folder()) as ring:
        ring.revoke_agent(name)
    render.note(f"agent {clean(name)} is revoked")


@click.group()
def user() -> None:
    """People and CI: who may submit, and for which org."""


@user.command(
    "add",
    cls=options.Command,
    examples=(
        "tshrag user add jo --org radio --out jo.json",
        "TSHRAG_CREDS=jo.json tshrag list",
    ),
)
@click.argument("name")
@_ORG
@_OUT
@_ADDRESS
@_ROLE
def add_user(name: str, org: str, out: Path | None, address: str, role: str) -> None:
    """Print the one file with which NAME, a person or a CI, uses this lab."""
    with keyring(state_folder(), address) as ring:
        bundle = ring.add_person(name, org_id(org), "" if role == "member" else role)
        _hand_out(bundle, out, ring.is_plain, ring.is_loopback)


@user.command(
    "rotate",
    cls=options.Command,
    examples=(
        "tshrag user rotate jo --org radio --out jo.json",
        "tshrag user rotate jo --org radio --finish       # when jo has the new file",
    ),
)
@click.argument("name")
@_ORG
@_FINISH
@_OUT
@_ADDRESS
@_ROLE
def rotate_user(
    name: str, org: str, finish: bool, out: Path | None, address: str, role: str
) -> None:
    """Exchange the credentials of NAME; with --finish what was issued before ends."""
    with keyring(state_folder(), address) as ring:
        if finish:
            ring.end_rotation_of_person(name, org_id(org))
            render.note(f"what {clean(name)} of {clean(org)} was issued before is revoked")
            return
        bundle = ring.rotate_person(name, org_id(org), "" if role == "member" else role)
        _hand_out(bundle, out, ring.is_plain, ring.is_loopback)


@user.command("revoke", cls=options.Command, examples=("tshrag user revoke jo --org radio",))
@click.argument("name")
@_ORG
def revoke_user(name: str, org: str) -> None:
    """End the right of NAME; their connections are cut within a second."""
    with keyring(state_folder()) as ring:
        ring.revoke_person(name, OrgId(org))
    render.note(f"{clean(name)} of {clean(org)} is revoked")


def _hand_out(bundle: Bundle, out: Path | None, plain: bool, loopback: bool) -> None:
    if out is None:
        click.echo(bundle.encoded(), nl=False)
    else:
        write_secret(out, bundle.encoded())
        render.note(f"written to {clean(str(out))}; who has it is {bundle.kind} {bundle.name}")
    if plain:
        render.note("the bus has no accounts: this file carries no right of its own")
    if loopback:
        render.note(f"{bundle.url} is this machine; --address says how another one reaches it")


intents.add_to(agent, "agent")
