"""Controllers: list them, make the file with which another one joins."""

from pathlib import Path

import click

from tshrag_common.keys import write_secret
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.context import Connection, state_folder
from tshrag_controller.cli.enrolling import keyring
from tshrag_controller.cli.lab import print_controllers
from tshrag_controller.reports.text import clean


@click.group()
def controller() -> None:
    """Controllers: one leads, any number stand by."""


@controller.command(
    "list",
    cls=options.Command,
    examples=("tshrag controller list", "tshrag controller list --json"),
)
@options.readable
@options.in_lab
def list_controllers(connection: Connection, output: str) -> None:
    """List controllers: who leads, who stands by, and how far behind."""
    answer = ask(connection, lambda lab: lab.health())
    names = [each.node for each in answer.controllers]
    render.emit(output, answer, lambda out: print_controllers(out, answer.controllers), names)


@controller.command(
    "add",
    cls=options.Command,
    examples=(
        "tshrag controller add ctl-1 --address nats://bus.example:4222 --out ctl-1.json",
        "scp ctl-1.json box-2:/etc/tshrag/      # then [nats] url and creds in its controller.toml",
    ),
)
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help="Write it there, mode 0600.")
@click.option("--address", default="", help="How that machine reaches the bus, as a URL.")
def add_controller(name: str, out: Path | None, address: str) -> None:
    """Print the one file with which the controller NAME joins this lab.

    It holds all keys of the lab: who has it can be the lab. It is made from the lab's state folder
    (TSHRAG_STATE); nothing is sent. Agents and people go on to be enrolled here.
    """
    with keyring(state_folder(), address) as ring:
        bundle = ring.add_controller(name)
        if out is None:
            click.echo(bundle.encoded(), nl=False)
        else:
            write_secret(out, bundle.encoded())
            render.note(f"written to {clean(str(out))}; it holds all keys of the lab")
        if ring.is_loopback:
            render.note(f"{bundle.url} is this machine; --address says how another one reaches it")
