from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, strategies as st

from tshrag_common.times import (
    MAX_AT,
    MIN_AT,
    duration_s,
    instant,
    printed_duration,
    printed_instant,
)
from tshrag_common.units import BadQuantity

NOW = 1_790_000_000_000_000


@pytest.mark.parametrize(
    ("given_", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("2min", 120), ("2d", 172800),
     (90, 90), (1.5, 1.5), (" 7d ", 604800), ("1000ms", 1)],
)  # fmt: skip
def test_a_duration_is_read(given_: object, seconds: float) -> None:
    assert duration_s(given_, "timeout") == seconds


@pytest.mark.parametrize(
    ("given_", "line"),
    [
        ("no", "type: jobs[0].timeout: expected a duration like '10m', got 'no'"),
        (True, "type: jobs[0].timeout: expected a duration like '10m', got a boolean"),
        ("1:30", "type: jobs[0].timeout: expected a duration like '10m', got '1:30'; write '90s'"),
        ("012", "type: jobs[0].timeout: expected a duration like '10m', got '012'; write '12s'"),
        ("1:00:01", "type: jobs[0].timeout: expected a duration like '10m', got '1:00:01'; "
         "write '3601s'"),
        (None, "type: jobs[0].timeout: expected a duration like '10m', got nothing"),
        ([], "type: jobs[0].timeout: expected a duration like '10m', got a list"),
        (0, "range: jobs[0].timeout: 1s..7d, got 0"),
        (-5, "range: jobs[0].timeout: 1s..7d, got -5"),
        ("-5s", "range: jobs[0].timeout: 1s..7d, got '-5s'"),
        (float("inf"), "range: jobs[0].timeout: 1s..7d, got inf"),
        (float("nan"), "range: jobs[0].timeout: 1s..7d, got nan"),
        (10**400, "range: jobs[0].timeout: 1s..7d, got inf"),
        ("8d", "range: jobs[0].timeout: 1s..7d, got '8d'"),
    ],
)  # fmt: skip
def test_what_is_no_duration_is_refused(given_: object, line: str) -> None:
    with pytest.raises(BadQuantity) as refused:
        duration_s(given_, "jobs[0].timeout")
    assert refused.value.line == line


def test_a_number_is_refused_where_seconds_are_not_meant() -> None:
    with pytest.raises(BadQuantity, match="got a number"):
        duration_s(90, "window.after", numbers=False)


@given(st.integers(min_value=1, max_value=604_800_000))
def test_a_printed_duration_reads_back(ms: int) -> None:
    text = printed_duration(ms / 1000)
    assert abs(duration_s(text, "x", least_s=0) - ms / 1000) < 0.0011, text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (90, "1m30s"), (5400, "1h30m"), (0.25, "250ms"), (59.9996, "1m"), (86400, "1d")],
)
def test_a_duration_is_printed_short(seconds: float, text: str) -> None:
    assert printed_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("now", NOW),
        ("min", MIN_AT),
        ("MAX", MAX_AT),
        ("+10m", NOW + 600_000_000),
        ("-1h30m", NOW - 5_400_000_000),
        ("2026-01-31T12:00:00Z", 1_769_860_800_000_000),
        ("2026-01-31T13:00:00.000001+01:00", 1_769_860_800_000_001),
        ("2026-01-31", 1_769_817_600_000_000),
        ("1790000000000000", NOW),
        (NOW, NOW),
        ("17.5", 17),
    ],
)
def test_an_instant_is_microseconds(text: str | int, at: int) -> None:
    assert instant(text, NOW) == at


def test_text_without_a_zone_is_read_in_the_zone_of_the_place() -> None:
    east = timezone(timedelta(hours=2))
    assert instant("2026-01-31T14:00", NOW, zone=east) == instant("2026-01-31T12:00Z", NOW)


@pytest.mark.parametrize("text", ["", "yesterday", "+", "-5", "10000-01-01", "2026-13-01", "nan"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(BadQuantity):
        instant(text, NOW, "since")


def test_an_invalid_time_says_what_is_valid() -> None:
    with pytest.raises(BadQuantity) as refused:
        instant("soon", NOW, "since")
    assert refused.value.line == (
        "time: since: invalid time 'soon'; "
        "write ISO 8601 like '2026-01-31T12:00:00Z', 'now', '+10m' or microseconds"
    )


@given(st.integers(min_value=MIN_AT, max_value=MAX_AT))
def test_a_printed_instant_reads_back(at: int) -> None:
    assert instant(printed_instant(at), NOW) == at


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1)))
def test_iso_text_is_exact_to_the_microsecond(moment: datetime) -> None:
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    assert instant(moment.isoformat(), NOW) == since // timedelta(microseconds=1)


@given(st.text(max_size=40))
def test_any_text_is_an_instant_or_a_refusal(text: str) -> None:
    try:
        assert MIN_AT <= instant(text, NOW) <= MAX_AT
    except BadQuantity as refused:
        assert "\n" not in refused.line
