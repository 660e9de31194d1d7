"""PURE: small drawings inside the HTML report: the timeline, the course of a metric.

Colours come from classes of the page's own style; there is no script, no link and no font.
"""

from collections.abc import Sequence
from html import escape

from tshrag_common.views import JobView
from tshrag_controller.reports.gathered import RunReport, began_at, ended_at, on_clock
from tshrag_controller.reports.text import clean, duration, span

_ROW, _LEFT, _WIDTH = 20, 220, 900
MOST_ROWS = 300


def course(
    values: Sequence[float], bounds: Sequence[float] = (), size: tuple[int, int] = (220, 36)
) -> str:
    """Return the course of a metric as a line; bounds are dashed lines across it."""
    if not values:
        return ""
    width, height = size
    low, high = min([*values, *bounds]), max([*values, *bounds])
    span_ = (high - low) or 1.0

    def y(value: float) -> str:
        return f"{2 + (high - value) / span_ * (height - 4):.1f}"

    step = (width - 4) / max(1, len(values) - 1)
    points = " ".join(f"{2 + number * step:.1f},{y(value)}" for number, value in enumerate(values))
    lines = "".join(
        f'<line class="bound" x1="0" x2="{width}" y1="{y(bound)}" y2="{y(bound)}"/>'
        for bound in bounds
    )
    dot = f'<circle class="dot" cx="2" cy="{y(values[0])}" r="2"/>' if len(values) == 1 else ""
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="course">'
        f'{lines}<polyline class="course" points="{points}"/>{dot}</svg>'
    )


def timeline(report: RunReport) -> str:
    """Return a bar for each job that took time, from the begin of the run to its end."""
    jobs = on_clock(report)[:MOST_ROWS]
    if not jobs:
        return ""
    start = began_at(report)
    whole = max(1, ended_at(report) - start)
    height = (len(jobs) + 1) * _ROW
    rows = "".join(_row(job, number, start, whole) for number, job in enumerate(jobs))
    end = duration(whole / 1e6)
    axis = (
        f'<text x="{_LEFT}" y="{height - 5}">0</text>'
        f'<text x="{_WIDTH}" y="{height - 5}" text-anchor="end">{escape(end)}</text>'
    )
    return (
        f'<svg class="timeline" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" role="img" aria-label="timeline">{rows}{axis}</svg>'
    )


def _row(job: JobView, number: int, start: int, whole: int) -> str:
    scale = (_WIDTH - _LEFT) / whole
    x = _LEFT + (job.started_at - start) * scale
    width = max(2.0, (max(job.ended_at, job.started_at) - job.started_at) * scale)
    y = number * _ROW
    said = f"{clean(job.name)}: {clean(job.state)}, {span(job.started_at, job.ended_at)}"
    return (
        f'<text x="0" y="{y + 14}">{escape(clean(job.name, 34))}</text>'
        f'<rect class="{word_class(job.state)}" x="{x:.1f}" y="{y + 3}" width="{width:.1f}" '
        f'height="{_ROW - 6}"><title>{escape(said)}</title></rect>'
    )


def word_class(word: str) -> str:
    """Return the class of a state; of no more than letters, whatever the word is."""
    return "s-" + "".join(char for char in word if char.isascii() and char.isalpha())[:20]
