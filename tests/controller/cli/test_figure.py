"""Pictures by matplotlib: what a person sees in them stands in the SVG."""

from pathlib import Path

import pytest

from tshrag_common.errors import Refused
from tshrag_controller.cli.figure import MOST_LINES, Line, save
from tshrag_controller.reports import chart

LINE = Line("net.latency", ["2026-11-28T06:00:00Z", "2026-11-28T06:00:01Z"],
            [0.01, 0.03], [0.01, 0.02], [0.01, 0.04])  # fmt: skip
BOUND = chart.Line(0.025, "25 ms quick", 1)


def shown(path: Path) -> str:
    """Return the texts of an SVG: matplotlib writes each as a comment beside its glyphs."""
    return path.read_text()


def test_a_picture_shows_the_bound_and_whose_it_is(tmp_path: Path) -> None:
    with_bound, without = tmp_path / "a.svg", tmp_path / "b.svg"
    save(with_bound, "net.latency", "ms", [LINE], [BOUND])
    save(without, "net.latency", "ms", [LINE])
    assert "25 ms quick" in shown(with_bound) and "#c62828" in shown(with_bound)
    assert "quick" not in shown(without) and "#c62828" not in shown(without)


def test_a_picture_has_its_unit_and_takes_text_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    hostile = LINE._replace(name="_$x$ <script>")
    save(path, "$\\frac{", "ms", [hostile], [BOUND._replace(said="$\\bad{ <b>")])
    assert "<script>" not in shown(path) and "<b>" not in shown(path)
    assert "ms" in shown(path)


def test_what_nobody_could_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="at most"):
        save(tmp_path / "a.png", "k", "", [LINE] * (MOST_LINES + 1))
    with pytest.raises(Refused, match="no samples"):
        save(tmp_path / "a.png", "k", "", [])
    assert not list(tmp_path.iterdir())
