"""Reserve a board for a time to come."""

import click

from tshrag_common import lease_requests as lr
from tshrag_common.lease_client import new_lease
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.context import Connection
from tshrag_controller.cli.lease_parts import FOR, REASON, print_lease, target_of


@options.command(
    "reserve",
    examples=(
        "tshrag lease reserve rpi4-1 --at 2026-11-30T09:00 --for 4h --reason 'demo'",
        "tshrag lease reserve kind=rpi4,hdmi=yes --at +1d",
        "tshrag lease release lease-01j9…      # give it up",
    ),
)
@click.argument("target")
@click.option("--at", type=options.Moment(), required=True, help="When it begins; +1d is fine.")
@FOR
@click.option("--share", multiple=True, metavar="ORG[/NAME]", help="Who may use it too.")
@click.option("--idle", type=options.Seconds(), default=0, help="Return it when unused so long.")
@REASON
@options.readable
@options.in_lab
def reserve(
    connection: Connection, output: str, target: str, at: int, for_s: float,
    share: tuple[str, ...], idle: float, reason: str,
) -> None:  # fmt: skip
    """Have the board TARGET promised for a time to come; then it is your lease.

    No job and no lease is started that could, by its limit, still be at work then.
    """
    dut, kind, labels = target_of(target)
    request = lr.LeaseReserve(
        lease=new_lease(), start=at, dut=dut, kind=kind, labels=labels, for_s=for_s,
        reason=reason, share=share, idle_s=idle,
    )  # fmt: skip
    found = ask(connection, lambda lab: lab.lease_reserve(request))
    render.emit(output, found, lambda out: print_lease(out, found), [found.lease])
