"""``tshrag console``: sit at a board's console, or read what it said."""

import sys
from pathlib import Path

import click

from tshrag_common.errors import Refused
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.console_keys import escape_of
from tshrag_controller.cli.console_seat import Wishes
from tshrag_controller.cli.context import Connection


@options.command(
    examples=(
        "tshrag console rpi4-1                         # Ctrl-] ? for help, Ctrl-] q to leave",
        "tshrag console rpi4-1 --watch                 # only look; any number may",
        "printf 'uname -a\\r' | tshrag console rpi4-1 --raw    # for programs: bytes as they are",
        "tshrag console rpi4-1 --pty /tmp/rpi4-1       # then: tio /tmp/rpi4-1",
        "tshrag console rpi4-1 --log --since 10m       # what it said, and who typed what",
        "tshrag console rpi4-1 --log --run last --plain",
        "tshrag console --grep 'Kernel panic' --all --since 1d",
        "tshrag console rpi4-1 --signs                 # boots, logins, crashes",
    )
)
@click.argument("dut", default="")
@click.option("--watch", is_flag=True, help="Only look: no lease is taken.")
@click.option("--take", is_flag=True, help="Take the keys from another who shares the lease.")
@click.option("--raw", is_flag=True, help="stdin and stdout are the line, byte by byte.")
@click.option("--pty", "pty_path", metavar="PATH", help="Be a pty of this name, for serial tools.")
@click.option("--for", "for_s", type=options.Seconds(), default="2h", help="Lease, renewed.")
@click.option("--linger", type=options.Seconds(), default="2s", help="--raw: after stdin's end.")
@click.option("--scrollback", metavar="SIZE", default="4KiB", help="Of what was said before.")
@click.option("--exact", is_flag=True, help="Scrollback with all its escape sequences.")
@click.option("--escape", default="^]", show_default=True, help="The key for orders.")
@click.option("--log", "shows_log", is_flag=True, help="Show the record instead.")
@click.option("--grep", "pattern", metavar="PATTERN", help="Lines of the record it finds.")
@click.option("--all", "everywhere", is_flag=True, help="--grep, --signs: every board.")
@click.option("-i", "--ignore-case", is_flag=True, help="--grep: upper and lower are one.")
@click.option("--signs", is_flag=True, help="Show boots, login prompts and crashes.")
@click.option("--since", metavar="TIME", help="Record: 10m ago, or an instant.")
@click.option("--until", metavar="TIME", help="Record: up to then.")
@click.option("--run", "run", metavar="RUN", help="Record: while this run had the board.")
@click.option("--plain", is_flag=True, help="--log: the board's text alone, without instants.")
@click.option("-f", "--follow", "follows", is_flag=True, help="--log: go on until Ctrl-C.")
@options.readable
@options.in_lab
def console(connection: Connection, output: str, dut: str, **given: object) -> None:
    """Sit at the console of DUT: you and the board, byte by byte.

    Everything is recorded, you and the board, whether somebody is attached or not. Writing takes
    the lease: the one you have, or one that is taken now and given back when you leave. Where
    somebody else has it you watch.
    """
    if given["pattern"] or given["shows_log"] or given["signs"]:
        from tshrag_controller.cli.console_log import read_record

        read_record(connection, output, dut, given)
        return
    if not dut:
        raise Refused("console", "which board?", "see 'tshrag dut list'", code="dut")
    wishes = _wishes(dut, given)
    try:
        _attach(connection, wishes, given)
    except KeyboardInterrupt:
        render.note("left")


def _wishes(dut: str, given: dict[str, object]) -> Wishes:
    from tshrag_common.units import quantity

    programs = bool(given["raw"] or given["pty_path"])
    return Wishes(
        dut=dut,
        writes=not given["watch"],
        must_write=programs and not given["watch"],
        take=bool(given["take"]),
        exact=bool(given["exact"]),
        for_s=float(str(given["for_s"])),
        scrollback_bytes=0 if programs else int(quantity(str(given["scrollback"]), "size").value),
    )


def _attach(connection: Connection, wishes: Wishes, given: dict[str, object]) -> None:
    if given["pty_path"]:
        from tshrag_controller.cli.console_copy import to_pty

        path = Path(str(given["pty_path"]))
        ask(connection, lambda lab: to_pty(lab, wishes, path, render.note))
    elif given["raw"] or not sys.stdin.isatty():
        from tshrag_controller.cli.console_copy import raw_copy

        ask(connection, lambda lab: raw_copy(lab, wishes, float(str(given["linger"]))))
    else:
        from tshrag_controller.cli.console_screen import interactive

        try:
            escape = escape_of(str(given["escape"]))
        except ValueError as error:
            raise Refused("--escape", str(error), code="usage") from None
        ask(connection, lambda lab: interactive(lab, wishes, escape))
