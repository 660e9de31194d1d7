"""Leases: take a board for yourself, keep it, share it, hand it over, give it back."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence

import click
from rich.console import Console
from rich.text import Text

from tshrag_common import lease_requests as lr
from tshrag_common.client import Client
from tshrag_common.errors import Refused
from tshrag_common.lease_client import new_lease
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.context import Connection
from tshrag_controller.cli.lease_parts import FOR, REASON, print_lease, target_of
from tshrag_controller.cli.reserving import reserve
from tshrag_controller.reports.text import clean


class LeaseGroup(click.Group):
    """``tshrag lease TARGET`` is ``tshrag lease take TARGET``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["take", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=LeaseGroup)
def lease() -> None:
    """Leases: who holds which board, and until when. `tshrag lease BOARD` takes one."""


@lease.command(
    "take",
    cls=options.Command,
    examples=(
        "tshrag lease rpi4-1 --for 4h --reason 'bring-up of the new PMIC'",
        "tshrag lease take kind=rpi4 --label hdmi=yes --wait   # any; stand in line for it",
        "tshrag lease take rpi4-1 -- ./flash.sh       # hold it while the command works",
        "tshrag lease take rpi4-1 --takeover --reason 'jo is on holiday'",
    ),
)
@click.argument("target", default="")
@click.argument("command", nargs=-1)
@FOR
@click.option("--wait", is_flag=True, help="Stand in line, with the jobs, until it is there.")
@click.option(
    "--label", "labels", multiple=True, type=options.Variable(), help="Any board with it."
)
@click.option("--kind", default="", help="Any board of this kind.")
@click.option("--share", multiple=True, metavar="ORG[/NAME]", help="Who may use it too.")
@click.option("--idle", type=options.Seconds(), default=0, help="Return it when unused so long.")
@click.option("--keep", is_flag=True, help="Renew it until Ctrl-C, then give it back.")
@click.option("--takeover", is_flag=True, help="Take it from who holds it; needs --reason.")
@click.option(
    "--priority", type=options.Priority(), default="normal", help="Your place in the line."
)
@REASON
@options.readable
@options.in_lab
def take(connection: Connection, output: str, target: str, **given: object) -> None:
    """Take the board TARGET (or any of a kind, with labels) for yourself.

    No job goes to it while you hold it. TARGET is a name, or words like kind=rpi4,hdmi=yes.
    With a COMMAND the lease is renewed while it works, and given back behind it; it finds
    TSHRAG_DUT and TSHRAG_LEASE in its environment.
    """
    command = given["command"]
    words = list(command) if isinstance(command, tuple) else []
    request = _request(target, given)
    keeps = bool(given["keep"]) or bool(words)
    waits = bool(given["wait"]) and not request.takeover
    code = ask(connection, lambda lab: _taken(lab, request, output, waits, keeps, words))
    if keeps:
        sys.exit(code)


def _request(target: str, given: Mapping[str, object]) -> lr.LeaseTake:
    dut, kind, labels = target_of(target)
    labels |= dict(given["labels"])  # type: ignore[call-overload]  # pairs of words
    kind = str(given["kind"]) or kind
    if not dut and not kind and not labels:
        raise Refused("", "which board?", "name one, or a kind: see 'tshrag dut list'", code="dut")
    return lr.LeaseTake(
        lease=new_lease(),
        dut=dut,
        kind=kind,
        labels=labels,
        for_s=float(str(given["for_s"])),
        priority=int(str(given["priority"])),
        reason=str(given["reason"]),
        share=tuple(given["share"]),  # type: ignore[arg-type]  # words
        idle_s=float(str(given["idle"])),
        takeover=bool(given["takeover"]),
    )


async def _taken(
    lab: Client, request: lr.LeaseTake, output: str, waits: bool, keeps: bool, words: Sequence[str]
) -> int:
    if waits:
        found = await _stand_in_line(lab, request)
    else:
        found = await lab.lease_take(request)
    if not words:
        render.emit(output, found, lambda out: print_lease(out, found), [found.lease])
    if not keeps:
        return 0
    async with lab.kept(found, request.for_s):
        return await _work(found, words) if words else await _until_stopped()


async def _stand_in_line(lab: Client, request: lr.LeaseTake) -> lr.LeaseAnswer:
    told = -1
    async for answer in lab.lease_wait(request):
        if answer.state == "held":
            return answer
        if answer.state == "waiting" and answer.ahead != told:
            told = answer.ahead
            before = f"{told} before you" if told else "you are the next"
            render.note(f"waiting for {clean(answer.target)}: {before}")
    raise Refused("", "somebody took you out of the line", "ask again", code="not_held")


async def _until_stopped() -> int:
    render.note("kept until Ctrl-C")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    return 0


async def _work(found: lr.LeaseAnswer, words: Sequence[str]) -> int:
    """Execute the command with the lease in its environment; return its exit status."""
    environment = {
        **os.environ,
        "TSHRAG_DUT": found.dut,
        "TSHRAG_LEASE": found.lease,
        "TSHRAG_FENCE": str(found.fence),
    }
    try:
        process = await asyncio.create_subprocess_exec(*words, env=environment)
    except OSError as error:
        fix = "name a program that is there"
        raise Refused(words[0], error.strerror or str(error), fix, code="command") from None
    return await process.wait()


