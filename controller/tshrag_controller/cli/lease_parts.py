"""What the commands of leases share: options, how a board is named, how a lease is printed."""

import click
from rich.console import Console

from tshrag_common import lease_requests as lr
from tshrag_common.times import printed_duration
from tshrag_controller.cli import options, render

FOR = click.option(
    "--for",
    "for_s",
    type=options.Seconds(),
    default="2h",
    show_default=True,
    help="How long; without a renewal it is free again then.",
)
REASON = click.option("--reason", default="", help="Why; others read it.")


def target_of(text: str) -> tuple[str, str, dict[str, str]]:
    """Return DUT, kind and labels of ``rpi4-1`` or ``kind=rpi4,hdmi=yes``."""
    dut, kind = "", ""
    labels: dict[str, str] = {}
    for word in filter(None, text.split(",")):
        name, equals, value = word.partition("=")
        if not equals:
            dut = name
        elif name == "kind":
            kind = value
        else:
            labels[name] = value
    return dut, kind, labels


def print_lease(out: Console, found: lr.LeaseAnswer) -> None:
    rows: list[tuple[str, render.Cell]] = [
        ("lease", found.lease),
        ("dut", f"{found.dut} on {found.agent}" if found.agent else found.dut or found.target),
        ("owner", found.owner),
        *([("from", render.when(found.since))] if found.state == "reserved" else []),
        ("until", render.when(found.until)),
    ]
    if found.shared:
        rows.append(("shared", ", ".join(found.shared)))
    if found.idle_s:
        rows.append(("idle", f"returned when unused for {printed_duration(found.idle_s)}"))
    out.print(render.facts(rows))
