"""The key by which the controller signs commands: exchanged while the lab works."""

import click

from tshrag_controller.cli import options, render
from tshrag_controller.cli.context import state_folder
from tshrag_controller.cli.enrolling import keyring


@click.group()
def keys() -> None:
    """The lab's own keys: rotate the one that signs commands."""


@keys.command(
    "rotate",
    cls=options.Command,
    examples=(
        "tshrag keys rotate                    # make the next key",
        "tshrag agent rotate rack-7 --out ...  # of every agent: its new file trusts both",
        "tshrag keys rotate --finish           # sign by the next key from now on",
    ),
)
@click.option("--finish", is_flag=True, help="Sign by the next key; the old one is worth nothing.")
def rotate(finish: bool) -> None:
    """Exchange the key by which commands to agents are signed.

    First a next key is made, and every file that is issued from then on trusts both. When all
    agents have such a file, --finish lets the controller sign by the next one; an agent that has
    not hears no command any more. Nothing is restarted.
    """
    with keyring(state_folder()) as ring:
        if finish:
            ring.change_controller()
            render.note("commands are signed by the next key; the old one is worth nothing")
            return
        ring.next_controller()
    render.note("the next key is made: rotate the file of every agent, then --finish")
