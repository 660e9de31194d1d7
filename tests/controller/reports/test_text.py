"""Text of others, and numbers, as they may be shown."""

import csv
import io
import json
import unicodedata

import msgspec
import pytest
from hypothesis import given, strategies as st

from tshrag_common.metric_requests import SamplesAnswer
from tshrag_common.views import SeriesView
from tshrag_controller.reports.plot import plot
from tshrag_controller.reports.tables import samples_csv, statistics_csv
from tshrag_controller.reports.text import (
    bar,
    clean,
    clean_lines,
    csv_cell,
    decoded,
    instant,
    safe_json,
    size,
    sparkline,
)


@given(st.text())
def test_one_line_stays_one_harmless_line(text: str) -> None:
    for char in clean(text):
        assert unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp"), ascii(char)
        assert unicodedata.bidirectional(char) not in (
            "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
        )  # fmt: skip


@given(st.binary())
def test_output_keeps_newlines_and_tabs_and_no_other_control(data: bytes) -> None:
    assert not [c for c in decoded(data) if unicodedata.category(c) == "Cc" and c not in "\n\t"]


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\x00b", r"a\x00b"),
        ("\u202etxt", r"\u202etxt"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb", r"a\x0db"),
        ("a\nb", r"a\x0ab"),
    ],
)
def test_what_moves_a_cursor_is_shown_as_what_it_is(hostile: str, shown: str) -> None:
    assert clean(hostile) == shown


@given(st.text())
def test_json_is_harmless_and_means_the_same(text: str) -> None:
    made = safe_json(msgspec.json.encode({"name": text}))
    assert json.loads(made) == {"name": text}
    assert not [c for c in made if unicodedata.category(c) in ("Cc", "Zl", "Zp") and c != "\n"]


def test_lines_of_a_serial_console_end_as_lines() -> None:
    assert clean_lines("login:\r\nroot\r\n") == "login:\nroot\n"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", '=cmd|"/c"!A1'])
def test_a_cell_of_csv_is_never_a_formula(text: str) -> None:
    (row,) = csv.reader(io.StringIO(csv_cell(text)))
    assert row[0].startswith("'")
    assert len(row) == 1


def test_samples_are_exported_as_a_job_directory_has_them() -> None:
    samples = SamplesAnswer(
        at=(1_800_000_000_000_000, 1_800_000_000_500_000), value=(0.15, -0.2), duration_us=(0, 0),
        job=("", ""),
    )  # fmt: skip
    assert samples_csv(samples, "ms") == (
        "timestamp,value\n1800000000000000,150\n1800000000500000,-200\n"
    )
    assert samples_csv(samples, "ms", head=False).count("\n") == 2


def test_samples_with_durations_say_so_in_the_header() -> None:
    samples = SamplesAnswer(at=(5,), value=(1.0,), duration_us=(7,), job=("",))
    assert samples_csv(samples, "") == "timestamp,duration_us,value\n5,7,1\n"


def test_statistics_in_csv_guard_their_text() -> None:
    series = SeriesView(key="=evil", job="", attempt=0, agent="+a", count=1, stats={"avg": -1.0})
    (_, row) = csv.reader(io.StringIO(statistics_csv([series], ["avg"])))
    assert row == ["'=evil", "", "'+a", "", "", "1", "-1"]


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=300), st.integers(1, 40))
def test_a_sparkline_is_as_wide_as_it_may_be(values: list[float], width: int) -> None:
    drawn = sparkline(values, width)
    assert len(drawn) == min(len(values), width)
    assert set(drawn) <= set("▁▂▃▄▅▆▇█")


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_a_bar_is_never_empty_and_never_too_long(start: float, length: float, rest: float) -> None:
    drawn = bar(start, start + length, start + length + rest)
    assert len(drawn) == 40
    assert "█" in drawn


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.floats(-1e12, 1e12)), min_size=1, max_size=200),
    st.lists(st.floats(-1e12, 1e12), max_size=3),
)
def test_a_drawing_has_its_size_whatever_the_samples_are(
    samples: list[tuple[int, float]], bounds: list[float]
) -> None:
    at, values = [each[0] for each in samples], [each[1] for each in samples]
    lines = plot(at, values, "ms", bounds=bounds, width=60, height=8)
    assert len(lines) == 10
    assert all(len(line) <= 63 for line in lines)


def test_a_drawing_shows_a_peak_that_one_column_shares_with_others() -> None:
    at = list(range(10_000))
    values = [0.0] * 10_000
    values[5_003] = 1.0
    lines = plot(at, values, width=60, height=8)
    assert any(ord(char) > 0x2800 for char in lines[0].partition("┤")[2])


def test_a_drawing_names_its_range_and_its_span() -> None:
    lines = plot([0, 2_000_000], [0.02, 0.08], "ms", width=60, height=8)
    assert "80 ms" in lines[0]
    assert "20 ms" in lines[7]
    assert lines[-1].rstrip().endswith("2s")


def test_numbers_are_short() -> None:
    assert size(512) == "512 B"
    assert size(1_572_864) == "1.5 MiB"
    assert instant(0) == "-"
    assert instant(1_800_000_000_123_456) == "2027-01-15T08:00:00.123Z"
