"""PURE: a run report as one HTML file: no script, no link, nothing fetched, the same each time.

Everything that others wrote goes through `_t`, which makes it harmless text; markup is made by the
functions here only. The page forbids itself every source by its Content-Security-Policy, so that
even a hole in the escaping could load and run nothing.
"""

from collections.abc import Iterable, Sequence
from html import escape

from tshrag_common.criteria import Evidence
from tshrag_common.statistics import unit_of
from tshrag_controller.reports.chart import chart
from tshrag_controller.reports.evidence import (
    asked_text,
    bound_text,
    bounds_of,
    margin_text,
    value_text,
)
from tshrag_controller.reports.gathered import RunReport, began_at, ended_at, places
from tshrag_controller.reports.notes import notes
from tshrag_controller.reports.svg import course, timeline, word_class
from tshrag_controller.reports.table import STATS, setup_lines, what_text
from tshrag_controller.reports.text import clean, decoded, instant, plural, quantity, size, span

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'none'; base-uri 'none'"
MOST_JOBS = 2000

_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1100px;padding:0 1em;
color:#1d2733;background:#fff}
h1{font-size:1.5em;margin:0}h2{font-size:1.1em;margin:2em 0 .5em;border-bottom:1px solid #d7dde4}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25em .7em .25em 0;vertical-align:top;border-bottom:1px solid #eef1f4}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
code,pre{font-family:ui-monospace,monospace;font-size:.92em;overflow-wrap:anywhere}
pre{background:#f5f7f9;padding:.7em;white-space:pre-wrap}
.word{font-weight:600;padding:.05em .5em;border-radius:.3em;color:#fff;background:#66707c}
.s-passed,.s-pass{background:#1a7f37;fill:#1a7f37}
.s-failed,.s-fail,.s-error,.s-timeout,.s-expired{background:#c62828;fill:#c62828}
.s-cancelled{background:#a2399c;fill:#a2399c}.s-skipped{background:#8a949e;fill:#8a949e}
.s-running,.s-collecting{background:#1565c0;fill:#1565c0}
svg text{font:12px system-ui,sans-serif;fill:#1d2733}
.course{fill:none;stroke:#1565c0;stroke-width:1.5}.dot{fill:#1565c0}
.bound{stroke:#c62828;stroke-width:1;stroke-dasharray:4 3}
.band{fill:#1565c0;opacity:.18}.grid{stroke:#d7dde4}.gap{fill:#8a949e;opacity:.25}
.breach{fill:none;stroke:#c62828;stroke-width:1.8}svg text.limit{fill:#c62828}
.chart,.timeline{max-width:100%;height:auto}
.soft{color:#66707c}
@media (prefers-color-scheme:dark){body{background:#14191f;color:#dfe5ec}pre{background:#1e252d}
svg text{fill:#dfe5ec}.grid{stroke:#2c353f}svg text.limit{fill:#ff7b72}
h2,th,td{border-color:#2c353f}}
"""

_NUMBERS = frozenset(
    ("#", "took", "value", "bound", "margin", "samples", "count", "try", "exit", *STATS)
)


def to_html(report: RunReport) -> str:
    """Return the page."""
    run = report.run
    took = span(began_at(report), ended_at(report)) or "-"
    about = (
        f"{run.id} by {run.by} of {run.org}, {plural(run.total, 'job')}, "
        f"began {instant(began_at(report))}, took {took}"
    )
    body = [
        f"<h1>{_t(run.name)} {_word(run.state)}</h1>",
        f'<p class="soft">{_t(about)}</p>',
        *(f'<p class="soft">{_t(line)}</p>' for line in setup_lines(report)),
        f"<p>{_t(run.reason)}</p>" if run.reason else "",
    ]
    body += [f"<h2>{title}</h2>\n{inner}" for title, inner in _sections(report) if inner]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{_t(run.name)}: {_t(run.state)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def _sections(report: RunReport) -> Iterable[tuple[str, str]]:
    yield "Verdict", _verdict(report.run.evidence) + _charts(report)
    yield "Timeline", timeline(report)
    yield "Jobs", _jobs(report)
    yield "Attempts", _attempts(report)
    yield "Metrics", _metrics(report)
    yield "Output of what did not pass", _tails(report)
    yield "Loads and versions", _versions(report)
    yield "Left out", "".join(f"<p>{_t(each)}</p>" for each in report.omitted)


def _verdict(evidence: Sequence[Evidence]) -> str:
    rows = [
        (
            _t(each.criterion),
            _word(each.verdict) + (" close" if each.marginal else ""),
            _t(value_text(each)),
            _t(bound_text(each)),
            _t(margin_text(each)),
            str(each.samples),
            _t(asked_text(each)),
            _t(each.reason),
        )
        for each in evidence
    ]
    heads = ("criterion", "verdict", "value", "bound", "margin", "samples", "of", "why")
    return _table(heads, rows)


def _jobs(report: RunReport) -> str:
    rows = [
        (
            str(job.serial),
            _t(job.name),
            _word(job.state),
            _t(places(job)),
            _t(span(job.started_at, job.ended_at)),
            _t(", ".join(map(str, job.after[:20]))),
            f"<code>{_t(what_text(job))}</code>",
        )
        for job in report.jobs[:MOST_JOBS]
    ]
    return _table(("#", "job", "state", "place", "took", "after", "what"), rows)


def _attempts(report: RunReport) -> str:
    rows = [
        (
            str(job.serial),
            str(each.number),
            _word(each.outcome or each.state),
            _t(each.agent),
            _t(each.dut),
            _t(span(each.started_at, each.ended_at)),
            "" if each.exit_code is None else str(each.exit_code),
            size(each.max_rss_bytes) if each.max_rss_bytes else "",
            _t(notes(each)),
            f"<code>{each.fence}</code>",
        )
        for job in report.jobs[:MOST_JOBS]
        for each in job.attempts
    ]
    heads = ("#", "try", "outcome", "host", "dut", "took", "exit", "memory", "note", "fence")
    return _table(heads, rows)


def _metrics(report: RunReport) -> str:
    rows = [
        (
            f"<code>{_t(each.key)}</code>",
            str(each.count),
            *(_t(quantity(each.stats.get(name), unit_of(name, each.unit))) for name in STATS),
            course(each.spark, bounds_of(report.run.evidence, each.key)),
        )
        for each in report.series
    ]
    return _table(("metric", "count", *STATS, "course"), rows)


def _charts(report: RunReport) -> str:
    """Return a chart of each metric that a criterion asked a number of."""
    drawn = ((each, chart(each, report.run.evidence)) for each in report.series)
    return "".join(f"<h3><code>{_t(each.key)}</code></h3>{svg}" for each, svg in drawn if svg)


def _tails(report: RunReport) -> str:
    parts: list[str] = []
    for tail in report.tails:
        shown = f"the last {size(len(tail.data))} of " if len(tail.data) < tail.total else ""
        head = f"{tail.job} {tail.stream}, attempt {tail.attempt}: {shown}{size(tail.total)}"
        parts.append(f"<h3>{_t(head)}</h3><pre>{escape(decoded(tail.data))}</pre>")
    return "\n".join(parts)


def _versions(report: RunReport) -> str:
    loads = [
        (
            _t(each.name),
            f"<code>{_t(each.digest or 'builtin ' + each.builtin)}</code>",
            f"<code>{_t(each.commit or '-')}</code>",
            f"<code>{_t(each.source)}</code>",
        )
        for each in report.run.loads
    ]
    hosts = [(_t(each.agent), _t(each.version), _t(each.platform)) for each in report.hosts]
    facts = [
        ("profile", f"<code>{_t(report.profile_digest or '-')}</code>"),
        ("seed", str(report.run.seed)),
        ("tshrag", _t(report.version or "-")),
    ]
    return (
        _table(("load", "sha256", "commit", "source"), loads)
        + _table(("host", "agent", "platform"), hosts)
        + _table(("what", "which"), facts)
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are markup already."""
    if not rows:
        return ""
    kinds = [' class="n"' if head in _NUMBERS else "" for head in heads]
    head = "".join(f"<th{kind}>{head}</th>" for kind, head in zip(kinds, heads, strict=True))
    body = "\n".join(
        "<tr>"
        + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _word(state: str) -> str:
    return f'<span class="word {word_class(state)}">{_t(state)}</span>'


def _t(text: str) -> str:
    """Return text of others as harmless text of HTML."""
    return escape(clean(text), quote=True)
