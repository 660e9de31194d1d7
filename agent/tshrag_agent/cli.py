"""``tshrag-agent``: run the daemon, check what it would do, show its facts."""

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import click
import msgspec
import uvloop

from tshrag_agent import process
from tshrag_agent.check import check_lines
from tshrag_agent.daemon import VERSION
from tshrag_agent.host_keys import host_key_lines
from tshrag_agent.reports.facts import gather
from tshrag_agent.scan import learn, proposal, scan
from tshrag_agent.settings import AgentSettings, read_settings
from tshrag_common.errors import LabError, Refused
from tshrag_common.ids import AgentId
from tshrag_common.jsonlog import set_up_logging

EXIT_REFUSED = 2
EXIT_UNAVAILABLE = 3

CONFIG = click.option(
    "--config",
    "-c",
    "config",
    type=click.Path(path_type=Path),
    envvar="TSHRAG_AGENT_CONFIG",
    default=Path("agent.toml"),
    show_default=True,
    help="The agent's settings.",
)


@click.group()
def main() -> None:
    """The agent of a lab host: it executes attempts, drives DUTs, reports."""


def _run(config: Path, handover: bool, verbose: bool, form: Literal["json", "text"]) -> None:
    set_up_logging("debug" if verbose else "info", form)
    with _one_line():
        settings = read_settings(config)
        reread = partial(read_settings, config)
        uvloop.run(process.run(settings, handover=handover, reread=reread))


@main.command()
@CONFIG
@click.option("--handover", is_flag=True, help="On SIGTERM leave host processes to the next agent.")
@click.option("--verbose", "-v", is_flag=True, help="Log more.")
@click.option(
    "--log", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
)
def run(config: Path, handover: bool, verbose: bool, form: Literal["json", "text"]) -> None:
    """Be the agent until SIGTERM; running jobs are awaited for a while, then ended."""
    _run(config, handover, verbose, form)


main.add_command(run, "serve")


@main.command()
@CONFIG
def check(config: Path) -> None:
    """Print what the settings mean, and probe every DUT."""
    with _one_line():
        settings = read_settings(config)
        is_well = True
        for line, good in asyncio.run(check_lines(settings)):
            is_well &= good
            click.echo(line)
    if not is_well:
        sys.exit(EXIT_UNAVAILABLE)


@main.command()
@CONFIG
def facts(config: Path) -> None:
    """Print what the agent would say of its host, as JSON."""
    with _one_line():
        settings = read_settings(config)
        found = gather(_name(settings), settings, "none", VERSION)
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())


@main.command("host-key")
@CONFIG
@click.argument("dut")
@click.option("--pin", is_flag=True, help="Write the key that answers to the file of host_key.")
def host_key(config: Path, dut: str, pin: bool) -> None:
    """Show the pinned host key of a DUT and the one that answers; 2 where they differ."""
    with _one_line():
        lines, is_same = asyncio.run(host_key_lines(read_settings(config), dut, pin))
        for line in lines:
            click.echo(line)
    if not is_same:
        sys.exit(EXIT_REFUSED)


@main.command("scan")
@click.option("--learn", "name", default="", metavar="NAME", help="Propose the board that comes.")
@click.option("--within", "within_s", default=120.0, show_default=True, help="Seconds to wait.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def scan_(name: str, within_s: float, as_json: bool) -> None:
    """List serial adapters, USB devices and neighbours that speak SSH.

    With --learn: start it, then power the board or plug its cable; it prints a [[dut]] entry for
    agent.toml.
    """
    with _one_line():
        found = asyncio.run(scan())
        if name:
            click.echo(f"{len(found.lines)} things are known; now bring {name}", err=True)
            click.echo(proposal(name, asyncio.run(learn(found, within_s))), nl=False)
        elif as_json:
            click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        else:
            for line in found.lines or ["nothing"]:
                click.echo(line)


def _name(settings: AgentSettings) -> AgentId:
    if settings.nats.bundle:
        with contextlib.suppress(LabError):
            return AgentId(settings.bundle().name)
    return AgentId(settings.agent.name or "unnamed")


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Turn an error of the lab into one line and an exit code."""
    try:
        yield
    except LabError as error:
        _leave(error, EXIT_REFUSED if isinstance(error, Refused) else EXIT_UNAVAILABLE)
    except BaseExceptionGroup as group:
        errors = _errors(group)
        if not errors:
            raise
        _leave(errors[0], EXIT_REFUSED if isinstance(errors[0], Refused) else EXIT_UNAVAILABLE)


def _leave(error: LabError, code: int) -> None:
    click.echo(error.line, err=True)
    sys.exit(code)


def _errors(group: BaseExceptionGroup[BaseException]) -> list[LabError]:
    """Return the errors of the lab, when there is nothing else in a group."""
    found: list[LabError] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            found += _errors(error)
        elif isinstance(error, LabError):
            found.append(error)
        else:
            return []
    return found
