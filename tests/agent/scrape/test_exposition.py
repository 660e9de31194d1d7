import math

import pytest
from hypothesis import given, strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from tshrag_agent.scrape import exposition
from tshrag_agent.scrape.exposition import BadExposition, Point, parse
from tshrag_agent.scrape.fold import fold
from tshrag_common.metrics import metric_key
from tshrag_common.scrapes import Scrape

NAMES = ("hits_total", "seconds_bucket", "seconds_sum", "seconds_count", "queue")


def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    hits = Counter("hits", "of the page", ["code", "path"], registry=made)
    hits.labels("200", "/").inc(3)
    hits.labels("200", '/a "b"\\\n').inc(4)
    hits.labels("500", "/").inc(1)
    seconds = Histogram("seconds", "each", buckets=(0.1, 1.0), registry=made)
    seconds.observe(0.05)
    seconds.observe(5)
    Gauge("queue", "length", registry=made).set(-2.5)
    return made


@pytest.mark.parametrize("generate", [generate_latest, generate_openmetrics])
def test_what_the_official_client_writes_is_read_in_both_formats(generate: object) -> None:
    assert callable(generate)
    points = parse(generate(registry()), NAMES)
    scrape = Scrape(port=1, keys=NAMES, labels=("code",))
    assert fold(points, scrape, "web").numbers == {
        "web.hits_total.code_200": ("counter", 7.0),
        "web.hits_total.code_500": ("counter", 1.0),
        "web.seconds_bucket.le_0_1": ("counter", 1.0),
        "web.seconds_bucket.le_1_0": ("counter", 1.0),
        "web.seconds_bucket.le_inf": ("counter", 2.0),
        "web.seconds_sum": ("counter", 5.05),
        "web.seconds_count": ("counter", 2.0),
        "web.queue": ("gauge", -2.5),
    }
    assert {point.labels.get("path") for point in points} >= {'/a "b"\\\n'}


def test_gauges_that_only_other_labels_tell_apart_are_refused() -> None:
    points = parse(b'temp{core="0"} 40\ntemp{core="1"} 50\n', ["temp"])
    folded = fold(points, Scrape(port=1, keys=("temp",)), "board")
    assert folded.numbers == {}
    assert folded.refused == {"board.temp": "metric_series: several series; allow the labels core"}


def test_numbers_as_the_format_has_them() -> None:
    text = b'# a comment\na NaN\nb +Inf 1700000000000\nc 1.5e3\nd .5 # {trace="x"} 1\n\n# EOF\n'
    values = {point.name: point.value for point in parse(text, "abcd")}
    assert math.isnan(values.pop("a"))
    assert values == {"b": math.inf, "c": 1500.0, "d": 0.5}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"a 1", "the answer was cut"),
        (b"a\n", "line 1: 'a' is no sample"),
        (b"a1\n", "is no sample"),
        (b"a 1 2 3\n", "is no sample"),
        (b"a{b=c} 1\n", "is no sample"),
        (b'a{b="c} 1\n', "is no sample"),
        (b'a{b="\\x"} 1\n', "is no sample"),
        (b"a 0x10\n", "is no sample"),
        (b"a 1_0\n", "is no sample"),
        (b'ok 1\na{b="1",b="2"} 1\n', "line 2: label b stands there twice"),
        (b'a{b="1"} 1\na{b="1"} 2\n', "twice with the same labels"),
        (b"# TYPE a thing\n", "is no type"),
        (b"# TYPE a gauge\n# TYPE a counter\n", "has a type already"),
        (b"# EOF\na 1\n", "behind # EOF"),
        (b"a \xff\n", "byte 2: is no UTF-8"),
        (b"<html>\n", "is no sample"),
        (b"a 1\n" * (exposition.MOST_LINES + 1), "stands there twice|more than"),
        (b"\n" * (exposition.MOST_LINES + 1), "more than 50000 lines"),
        (b"x" * (exposition.MOST_LINE + 1) + b" 1\n", "longer than"),
        (b" " * (exposition.MOST_BYTES + 1), "more than 4194304 bytes"),
    ],
)
def test_what_is_not_in_the_format_refuses_the_whole(text: bytes, why: str) -> None:
    with pytest.raises(BadExposition, match=why):
        parse(text, ["a"])


@given(st.binary(max_size=300) | st.text('a{}=",\\n#1 \n', max_size=60).map(str.encode))
def test_no_bytes_do_anything_but_be_read_or_refused(data: bytes) -> None:
    try:
        points = parse(data, ["a", "n"])
    except BadExposition:
        return
    assert all(point.name in ("a", "n") for point in points)


@given(st.text(max_size=50), st.floats(allow_nan=False))
def test_any_label_comes_back_and_makes_a_key(value: str, number: float) -> None:
    made = CollectorRegistry()
    Gauge("g", "any", ["l"], registry=made).labels(value).set(number)
    (point,) = parse(generate_latest(made), ["g"])
    assert point == Point("g", "gauge", {"l": value}, number)
    (key,) = fold([point], Scrape(port=1, keys=("g",), labels=("l",)), "p").numbers
    assert metric_key(key) == key
