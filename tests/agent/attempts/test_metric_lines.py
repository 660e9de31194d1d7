import random
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from tshrag_agent.attempts.metric_gate import MetricGate
from tshrag_agent.attempts.metric_lines import LINE_CAP, MetricLines, MetricRows
from tshrag_common.metrics import MetricInfo

NOW = 1_790_000_000_000_000
Taken = list[tuple[str, int, float, int]]
Seen = tuple[Taken, tuple[tuple[str, int, str], ...]]


def read(*chunks: bytes, csv_key: str = "") -> Seen:
    """Return samples and notices of output that came in `chunks`."""
    taken: Taken = []
    gate = MetricGate(lambda info, at, value, span: taken.append((info.key, at, value, span)))
    reader = MetricRows(gate, csv_key) if csv_key else MetricLines(gate)
    for chunk in chunks:
        reader.feed(chunk, NOW)
    reader.close(NOW)
    return taken, tuple((notice.key, notice.count, notice.reason) for notice in gate.notices())


def samples(*chunks: bytes) -> Taken:
    return read(*chunks)[0]


OUTPUT = (
    b"booting\r\n::metric network::latency 12.5ms\r\n"
    b"$ ::metric not.at.the.start 1\n"
    b" ::metric behind.a.space 1\n\\::metric escaped 1\n"
    b"\x1b[32m::metric coloured 1\n"
    b"\x00\xff::metric after.noise 2 1790000000.5\n"
    b"10%\r50%\r::metric after.progress 3 s 1790000000000001\r100%\n"
    b"::metric\n::metric a\n::metric a b c d e\n"
    b"::metric bad\xc3\x28key 1\n::metric temp 21.5 \xc2\xb0C\n"
    b"::metric long " + b"9" * LINE_CAP + b"\n" + b"text" * 10_000 + b"::metric in.text 1\n"
    b"::metrics no 1\n::metric last 4"
)  # fmt: skip


def test_samples_are_found_in_output() -> None:
    taken, notices = read(OUTPUT)
    assert taken == [
        ("network.latency", NOW, 0.0125, 0),
        ("after.noise", NOW + 500_000, 2.0, 0),
        ("after.progress", NOW + 1, 3.0, 0),
        ("temp", NOW, 21.5, 0),
        ("last", NOW, 4.0, 0),
    ]
    assert [key for key, _, _ in notices] == ["a", "bad\\xc3(key", "::metric"]
    assert notices[-1][2] == "metric_line: longer than 16384 bytes"


def test_output_cut_anywhere_gives_the_same_samples() -> None:
    whole = read(OUTPUT)
    short = OUTPUT[:700]
    expected = read(short)
    for at in range(len(short)):
        assert read(short[:at], short[at:]) == expected
    assert read(*(OUTPUT[at : at + 1] for at in range(len(OUTPUT)))) == whole


@given(st.binary(max_size=300), st.randoms(use_true_random=False))
def test_noise_cut_anywhere_gives_the_same_samples(noise: bytes, chance: random.Random) -> None:
    places = sorted(chance.randrange(len(noise) + 1) for _ in range(3))
    output = noise[: places[0]] + b"\n::metric a.b 1ms\n" + noise[places[1] :]
    cuts = [0, *sorted(chance.randrange(len(output)) for _ in range(5)), len(output)]
    pieces = [output[a:b] for a, b in pairwise(cuts)]
    assert read(*pieces) == read(output)
    assert ("a.b", NOW, 0.001, 0) in samples(output)


def test_memory_is_bounded_by_one_line() -> None:
    taken: Taken = []
    lines = MetricLines(MetricGate(lambda *_: None))
    for chunk in (b"::metric a " + b"1" * 8000, b"1" * 100_000, b"text", b"\x00" * 100_000):
        lines.feed(chunk, NOW)
        assert len(lines._tail) <= LINE_CAP
    assert taken == []


