"""PURE: a run report as Markdown, short enough for a comment of a CI."""

import re
from collections.abc import Iterable, Sequence
from html import escape

from tshrag_common.statistics import unit_of
from tshrag_controller.reports.evidence import asked_text, bound_text, margin_text, value_text
from tshrag_controller.reports.gathered import BAD, RunReport, began_at, ended_at, places
from tshrag_controller.reports.table import STATS, setup_lines, what_text
from tshrag_controller.reports.text import clean, decoded, plural, quantity, size, span, sparkline

MOST_JOBS = 50
_MARKS = {"pass": "✅", "passed": "✅", "fail": "❌", "failed": "❌", "cancelled": "🚫"}
_NO_MENTION = "@&#8203;"  # a CI must not call people whom a job names
_SIGNS = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~&$:@/])")


def to_markdown(report: RunReport) -> str:
    """Return the report; names and output of others are text in it, never markup or links."""
    run = report.run
    took = span(began_at(report), ended_at(report)) or "-"
    counts = ", ".join(f"{count} {escaped(name)}" for name, count in sorted(run.counts.items()))
    lines = [
        f"## {_mark(run.state)} {escaped(run.name)}: {escaped(run.state)}",
        "",
        f"`{code(run.id)}` by {escaped(run.by)}, {plural(run.total, 'job')} ({counts}), {took}",
    ]
    lines += [text for line in setup_lines(report) for text in ("", escaped(line))]
    if run.reason:
        lines += ["", f"> {escaped(run.reason)}"]
    for title, body in _sections(report):
        if body:
            lines += ["", f"### {title}", "", *body]
    return "\n".join([*lines, ""])


def _sections(report: RunReport) -> Iterable[tuple[str, list[str]]]:
    yield "Verdict", _verdict(report)
    yield "Jobs", _jobs(report)
    yield "Metrics", _metrics(report)
    yield "Output of what did not pass", _tails(report)
    yield "Loads", _loads(report)


def _verdict(report: RunReport) -> list[str]:
    rows = [
        (
            f"{_mark(each.verdict)} {escaped(each.criterion)}",
            escaped(asked_text(each)),
            escaped(value_text(each)),
            escaped(bound_text(each)),
            escaped(margin_text(each)),
            str(each.samples),
        )
        for each in report.run.evidence
    ]
    return _table(("criterion", "of", "value", "bound", "margin", "samples"), rows)


def _jobs(report: RunReport) -> list[str]:
    """Return the jobs, those that did not pass first."""
    order = sorted(report.jobs, key=lambda job: (job.state not in BAD, job.serial))
    rows = [
        (
            str(job.serial),
            escaped(clean(job.name, 60)),
            f"{_mark(job.state)} {escaped(job.state)}",
            escaped(places(job)),
            escaped(span(job.started_at, job.ended_at)),
            escaped(what_text(job)),
        )
        for job in order[:MOST_JOBS]
    ]
    lines = _table(("job", "name", "state", "place", "took", "what"), rows)
    left = len(report.jobs) - len(rows)
    return [*lines, "", f"and {plural(left, 'more job')}"] if left > 0 else lines


def _metrics(report: RunReport) -> list[str]:
    rows = [
        (
            escaped(each.key),
            str(each.count),
            *(escaped(quantity(each.stats.get(name), unit_of(name, each.unit))) for name in STATS),
            sparkline(each.spark),
        )
        for each in report.series
    ]
    return _table(("metric", "count", *STATS, "course"), rows)


def _tails(report: RunReport) -> list[str]:
    lines: list[str] = []
    for tail in report.tails:
        head = f"{tail.job} {tail.stream}, {size(tail.total)}"
        lines += [f"<details><summary>{escape(clean(head))}</summary>", ""]
        lines += [
            "    " + line for line in decoded(tail.data).rstrip("\n").split("\n")
        ]  # indented: no fence
        lines += ["", "</details>"]
    return lines


def _loads(report: RunReport) -> list[str]:
    rows = [
        (
            escaped(each.name),
            f"`{code(each.digest[:16] or each.builtin)}`",
            f"`{code(each.commit[:16] or '-')}`",
            f"`{code(each.source)}`",
        )
        for each in report.run.loads
    ]
    return _table(("load", "sha256", "commit", "source"), rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    rule = "|" + "---|" * len(heads)
    return [f"| {' | '.join(row)} |" for row in (heads,)] + [
        rule,
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def escaped(text: str) -> str:
    """Return `text` as text of Markdown: one line, every sign that could mean something escaped."""
    return (
        _SIGNS.sub(r"\\\1", clean(text))
        .replace("\\<", "&lt;")
        .replace("\\>", "&gt;")
        .replace("\\@", _NO_MENTION)
    )


def code(text: str) -> str:
    """Return `text` for inside of backticks and of a table."""
    return clean(text).replace("`", "'").replace("|", "\\|")


def _mark(word: str) -> str:
    return _MARKS.get(word, "⚠️")
