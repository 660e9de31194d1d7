"""What the criteria of a run said, on a terminal."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from tshrag_common.criteria import Evidence
from tshrag_common.views import JobView, RunView
from tshrag_controller.cli import render
from tshrag_controller.reports.evidence import bound_text, margin_text, value_text
from tshrag_controller.reports.text import clean, span

MOST_BLAMED = 5


def print_end(out: Console, run: RunView, blamed: Sequence[JobView] = ()) -> None:
    """Print how a run has ended; `blamed` are jobs because of which it has not passed."""
    took = span(run.started_at, run.ended_at)
    head = Text.assemble(
        (clean(run.name), "bold"), "  ", run.id, "  ", render.state(run.state),
        f"  in {took}" if took else "",
    )  # fmt: skip
    out.print(head)
    out.print(render.counted(run.counts))
    if run.reason:
        out.print(render.text(run.reason))
    for job in blamed[:MOST_BLAMED]:
        why = job.error.message if job.error else job.state
        if why not in run.reason:
            out.print(render.text(f"{job.name}: {why}"), soft_wrap=True)
    if len(blamed) > MOST_BLAMED:
        out.print(f"and more: tshrag status {run.id}")
    if run.evidence:
        print_verdict(out, run)


def print_verdict(out: Console, run: RunView) -> None:
    """Print the verdicts with value, bound, margin and number of samples."""
    heads = ("criterion", "verdict", "value", "bound", "margin", "samples", "why")
    out.print(
        render.table(heads, verdict_rows(run.evidence), ("value", "bound", "margin", "samples"))
    )


def verdict_rows(evidence: Iterable[Evidence]) -> Iterable[tuple[render.Cell, ...]]:
    for each in evidence:
        word = render.state(each.verdict)
        if each.marginal:
            word.append(" (close)", "yellow")
        yield (
            each.criterion,
            word,
            Text(value_text(each)),
            Text(bound_text(each)),
            Text(margin_text(each)),
            Text(str(each.samples)),
            each.reason,
        )
