import math
import re

import msgspec
import pytest
from hypothesis import given, strategies as st

from tshrag_common.metrics import (
    MAX_KEY,
    MAX_SAMPLES,
    MAX_SERIES,
    MAX_TIME_US,
    MIN_TIME_US,
    BadMetric,
    MetricInfo,
    Sample,
    SampleBatch,
    Series,
    check_batch,
    conflict,
    file_name,
    is_below,
    key_of_file,
    metric_key,
    pack,
    split_statistic,
)

AT = 1_790_000_000_000_000
keys = st.lists(st.from_regex(r"[a-z0-9_]{1,8}", fullmatch=True), min_size=1, max_size=5).map(
    ".".join
)
samples = st.lists(
    st.builds(
        Sample,
        st.integers(MIN_TIME_US, MAX_TIME_US - 1),
        st.floats(min_value=-(2.0**64), max_value=2.0**64),
        st.integers(0, 2**40),
    ),
    min_size=1,
    max_size=30,
)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("network::latency", "network.latency"),
        ("Network/Latency", "network.latency"),
        ("a.b::c/d", "a.b.c.d"),
        ("p99", "p99"),
        ("_x.0", "_x.0"),
    ],
)
def test_a_key_has_one_form(text: str, key: str) -> None:
    assert metric_key(text) == key


@pytest.mark.parametrize(
    "text", ["a b", "", ".", "a..b", "a:b", "a.", "ä", "a*", "a>", "a\n", "a-b", "\u212a"]
)
def test_any_other_character_is_refused_with_the_key(text: str) -> None:
    with pytest.raises(BadMetric) as refused:
        metric_key(text)
    assert refused.value.line.startswith(f"metric_key: {text!a} is no metric key; use")


def test_a_long_key_is_refused() -> None:
    assert len(metric_key("a" * MAX_KEY)) == MAX_KEY
    for text in ("a" * (MAX_KEY + 1), "::a" * 5000):
        with pytest.raises(BadMetric, match="longer than 200"):
            metric_key(text)


@given(keys)
def test_a_key_survives_every_spelling(key: str) -> None:
    assert metric_key(key.replace(".", "::").upper()) == key
    assert key_of_file(file_name(key)) == key
    assert metric_key(key) == key


@given(st.text(max_size=300))
def test_any_text_is_a_key_or_a_refusal(text: str) -> None:
    try:
        assert re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", metric_key(text))
    except BadMetric as refused:
        assert "\n" not in refused.line and len(refused.line) < 1500


@pytest.mark.parametrize(
    ("key", "known", "found"),
    [
        ("network.latency.avg", (), ("network.latency", "avg")),
        ("network.latency.p99.9", (), ("network.latency", "p99.9")),
        ("network.latency.p50", (), ("network.latency", "p50")),
        ("network.latency", (), ("network.latency", "")),
        ("disk.max", ("disk.max",), ("disk.max", "")),
        ("disk.max.max", ("disk.max",), ("disk.max", "max")),
        ("avg", (), ("avg", "")),
        ("a.p101", (), ("a.p101", "")),
    ],
)
def test_the_last_segment_is_a_statistic_unless_the_whole_is_a_metric(
    key: str, known: tuple[str, ...], found: tuple[str, str]
) -> None:
    assert split_statistic(key, known) == found


def test_a_job_writes_below_its_namespace_only() -> None:
    assert is_below("network.latency", "network")
    assert is_below("anything", "")
    assert not is_below("network", "network")
    assert not is_below("networking.x", "network")
    assert not is_below("other.x", "network")


@pytest.mark.parametrize("key", ["host.a.cpu.used", "dut.x", "attempt.rss"])
def test_no_job_writes_what_the_agent_measures(key: str) -> None:
    assert not is_below(key, "")
    assert not is_below(key, key.split(".")[0])


def test_another_unit_or_type_of_a_key_is_a_conflict() -> None:
    known = MetricInfo(key="a.b", unit="ms")
    assert conflict(known, MetricInfo(key="a.b", unit="ms", description="new")) == ""
    assert conflict(known, MetricInfo(key="a.b", unit="s")) == "a.b is in ms, not in s"
    assert conflict(known, MetricInfo(key="a.b")) == "a.b is in ms, not in no unit"
    counter = MetricInfo(key="a.b", unit="ms", type="counter")
    assert conflict(known, counter) == "a.b is a gauge, not a counter"


@given(keys, samples)
def test_a_series_gives_back_its_samples(key: str, given_: list[Sample]) -> None:
    times, values, durations = zip(*given_, strict=True)
    series = pack(MetricInfo(key=key, unit="ms"), times, values, durations)
    assert list(series.samples()) == given_
    assert len(series) == len(given_)
    batch = SampleBatch(run="run-x", job="job-x", attempt=1, dut="rpi4", series=(series, series))
    check_batch(batch)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(batch), type=SampleBatch)
    assert again == batch and again.count == 2 * len(given_)


def test_a_sample_costs_sixteen_bytes_where_none_has_a_duration() -> None:
    series = pack(MetricInfo(key="a"), range(AT, AT + 1000), [1.0] * 1000, [0] * 1000)
    assert series.durations == b""
    assert len(msgspec.msgpack.encode(SampleBatch(series=(series,)))) < 16_100


def a_series(**changes: object) -> Series:
    return msgspec.structs.replace(pack(MetricInfo(key="a"), [AT], [1.0]), **changes)


def packed(value: float) -> bytes:
    return pack(MetricInfo(key="a"), [AT], [value]).values


@pytest.mark.parametrize(
    ("series", "code"),
    [
        (a_series(key="A b"), "metric_key"),
        (a_series(key="a" * 300), "metric_key"),
        (a_series(times=b"1234567"), "metric_value"),
        (a_series(times=b"", values=b""), "metric_value"),
        (a_series(values=b"1" * 16), "metric_value"),
        (a_series(durations=b"1" * 16), "metric_value"),
        (a_series(values=packed(math.nan)), "metric_value"),
        (a_series(values=packed(-math.inf)), "metric_value"),
        (a_series(values=packed(2.0**70)), "metric_value"),
        (a_series(values=packed(-(2.0**70))), "metric_value"),
        (a_series(times=bytes(8)), "metric_time"),
        (a_series(times=b"\xff" * 7 + b"\x7f"), "metric_time"),
        (a_series(durations=b"\xff" * 8), "metric_time"),
    ],
)
def test_a_batch_from_a_wire_is_checked(series: Series, code: str) -> None:
    with pytest.raises(BadMetric) as refused:
        check_batch(SampleBatch(series=(a_series(), series)))
    assert refused.value.code == code


def test_a_batch_is_bounded() -> None:
    with pytest.raises(BadMetric, match="at most"):
        check_batch(SampleBatch(series=(a_series(),) * (MAX_SERIES + 1)))
    many = pack(MetricInfo(key="a"), [AT] * (MAX_SAMPLES + 1), [0.0] * (MAX_SAMPLES + 1))
    with pytest.raises(BadMetric, match="at most"):
        check_batch(SampleBatch(series=(many,)))
