import pytest
from hypothesis import given, strategies as st

from tshrag_agent.attempts.metric_gate import MAX_LABELLED, MetricGate
from tshrag_agent.attempts.metric_protocols import MetricProtocols
from tshrag_common.metrics import MetricInfo

NOW = 1_790_000_000_000_000
Taken = list[tuple[str, str, str, int, float]]


class Spoken:
    """A reader of protocols and what went through it."""

    def __init__(self, *packets: bytes, declared: tuple[MetricInfo, ...] = ()) -> None:
        self.taken: Taken = []
        self.gate = MetricGate(self._take, declared=declared)
        reader = MetricProtocols(self.gate)
        for packet in packets:
            reader.feed(packet, NOW)

    def _take(self, info: MetricInfo, at: int, value: float, duration: int) -> None:
        self.taken.append((info.key, info.unit, info.type, at, value))

    @property
    def values(self) -> list[float]:
        return [value for *_, value in self.taken]

    @property
    def reasons(self) -> list[str]:
        return [f"{notice.key}: {notice.reason}" for notice in self.gate.notices()]


def test_our_own_lines_are_taken() -> None:
    assert Spoken(b"::metric a::b 12.5ms\r\n").taken == [("a.b", "ms", "gauge", NOW, 0.0125)]


def test_counters_of_statsd_grow_and_are_scaled_by_their_rate() -> None:
    spoken = Spoken(b"hits:1|c\nhits:2|c|@0.1\n", b"hits:4|c")
    assert spoken.values == [1.0, 21.0, 25.0]
    assert spoken.taken[0][:3] == ("hits", "", "counter")


def test_gauges_of_statsd_take_deltas() -> None:
    assert Spoken(b"depth:10|g\ndepth:-3|g\ndepth:+1|g\ndepth:5|g").values == [10, 7, 8, 5]


def test_timings_of_statsd_are_milliseconds() -> None:
    spoken = Spoken(b"net.latency:320|ms", declared=(MetricInfo(key="net.latency", unit="s"),))
    assert spoken.taken == [("net.latency", "s", "gauge", NOW, 0.32)]


def test_a_set_of_statsd_is_passed_over_and_counted() -> None:
    spoken = Spoken(b"users:joe|s\nusers:1.5|s")
    assert spoken.taken == []
    assert spoken.reasons == ["users: metric_line: a set of StatsD is no number"]
    assert spoken.gate.refused == 2


def test_a_counter_that_is_declared_a_gauge_is_a_conflict() -> None:
    spoken = Spoken(b"hits:1|c", declared=(MetricInfo(key="hits"),))
    assert spoken.reasons == ["hits: metric_type: hits is a gauge, not a counter"]


def test_tags_are_not_kept_and_that_is_counted() -> None:
    spoken = Spoken(b"hits:1|c|#env:lab\n", b"cpu,core=0 used=5 1790000000000000000")
    assert spoken.values == [1.0, 5.0]
    assert [notice.count for notice in spoken.gate.notices()] == [1, 1]
    assert spoken.reasons[0] == "hits: metric_tags: the sample was taken, its tags are not kept"


REQUESTS = MetricInfo(key="net.requests", type="counter", labels=("op", "code"))


def test_labels_that_are_allowed_become_segments_of_the_key() -> None:
    spoken = Spoken(
        b"net.requests:1|c|#code:200,op:Read\nnet.requests:1|c|#op:read,code:200\n"
        b"Net/Requests:5|c|#user:joe,op:write\nnet.requests:2|c",
        b"net,op=read\\ all,zone=b used=1 1790000000000000000",
        declared=(REQUESTS, MetricInfo(key="net.used", unit="s", labels=("op",))),
    )
    assert [(key, kind, value) for key, _, kind, _, value in spoken.taken] == [
        ("net.requests.op_read.code_200", "counter", 1.0),
        ("net.requests.op_read.code_200", "counter", 2.0),
        ("net.requests.op_write", "counter", 5.0),
        ("net.requests", "counter", 2.0),
        ("net.used.op_read_all", "gauge", 1.0),
    ]
    assert [reason.partition(": ")[0] for reason in spoken.reasons] == ["Net/Requests", "net.used"]


def test_beyond_the_cap_of_a_metric_its_overflow_counts_and_others_go_on() -> None:
    lines = b"\n".join(b"net.requests:1|c|#op:o%d" % n for n in range(MAX_LABELLED + 50))
    spoken = Spoken(lines + b"\nok:1|g", declared=(REQUESTS,))
    spoken.gate.settle(NOW)
    overflow = [row for row in spoken.taken if row[0] == "net.requests.overflow"]
    assert overflow[-1][2:] == ("counter", NOW, 50.0)
    assert len({row[0] for row in spoken.taken}) == MAX_LABELLED + 2
    assert spoken.gate.refused == 50
    assert spoken.taken[-2][0] == "ok"


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        (b"cpu used=5.5", [("cpu.used", NOW, 5.5)]),
        (b"cpu value=5i", [("cpu", NOW, 5.0)]),
        (b"cpu a=1u,b=t,c=False 1790000000000001999",
         [("cpu.a", NOW + 1, 1.0), ("cpu.b", NOW + 1, 1.0), ("cpu.c", NOW + 1, 0.0)]),
        (rb'cpu,host=a\ b,rack=x used=1,note="two words, and = signs",n=2',
         [("cpu.used", NOW, 1.0), ("cpu.n", NOW, 2.0)]),
        (rb'cpu note="a \" quote",n=2', [("cpu.n", NOW, 2.0)]),
        (b"cpu used=-1e3", [("cpu.used", NOW, -1000.0)]),
    ],
)  # fmt: skip
def test_line_protocol_is_read(line: bytes, taken: list[tuple[str, int, float]]) -> None:
    found = [(key, at, value) for key, _, _, at, value in Spoken(line).taken]
    assert found == taken


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"hello", "socket: metric_line: 'hello' is neither ::metric, StatsD nor line protocol"),
        (b"a b c d", "socket: metric_line: 'a b c d' is neither"),
        (b"cpu used=1 soon", "socket: metric_line: 'cpu used=1 soon' is neither"),
        (b"cpu =1", "socket: metric_line: 'cpu =1' is neither"),
        (b'cpu note="text"', "cpu.note: metric_value: '\"text\"' is no number"),
        (b"cpu used=1 99", "cpu.used: metric_time: 'cpu.used': '0' is no time from 2000"),
        (b"my-app:1|c", "my-app: metric_key: 'my-app' is no metric key"),
        (b"a:1|c|@0", "a: metric_value: a sample rate of 0"),
        (b"a:nan|g", "socket: metric_line: 'a:nan|g' is neither"),
        (b"x" * 20_000, "socket: metric_line: longer than 16384 bytes"),
        (b"m " + b",".join(b"f%d=1" % n for n in range(101)), "socket: metric_line: 'm f0=1"),
    ],
)
def test_a_bad_line_is_counted_and_the_next_is_taken(line: bytes, reason: str) -> None:
    spoken = Spoken(line + b"\nok:1|g\n")
    assert spoken.values == [1.0]
    assert len(spoken.reasons) == 1 and spoken.reasons[0].startswith(reason)


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_whatever_arrives_nothing_breaks(packets: list[bytes]) -> None:
    assert Spoken(*packets, b"ok:1|g").values[-1:] == [1.0]


@given(st.text(st.sampled_from('ab:|c@#,= "\\1.\n'), max_size=60))
def test_whatever_looks_like_a_protocol_breaks_nothing(text: str) -> None:
    assert Spoken(text.encode(), b"ok:1|g").values[-1:] == [1.0]
