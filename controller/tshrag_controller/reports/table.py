"""PURE: a run report as plain text for a terminal or a log."""

from collections.abc import Iterable, Sequence
from unicodedata import east_asian_width

from tshrag_common.statistics import unit_of
from tshrag_common.views import JobView
from tshrag_controller.reports.evidence import asked_text, bound_text, margin_text, value_text
from tshrag_controller.reports.gathered import (
    RunReport,
    began_at,
    ended_at,
    on_clock,
    places,
    setups_of,
)
from tshrag_controller.reports.notes import notes
from tshrag_controller.reports.text import (
    bar,
    clean,
    decoded,
    duration,
    instant,
    plural,
    quantity,
    size,
    span,
    sparkline,
)

STATS = ("avg", "min", "max", "p95", "last")
MOST_JOBS = 500
_RIGHT = ("#", "took", "value", "bound", "margin", "samples", "count", *STATS)


def to_text(report: RunReport) -> str:
    """Return the report as lines of text; nothing in it can move a cursor."""
    run = report.run
    took = span(began_at(report), ended_at(report)) or "-"
    lines = [
        f"{clean(run.name)}: {clean(run.state).upper()}",
        f"{run.id} by {clean(run.by)} of {clean(run.org)}, {plural(run.total, 'job')}",
        f"began {instant(began_at(report))}, took {took}",
    ]
    lines += setup_lines(report)
    if run.reason:
        lines.append(clean(run.reason))
    for title, body in _sections(report):
        if body:
            lines += ["", title, "-" * len(title), *body]
    return "\n".join([*lines, ""])


def setup_lines(report: RunReport) -> list[str]:
    """Return what the groups of a run saved, in one line, where it had any."""
    setups = setups_of(report)
    if setups is None:
        return []
    saved = f", {duration(setups.saved_s)} saved" if setups.avoided else ""
    failed = f", {setups.failed} failed" if setups.failed else ""
    return [f"setups: {setups.made} made, {setups.avoided} avoided{saved}{failed}"]


def _sections(report: RunReport) -> Iterable[tuple[str, list[str]]]:
    yield "Verdict", _verdict(report)
    yield "Jobs", _jobs(report)
    yield "Timeline", _timeline(report)
    yield "Attempts", _attempts(report)
    yield "Metrics", _metrics(report)
    yield "Output of what did not pass", _tails(report)
    yield "Loads and versions", _versions(report)
    yield "Left out", [clean(each) for each in report.omitted]


def _verdict(report: RunReport) -> list[str]:
    rows = [
        (
            each.criterion,
            each.verdict + (" (close)" if each.marginal else ""),
            value_text(each),
            bound_text(each),
            margin_text(each),
            str(each.samples),
            asked_text(each),
        )
        for each in report.run.evidence
    ]
    return grid(("criterion", "verdict", "value", "bound", "margin", "samples", "of"), rows)


def _jobs(report: RunReport) -> list[str]:
    rows = [
        (
            str(job.serial),
            clean(job.name, 48),
            job.state,
            places(job),
            span(job.started_at, job.ended_at),
            ",".join(map(str, job.after[:8])) + ("…" if len(job.after) > 8 else ""),
            what_text(job),
        )
        for job in report.jobs[:MOST_JOBS]
    ]
    return grid(("#", "job", "state", "place", "took", "after", "what"), rows)


def what_text(job: JobView) -> str:
    """Return what a job does, or what was wrong with it."""
    return clean(f"{job.error.code}: {job.error.message}" if job.error else job.what, 100)


def _timeline(report: RunReport) -> list[str]:
    start, whole = began_at(report), ended_at(report) - began_at(report)
    jobs = on_clock(report)[:MOST_JOBS]
    width = max((len(clean(job.name, 32)) for job in jobs), default=0)
    return [
        f"{clean(job.name, 32):{width}} |"
        f"{bar(job.started_at - start, max(job.ended_at, job.started_at) - start, whole)}| "
        f"{span(job.started_at, job.ended_at)}"
        for job in jobs
    ]


def _attempts(report: RunReport) -> list[str]:
    rows = [
        (
            str(job.serial),
            str(each.number),
            each.outcome or each.state,
            each.agent,
            each.dut,
            span(each.started_at, each.ended_at),
            "" if each.exit_code is None else str(each.exit_code),
            str(each.fence),
            clean(notes(each), 80),
        )
        for job in report.jobs[:MOST_JOBS]
        for each in job.attempts
    ]
    heads = ("#", "try", "outcome", "host", "dut", "took", "exit", "fence", "note")
    return grid(heads, rows)


def _metrics(report: RunReport) -> list[str]:
    rows = [
        (
            each.key,
            str(each.count),
            *(quantity(each.stats.get(name), unit_of(name, each.unit)) for name in STATS),
            sparkline(each.spark),
        )
        for each in report.series
    ]
    return grid(("metric", "count", *STATS, "course"), rows)


def _tails(report: RunReport) -> list[str]:
    lines: list[str] = []
    for tail in report.tails:
        shown = f"the last {size(len(tail.data))} of " if len(tail.data) < tail.total else ""
        lines.append(f"{tail.job} {tail.stream}, attempt {tail.attempt}: {shown}{size(tail.total)}")
        lines += [f"  | {line}" for line in decoded(tail.data).rstrip("\n").split("\n")]
    return lines


def _versions(report: RunReport) -> list[str]:
    loads = [
        (
            each.name,
            each.digest or f"builtin {each.builtin}",
            each.commit,
            each.source,
        )
        for each in report.run.loads
    ]
    lines = grid(("load", "sha256", "commit", "source"), loads)
    lines += grid(
        ("host", "agent", "platform"),
        [(each.agent, each.version, each.platform) for each in report.hosts],
    )
    digest = report.profile_digest or "-"
    return [*lines, f"profile {digest}", f"seed {report.run.seed}", f"tshrag {report.version}"]


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows under their heads, in columns; none where there are no rows."""
    if not rows:
        return []
    cells = [tuple(heads), *(tuple(clean(cell) for cell in row) for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            _padded(cell, width, head in _RIGHT)
            for cell, width, head in zip(row, widths, heads, strict=True)
        ).rstrip()
        for row in cells
    ]


def _width(text: str) -> int:
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def _padded(text: str, width: int, right: bool) -> str:
    blank = " " * (width - _width(text))
    return blank + text if right else text + blank
