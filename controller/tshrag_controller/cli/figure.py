"""Pictures of series, by matplotlib (extra ``plots``): its Figure alone, no window, no state."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from tshrag_common.errors import Refused
from tshrag_common.units import UNITS
from tshrag_controller.reports import chart

MOST_LINES = 20


class PlotsMissing(Refused):
    """matplotlib is not installed."""

    code = "extra_missing"


class Line(NamedTuple):
    """One group over time: ISO instants, then numbers in the base unit."""

    name: str
    times: list[str]
    means: list[float]
    lows: list[float]
    highs: list[float]


def save(
    path: Path, title: str, unit: str, lines: Sequence[Line], bounds: Sequence[chart.Line] = ()
) -> None:
    """Write a PNG or an SVG, as the name of the file says; bounds are dashed lines across it.

    Raises:
        PlotsMissing: the extra is not installed.
        Refused: there is nothing to draw, or too much for one picture.

    """
    try:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
        from matplotlib.figure import Figure
    except ImportError:
        fix = "pip install 'tshrag-controller[plots]'"
        raise PlotsMissing(str(path), "matplotlib is not installed", fix) from None
    if not lines:
        raise Refused("KEY", "no samples to draw", "see 'tshrag metrics RUN'")
    if len(lines) > MOST_LINES:
        said = f"{len(lines)} lines in one picture, at most {MOST_LINES}"
        raise Refused("--by", said, "name one metric, or fewer groups", code="many")
    known = UNITS.get(unit)
    scale = known.from_base if known else float
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    for line in lines:
        times: list[Any] = [datetime.fromisoformat(each.removesuffix("Z")) for each in line.times]
        (drawn,) = axes.plot(times, [scale(each) for each in line.means], label=_label(line.name))
        lows, highs = [scale(each) for each in line.lows], [scale(each) for each in line.highs]
        axes.fill_between(times, lows, highs, alpha=0.15, color=drawn.get_color(), linewidth=0)
    for bound in bounds:
        axes.axhline(scale(bound.at), color="#c62828", linestyle="--", linewidth=1)
        said = f" {_label(bound.said)}"
        across = axes.get_yaxis_transform()
        axes.text(1, scale(bound.at), said, transform=across, color="#c62828", va="center")
    axes.set_title(_label(title))
    axes.set_ylabel(unit)
    places = AutoDateLocator()  # type: ignore[no-untyped-call]  # matplotlib has none there
    axes.xaxis.set_major_locator(places)
    concise = ConciseDateFormatter(places)  # type: ignore[no-untyped-call]  # nor there
    axes.xaxis.set_major_formatter(concise)
    axes.set_xlabel("UTC; mean, least and greatest of each step")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    kind = "svg" if path.suffix.lower() == ".svg" else "png"
    figure.savefig(path, format=kind, dpi=120)


def _label(text: str) -> str:
    """Return text that matplotlib takes as it is: no mathematics, no hidden legend."""
    return text.replace("$", r"\$").lstrip("_") or "-"