def test_a_row_has_time_and_value_or_a_duration_between() -> None:
    taken, notices = read(
        b"timestamp,value\n1790000000000000,12.5ms\n1790000000.5,13\r\n"
        b"2026-09-21T14:13:20Z,1s\n1790000000000002,1500,7\n",
        csv_key="a.b",
    )
    assert taken == [
        ("a.b", NOW, 0.0125, 0),
        ("a.b", NOW + 500_000, 0.013, 0),
        ("a.b", NOW, 1.0, 0),
        ("a.b", NOW + 2, 0.007, 1500),
    ]
    assert notices == ()


def test_a_header_may_name_the_columns_in_another_order() -> None:
    taken, _ = read(b"Value,Duration,Time\n5,1000,1790000000000000\n", csv_key="a")
    assert taken == [("a", NOW, 5.0, 1000)]


def test_a_file_without_header_loses_no_row() -> None:
    assert len(read(b"1790000000000000,1\n1790000000000001,2", csv_key="a")[0]) == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"1790000000000000", "metric_line: '1790000000000000' is no 'time,value' or"),
        (b",5", "metric_line: ',5' is no 'time,value' or 'time,duration,value'"),
        (b"1,2,3,4", "metric_line: '1,2,3,4' is no"),
        (b"1790000000000000,nan", "metric_value: 'a': 'nan' is no finite number"),
        (b"12,5", "metric_time: 'a': '12' is no time from 2000 to 2099"),
        (b"1790000000000000,-5,1", "metric_time: 'a': '-5' is no duration"),
        (b"time,value", "metric_value: 'a': 'value' is no number"),
        (b"9" * 20_000, "metric_line: longer than 16384 bytes"),
        (b"\xff\xfe,1", "metric_time: 'a': '\\\\xff\\\\xfe' is no time"),
    ],
)
def test_a_bad_row_is_counted_and_the_next_is_taken(row: bytes, reason: str) -> None:
    whole = b"time,value\n" + row + b"\n\n# a comment\n1790000000000000,1\n"
    taken, notices = read(whole, csv_key="a")
    assert taken == [("a", NOW, 1.0, 0)]
    assert notices[0][:2] == ("a", 1) and notices[0][2].startswith(reason)
    for cut in (5, 15, len(whole) - 10, len(whole) - 30):
        assert read(whole[:cut], whole[cut:], csv_key="a") == (taken, notices)


GOOD = b"::metric a.b 1\n::metric a.c 2.5ms 1790000000.5\n::metric a.d 3\n"


@pytest.mark.parametrize("odd", [b"\x00", b"\xff", b"\n", b"\r", b" ", b":", b"9", b"\xc3"])
def test_a_byte_that_is_wrong_anywhere_touches_no_other_line(odd: bytes) -> None:
    """At every place of three lines, put in or in the place of one: the others are as they were."""
    whole = samples(GOOD)
    assert len(whole) == 3
    for place in range(len(GOOD)):
        hit = GOOD[:place].count(b"\n")
        touched = {hit, hit + 1} if GOOD[place : place + 1] == b"\n" else {hit}
        others = [row for number, row in enumerate(whole) if number not in touched]
        for rest in (GOOD[place:], GOOD[place + 1 :]):
            text = GOOD[:place] + odd + rest
            assert [row for row in samples(text) if row in others] == others, (place, text)


@given(
    st.lists(st.tuples(st.integers(-(10**9), 10**6), st.integers(-1000, 1000)), max_size=20),
    st.data(),
)
def test_rows_cut_anywhere_are_the_same(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    text = "".join(f"{NOW + at},{value}\n" for at, value in rows).encode()
    at = data.draw(st.integers(0, len(text)))
    taken, notices = read(text[:at], text[at:], csv_key="a")
    assert taken == [("a", NOW + at, float(value), 0) for at, value in rows]
    assert notices == ()


def test_a_gate_serves_several_readers() -> None:
    infos: list[MetricInfo] = []
    gate = MetricGate(lambda info, *_: infos.append(info))
    MetricLines(gate).feed(b"::metric a 1ms\n", NOW)
    MetricRows(gate, "a").feed(b"1790000000000000,2\n", NOW)
    assert infos[0] is infos[1]
