"""``tshrag up``: a lab on this machine in the foreground; a second terminal just works."""

import asyncio
import contextlib
import signal
from pathlib import Path

import click

from tshrag_common.errors import LabError
from tshrag_controller.cli import options
from tshrag_controller.cli.processes import LabProcesses
from tshrag_controller.reports.text import clean

DEFAULT_STATE = "~/.local/share/tshrag/lab"


ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""SIGHUP: the terminal was closed; the lab that stands in it ends with it."""


def say(text: str, err: bool = False) -> None:
    """Print a line, unless the terminal is gone."""
    with contextlib.suppress(OSError):
        click.echo(text, err=err)


@options.command(
    examples=("tshrag up", "tshrag submit profile.json --wait     # in another terminal")
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    envvar="TSHRAG_STATE",
    default=Path(DEFAULT_STATE),
    show_default=True,
    help="Folder of keys, broker, records.",
)
@click.option("--agent", "agent", default="local", show_default=True, help="Name of the agent.")
@click.option("--slots", type=click.IntRange(0, 10_000), help="Jobs at once; default: cores.")
@click.option("--no-agent", is_flag=True, help="Only broker and controller.")
def up(state: Path, agent: str, slots: int | None, no_agent: bool) -> None:
    """Start broker, controller and one agent, and stay in the foreground.

    With TSHRAG_NATS_URL set, that bus is used instead of a broker of our own. Ctrl-C ends
    everything in order; what was accepted goes on at the next `tshrag up`.
    """
    lab = LabProcesses(state.expanduser().absolute())
    try:
        asyncio.run(_up(lab, agent, slots, no_agent))
    except LabError as error:
        click.echo(clean(error.line), err=True)
        raise SystemExit(3 if error.retryable else 2) from None
    except asyncio.CancelledError:
        say("ended before the lab was ready", err=True)
        raise SystemExit(130) from None
    finally:
        lab.stop()
    say("ended; nothing is left running")


def _default_state() -> Path:
    return Path(DEFAULT_STATE).expanduser().absolute()


async def _up(lab: LabProcesses, agent: str, slots: int | None, no_agent: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    starting = asyncio.current_task()
    assert starting is not None
    for number in ENDS:
        loop.add_signal_handler(number, starting.cancel)
    lab.start_controller()
    await lab.wait_ready(lambda line: click.echo(clean(line), err=True))
    bundle = lab.bundle
    click.echo(f"controller  leads on {bundle.url}")
    if not no_agent:
        lab.start_agent(agent, slots=slots)
        await lab.wait_agents(1)
        click.echo(f"agent       {agent} is online")
    for number in ENDS:
        loop.add_signal_handler(number, stop.set)
    where = "" if lab.state == _default_state() else f"TSHRAG_STATE={lab.state} "
    click.echo(f"logs        {lab.state}/log/")
    click.echo(f"try         {where}tshrag health      (in another terminal; Ctrl-C here ends all)")
    while not stop.is_set():
        lab.check_all()
        try:
            async with asyncio.timeout(1.0):
                await stop.wait()
        except TimeoutError:
            continue
    say("ending …")