@lease.command("renew", cls=options.Command, examples=("tshrag lease renew rpi4-1 --for 30m",))
@click.argument("name", metavar="LEASE|BOARD")
@FOR
@options.readable
@options.in_lab
def renew(connection: Connection, output: str, name: str, for_s: float) -> None:
    """Keep a board of yours for so long from now on."""
    request = lr.LeaseRenew(lease=name, for_s=for_s)
    found = ask(connection, lambda lab: lab.lease_renew(request))
    render.emit(output, found, lambda out: print_lease(out, found), [found.lease])


@lease.command(
    "release",
    cls=options.Command,
    examples=("tshrag lease release rpi4-1", "tshrag lease release --all"),
)
@click.argument("name", metavar="LEASE|BOARD", default="")
@click.option(
    "--all", "everything", is_flag=True, help="All that you hold, have reserved, or wait for."
)
@options.in_lab
def release(connection: Connection, name: str, everything: bool) -> None:
    """Give a board back, or leave the line."""
    if bool(name) == everything:
        raise Refused("", "which one?", "name a lease or a board, or --all", code="lease")
    done = ask(connection, lambda lab: _released(lab, name))
    for each in done:
        render.note(f"{clean(each.dut or each.lease)} is given back")


async def _released(lab: Client, name: str) -> list[lr.LeaseAnswer]:
    if name:
        return [await lab.lease_release(name)]
    found = [each for each in (await lab.leases()).leases if each.mine]
    return [await lab.lease_release(each.lease) for each in found]


@lease.command(
    "transfer",
    cls=options.Command,
    examples=("tshrag lease transfer rpi4-1 al", "tshrag lease transfer rpi4-1 radio/al"),
)
@click.argument("name", metavar="LEASE|BOARD")
@click.argument("to", metavar="[ORG/]NAME")
@REASON
@options.readable
@options.in_lab
def transfer(connection: Connection, output: str, name: str, to: str, reason: str) -> None:
    """Hand a board of yours to a colleague; what you have open there ends."""
    request = lr.LeaseTransfer(lease=name, to=to, reason=reason)
    found = ask(connection, lambda lab: lab.lease_transfer(request))
    render.emit(output, found, lambda out: print_lease(out, found), [found.lease])


@lease.command(
    "share",
    cls=options.Command,
    examples=("tshrag lease share rpi4-1 radio/al", "tshrag lease share rpi4-1   # nobody more"),
)
@click.argument("name", metavar="LEASE|BOARD")
@click.argument("share", metavar="ORG[/NAME]", nargs=-1)
@options.readable
@options.in_lab
def share(connection: Connection, output: str, name: str, share: tuple[str, ...]) -> None:
    """Let others use a board of yours too; name all of them, nobody ends it."""
    request = lr.LeaseShare(lease=name, share=share)
    found = ask(connection, lambda lab: lab.lease_share(request))
    render.emit(output, found, lambda out: print_lease(out, found), [found.lease])


@lease.command(
    "list",
    cls=options.Command,
    examples=("tshrag lease list", "tshrag lease list --ended --dut rpi4-1"),
)
@click.option("--ended", is_flag=True, help="Those that were, newest first, and how they ended.")
@click.option("--dut", default="", help="Of this board only.")
@click.option("--limit", type=click.IntRange(1, 1000), default=200, show_default=True)
@options.readable
@options.in_lab
def list_leases(connection: Connection, output: str, ended: bool, dut: str, limit: int) -> None:
    """Show who holds what, since when and until when, and who waits."""
    asked = lr.ListLeases(ended=ended, dut=dut, limit=limit)
    answer = ask(connection, lambda lab: lab.leases(asked))
    names = [each.lease for each in answer.leases] + [each.lease for each in answer.ended]
    show = _print_ended if ended else _print_leases
    render.emit(output, answer, lambda out: show(out, answer), names)


def _print_leases(out: Console, answer: lr.LeasesAnswer) -> None:
    if not answer.leases:
        out.print("nobody holds or waits for a board; 'tshrag lease BOARD' takes one")
        return
    rows: list[Sequence[render.Cell]] = [
        (
            each.dut or render.text(each.target, style="yellow"),
            render.state(each.state),
            each.owner + (" (you)" if each.mine else ""),
            Text(render.near(each.since)),
            Text(render.near(each.until) if each.until else f"{each.ahead} before"),
            render.text(", ".join(each.shared)),
            render.text(each.reason, 60),
            each.lease,
        )
        for each in answer.leases
    ]
    heads = ("dut", "state", "owner", "since", "until", "shared", "reason", "lease")
    out.print(render.table(heads, rows))


def _print_ended(out: Console, answer: lr.LeasesAnswer) -> None:
    if not answer.ended:
        out.print("no lease has ended")
        return
    rows: list[Sequence[render.Cell]] = [
        (
            each.dut,
            each.owner,
            Text(render.when(each.since)),
            Text(render.when(each.ended_at)),
            each.cause + (f" by {each.ended_by}" if each.ended_by not in ("", each.owner) else ""),
            render.text(each.why or each.reason, 60),
        )
        for each in answer.ended
    ]
    out.print(render.table(("dut", "owner", "since", "ended", "how", "reason"), rows))


lease.add_command(reserve)
