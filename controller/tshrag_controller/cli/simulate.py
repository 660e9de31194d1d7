"""What would another lab, or another policy, make of the same work?"""

import time
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.text import Text

from tshrag_common.errors import Refused
from tshrag_controller.cli import options, render
from tshrag_controller.cli.progress import Progress, progress
from tshrag_controller.rehearsal.files import LabFile, WorkRun, hosts_of, read_lab, read_work
from tshrag_controller.rehearsal.measures import Figures, Waits, figures
from tshrag_controller.rehearsal.stage import Stage
from tshrag_controller.rehearsal.variants import NAMES, Variant, variant_of
from tshrag_controller.reports.text import clean, plural

_MOST_BYTES = 1 << 30
_MOST_REASONS = 5


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """What each policy made of the work."""

    hosts: int
    boards: int
    jobs: int
    policies: tuple[Figures, ...]


@options.command(
    examples=(
        "tshrag simulate --lab lab.toml --work work.jsonl",
        "tshrag simulate --lab lab.toml --work work.jsonl --policy lab --policy fifo",
        "tshrag simulate --lab bigger.toml --work work.jsonl --policy setup_points=0,ageing_s=60",
        "tshrag history export --lab lab.toml --work work.jsonl   # makes both of a real lab",
    )
)
@click.option("--lab", "lab_file", required=True, metavar="LAB.toml", help="Hosts and boards.")
@click.option("--work", "work_file", required=True, metavar="WORK.jsonl", help="One job a line.")
@click.option(
    "--policy", "policies", multiple=True, metavar="NAME[,KEY=VALUE]",
    help=f"{', '.join(NAMES)}, or weights of [scheduler]; several are compared.",
)  # fmt: skip
@options.readable
def simulate(lab_file: str, work_file: str, policies: tuple[str, ...], output: str) -> None:
    """Run the real scheduler over recorded or invented work, on a virtual clock.

    Prints how long jobs waited, how busy boards were, how fair it was, how many setups were made
    and when all was done, one column a policy. Nothing is asked of a lab.
    """
    lab = read_lab(_bytes(lab_file), lab_file)
    variants = [variant_of(text, lab.scheduler) for text in policies or ("lab",)]
    work = read_work(_bytes(work_file), work_file)
    with progress(output) as shown:
        found = tuple(_rehearsed(lab, work, variant, shown) for variant in variants)
    hosts = list(hosts_of(lab))
    answer = Simulated(
        hosts=len(hosts),
        boards=sum(len(host.duts) for host in hosts),
        jobs=_jobs(work),
        policies=found,
    )
    names = [f"{each.policy} {each.makespan_s:g}" for each in found]
    render.emit(output, answer, lambda out: _print(out, answer), names)


def _bytes(name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise Refused(name, error.strerror or str(error), code="file") from None
    if len(raw) > _MOST_BYTES:
        raise Refused(name, f"is larger than {_MOST_BYTES} bytes", code="file")
    return raw


def _jobs(work: Sequence[WorkRun]) -> int:
    return sum(line.what == "job" for run in work for line in run.lines)


def _rehearsed(lab: LabFile, work: list[WorkRun], variant: Variant, shown: Progress) -> Figures:
    hosts, jobs = list(hosts_of(lab)), _jobs(work)
    began = time.monotonic()
    stage = Stage(hosts, work, variant, lab.faults)
    outcome = stage.play(lambda done: shown.advance(f"policy {variant.name}", done, jobs))
    made = figures(variant.name, hosts, outcome)
    return msgspec.structs.replace(made, took_s=round(time.monotonic() - began, 3))


def _print(out: Console, answer: Simulated) -> None:
    lab = (plural(answer.jobs, "job"), plural(answer.hosts, "host"), plural(answer.boards, "board"))
    out.print(Text(", ".join(lab)))
    heads = ("", *(clean(each.policy) for each in answer.policies))
    out.print(render.table(heads, _rows(answer.policies), heads[1:]))
    for what, of in (("by org", _orgs), ("by kind", _classes)):
        groups = sorted({name for each in answer.policies for name in of(each)})
        if len(groups) > 1:
            out.print()
            rows = [
                (name, *(_waited(of(each).get(name)) for each in answer.policies))
                for name in groups
            ]
            out.print(render.table((f"{what}: wait p50 / p95", *heads[1:]), rows, heads[1:]))
    for each in answer.policies:
        _print_left(out, each)


def _rows(found: Sequence[Figures]) -> list[tuple[str, ...]]:
    def row(name: str, *cells: str) -> tuple[str, ...]:
        return (name, *cells)

    return [
        row("makespan", *(span(each.makespan_s) for each in found)),
        row("wait p50", *(span(each.waits.p50_s) for each in found)),
        row("wait p95", *(span(each.waits.p95_s) for each in found)),
        row("wait max", *(span(each.waits.max_s) for each in found)),
        row("boards busy", *(_share(each.boards_busy) for each in found)),
        row("slots busy", *(_share(each.slots_busy) for each in found)),
        row("setups made", *(str(each.setups) for each in found)),
        row("setups avoided", *(str(each.setups_avoided) for each in found)),
        row("setup time saved", *(span(each.setup_saved_s) for each in found)),
        row("preempted", *(str(each.preempted) for each in found)),
        row("faults of the lab", *(str(each.faults) for each in found)),
        row("jobs given up", *(str(each.given_up) for each in found)),
        row("leases of people", *(str(each.leases) for each in found)),
        row("lease wait p95", *(span(each.lease_p95_s) for each in found)),
        row("fairness (Jain)", *(f"{each.fairness:.3f}" for each in found)),
    ]


def _orgs(found: Figures) -> dict[str, Waits]:
    return found.orgs


def _classes(found: Figures) -> dict[str, Waits]:
    return found.classes


def _waited(waits: Waits | None) -> str:
    return f"{span(waits.p50_s)} / {span(waits.p95_s)}" if waits is not None else "-"


def _share(share: float | None) -> str:
    return f"{100 * share:.1f} %" if share is not None else "-"


def _print_left(out: Console, found: Figures) -> None:
    """Name jobs that were not played: a figure over the others only would flatter."""
    reasons = sorted(found.unfit.items(), key=lambda each: -each[1])
    for why, jobs in reasons[:_MOST_REASONS]:
        out.print(Text(f"{found.policy}: left out {plural(jobs, 'job')}: {clean(why)}", "yellow"))
    if len(reasons) > _MOST_REASONS:
        out.print(Text(f"… and {len(reasons) - _MOST_REASONS} more reasons", "bright_black"))
    if found.unleased:
        said = f"{found.policy}: {plural(found.unleased, 'lease')} never got a board"
        out.print(Text(said, "red"))
    if found.left:
        said = f"{found.policy}: {plural(found.left, 'job')} never got a place"
        out.print(Text(said, "red"))


def span(seconds: float) -> str:
    """Return seconds as people read them: 0.4 s, 12 s, 3 min 20 s, 2 h 05 min, 3 d 4 h."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"
