"""A plan on a terminal: loads with their digests, the jobs as a tree, places with reasons."""

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tshrag_common import requests as r
from tshrag_common.jobs import LoadRef
from tshrag_common.views import PlaceView, PlannedView
from tshrag_controller.cli import render
from tshrag_controller.reports.text import clean, duration, plural, size

MOST_SHOWN = 200


def print_plan(out: Console, plan: r.PlanAnswer) -> None:
    """Print what a submit would do."""
    total = plan.total or len(plan.jobs)
    out.print(Text.assemble((clean(plan.name), "bold"), f": {plural(total, 'job')}"))
    if plan.loads:
        rows = [
            (
                load.name,
                load.digest[:12] or load.builtin,
                load.commit[:12],
                _size(load),
                load.source,
            )
            for load in plan.loads
        ]
        out.print(render.table(("load", "digest", "commit", "size", "source"), rows))
    out.print(plan_tree(plan.jobs[:MOST_SHOWN]))
    if total > MOST_SHOWN:
        out.print(Text(f"… and {total - MOST_SHOWN} more; --json has them", "bright_black"))
    if plan.criteria:
        out.print(Text(f"criteria: {', '.join(map(clean, plan.criteria))}"))
    _print_places(out, plan.jobs)


def _size(load: LoadRef) -> str:
    return size(load.size_bytes) if load.size_bytes else ""


def plan_tree(jobs: Iterable[PlannedView]) -> Tree:
    """Return the jobs as the tree of names that the schedule gave them."""
    root = Tree(Text("schedule", "bold"), guide_style="bright_black")
    branches: dict[tuple[str, ...], Tree] = {}
    for job in jobs:
        *above, _ = job.name.split(".")
        branch, path = root, tuple[str, ...]()
        for part in above:
            path = (*path, part)
            if path not in branches:
                branches[path] = branch.add(render.text(part.removeprefix("*"), 60))
            branch = branches[path]
        branch.add(_line(job))
    return root


def _line(job: PlannedView) -> Text:
    own = job.name.rpartition(".")[2].removeprefix("*")
    after = f" after {','.join(map(str, job.after))}" if job.after else ""
    line = Text.assemble(
        (f"{job.serial:>3} ", "bright_black"),
        (clean(own, 40), "bold"),
        f"  {clean(job.what, 80)}",
        (after, "bright_black"),
    )
    if job.places or job.target:
        where = (f" → {clean(job.place)}", "green") if job.place else (" → waits", "yellow")
        line.append_text(Text.assemble(where, (f" ≤ {duration(job.timeout_s)}", "bright_black")))
    return line


def _print_places(out: Console, jobs: Iterable[PlannedView]) -> None:
    """Print the places of each different need once."""
    shared: dict[tuple[PlaceView, ...], list[int]] = {}
    for job in jobs:
        if job.places:
            shared.setdefault(job.places, []).append(job.serial)
    for places, serials in shared.items():
        out.print()
        few = ", ".join(map(str, serials[:12])) + (" …" if len(serials) > 12 else "")
        out.print(Text(f"places for {plural(len(serials), 'job')} ({few})", "bold"))
        out.print(places_table(places))


def places_table(
    places: Iterable[PlaceView], free: Mapping[tuple[str, str], str] | None = None
) -> Table:
    """Return place by place what speaks against it; and, where it is known, for how long."""
    if free is None:
        return render.table(("place", "now", "why not"), [_place(place) for place in places])
    rows = [(*_place(each), Text(free.get((each.host, each.dut), ""))) for each in places]
    return render.table(("place", "now", "why not", "free"), rows)


def _place(place: PlaceView) -> tuple[render.Cell, ...]:
    name = f"{place.host}/{place.dut}" if place.dut else place.host
    reasons = "; ".join(each.text for each in place.reasons)
    if not place.fits:
        return name, Text("never", "red"), reasons
    return name, Text("later", "yellow") if reasons else Text("yes", "green"), reasons
