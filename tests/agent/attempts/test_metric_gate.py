import math

import pytest
from hypothesis import given, strategies as st

from tshrag_agent.attempts.dut_clock import DutClock
from tshrag_agent.attempts.metric_gate import (
    MAX_HELD,
    MAX_NOTICES,
    OVERFLOW,
    MetricGate,
    lines_of,
)
from tshrag_agent.attempts.metric_text import span_of, time_of
from tshrag_common.metrics import MetricInfo

NOW = 1_790_000_000_000_000
LATENCY = MetricInfo(key="network.latency", unit="ms")
Taken = tuple[str, str, int, float, int]


class Opened:
    """A gate and what went through it."""

    def __init__(
        self,
        *declared: MetricInfo,
        namespace: str = "",
        most_keys: int = 1000,
        clock: DutClock | None = None,
    ) -> None:
        self.taken: list[Taken] = []
        self.gate = MetricGate(
            self._take, declared=declared, namespace=namespace, most_keys=most_keys, clock=clock
        )

    def _take(self, info: MetricInfo, at: int, value: float, duration: int) -> None:
        self.taken.append((info.key, info.unit, at, value, duration))

    def offer(self, key: str, value: str, time: str = "", duration: str = "") -> str:
        """Return the reason of a refusal, empty when it was taken."""
        if self.gate.offer_text(key, value, time, duration, now_us=NOW):
            return ""
        return self.gate.notices()[-1].reason


def test_a_bare_number_is_in_the_declared_unit_and_leaves_in_the_base_unit() -> None:
    opened = Opened(LATENCY)
    assert opened.offer("network::latency", "12.5") == ""
    assert opened.offer("Network/Latency", "250us") == ""
    assert opened.offer("network.latency", "1 s", "1790000000.5", "0.25") == ""
    assert opened.taken == [
        ("network.latency", "ms", NOW, 0.0125, 0),
        ("network.latency", "ms", NOW, 0.00025, 0),
        ("network.latency", "ms", NOW + 500_000, 1.0, 250_000),
    ]
    assert opened.gate.notices() == ()


def test_the_first_sample_decides_the_unit_of_a_key_that_is_not_declared() -> None:
    opened = Opened()
    assert opened.offer("a.b", "12.5 ms") == ""
    assert opened.offer("a.b", "3s") == ""
    assert opened.offer("a.b", "4") == ""
    assert [value for _, _, _, value, _ in opened.taken] == [0.0125, 3.0, 0.004]
    assert opened.offer("a.b", "5MB") == (
        "metric_unit: a.b is in ms, not in MB; its first sample decided; declare it in load.toml"
    )
    assert [info.unit for info in opened.gate.infos()] == ["ms"]


def test_a_conflict_of_unit_or_type_is_refused_and_counted_by_key() -> None:
    opened = Opened(LATENCY)
    assert opened.offer("network.latency", "5MB") == (
        "metric_unit: network.latency is in ms, not in MB"
    )
    assert opened.offer("network.latency", "5 mss")  # the first reason is the one that is kept
    assert opened.offer("other", "5 mss") == (
        "metric_unit: 'mss' is no unit; nearest: ms, msg/s, msg"
    )
    assert not opened.gate.offer("network.latency", 1.0, "", None, 0, "counter", now_us=NOW)
    notice, _ = opened.gate.notices()
    assert (notice.key, notice.count) == ("network.latency", 3)
    assert opened.gate.refused == 4
    assert list(lines_of([notice])) == [
        "network.latency: 3 not taken: metric_unit: network.latency is in ms, not in MB"
    ]


def test_a_unit_of_the_loads_own_is_taken_as_it_is() -> None:
    opened = Opened(MetricInfo(key="score", unit="bogo"))
    assert opened.offer("score", "7") == ""
    assert opened.offer("score", "8bogo") == ""
    assert [value for _, _, _, value, _ in opened.taken] == [7.0, 8.0]
    assert opened.offer("score", "8ms") == "metric_unit: score is in bogo, not in ms"


@pytest.mark.parametrize(
    ("key", "value", "time", "reason"),
    [
        ("a b", "1", "", "metric_key: 'a b' is no metric key; "
         "use segments of a-z, 0-9 and '_' joined by '.' or '::'"),
        ("a" * 300, "1", "", "metric_key: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\\u2026' "
         "is longer than 200"),
        ("host.x.cpu", "1", "", "metric_key: host.x.cpu is outside what a load may write: "
         "host, dut and attempt are the agent's"),
        ("a", "nan", "", "metric_value: 'a': 'nan' is no finite number"),
        ("a", "-Infinity", "", "metric_value: 'a': '-Infinity' is no finite number"),
        ("a", "fast", "", "metric_value: 'a': 'fast' is no number"),
        ("a", "1,5", "", "metric_value: 'a': '1,5' is no number"),
        ("a", "1e999", "", "metric_value: inf is beyond 2^64"),
        ("a", str(2**70), "", "metric_value: 1.18059e+21 is beyond 2^64"),
        ("a", "1", "0", "metric_time: 'a': '0' is no time from 2000 to 2099; write microseconds "
         "since 1970, seconds with a decimal point, or ISO 8601"),
        ("a", "1", "1790000000", "metric_time: 'a': '1790000000' is no time from 2000 to 2099; "
         "write microseconds since 1970, seconds with a decimal point, or ISO 8601"),
        ("a", "1", "2100-01-01T00:00:00Z", "metric_time: 'a': '2100-01-01T00:00:00Z' is no time "
         "from 2000 to 2099; write microseconds since 1970, seconds with a decimal point, "
         "or ISO 8601"),
        ("a", "1", "yesterday", "metric_time: 'a': 'yesterday' is no time from 2000 to 2099; "
         "write microseconds since 1970, seconds with a decimal point, or ISO 8601"),
    ],
)  # fmt: skip
def test_a_sample_that_is_none_is_refused_with_its_reason(
    key: str, value: str, time: str, reason: str
) -> None:
    opened = Opened()
    assert opened.offer(key, value, time) == reason
    assert opened.taken == []


def test_a_load_writes_below_its_namespace_only() -> None:
    opened = Opened(namespace="network")
    assert opened.offer("network::latency", "1") == ""
    assert opened.offer("disk::latency", "1") == (
        "metric_key: disk.latency is outside the namespace of this load, network"
    )


def test_keys_are_bounded() -> None:
    opened = Opened(most_keys=3)
    said = [opened.offer(f"k{n}", "1") for n in range(5)]
    assert said == ["", "", "", "metric_key: more than 3 keys", "metric_key: more than 3 keys"]
    assert opened.offer("k0", "2") == ""
    opened.gate.settle(NOW)
    overflow = [row for row in opened.taken if row[0] == "attempt.overflow"]
    assert [value for _, _, _, value, _ in overflow] == [1.0, 2.0], "a counter tells how many"


def test_notices_are_bounded_and_safe_to_show() -> None:
    opened = Opened()
    for n in range(5000):
        opened.offer(f"bad key \x1b[2J {n}", "1")
    notices = opened.gate.notices()
    assert len(notices) == MAX_NOTICES + 1
    assert notices[-1].key == OVERFLOW and notices[-1].count == 5000 - MAX_NOTICES
    assert all("\x1b" not in notice.key + notice.reason for notice in notices)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1790000000000000", NOW),
        ("1790000000.000001", NOW + 1),
        ("1.79e9", NOW),
        ("2026-09-21T14:13:20Z", NOW),
        ("2026-09-21T16:13:20.5+02:00", NOW + 500_000),
        ("2026-09-21 14:13:20", NOW),
    ],
)
def test_a_time_is_read_in_three_forms(text: str, at: int) -> None:
    assert time_of(text) == at


@pytest.mark.parametrize(
    ("text", "span"), [("1500", 1500), ("0.5", 500_000), ("5ms", 5000), ("0", 0)]
)
def test_a_duration_is_microseconds_seconds_or_has_a_unit(text: str, span: int) -> None:
    assert span_of(text) == span


@pytest.mark.parametrize("duration", ["-1", "5MB", "5 foo", "long", "1e30"])
def test_a_duration_that_is_none_is_refused(duration: str) -> None:
    assert Opened().offer("a", "1", "", duration).startswith("metric_")


@given(st.text(max_size=30), st.text(max_size=20), st.text(max_size=20), st.text(max_size=10))
def test_whatever_a_load_says_is_taken_or_counted(
    key: str, value: str, time: str, duration: str
) -> None:
    opened = Opened(LATENCY)
    reason = opened.offer(key, value, time, duration)
    assert len(opened.taken) + opened.gate.refused == 1
    if not reason:
        assert math.isfinite(opened.taken[0][3])


def test_the_future_is_refused_and_counted_and_the_past_is_not() -> None:
    opened = Opened()
    assert opened.offer("a", "1", str(NOW + 5_000_000)) == ""
    assert opened.offer("a", "2", str(NOW - 20 * 365 * 86_400_000_000)) == ""
    assert opened.offer("a", "3", str(NOW + 5_000_001)) == (
        "metric_ahead: 'a': 5 s ahead of the clock of the agent, at most 5; "
        "set the clock that wrote it"
    )
    assert opened.offer("a", "4", "2099-01-01T00:00:00Z").startswith("metric_ahead: 'a': ")
    assert [value for _, _, _, value, _ in opened.taken] == [1.0, 2.0]
    assert opened.gate.ahead == 2
    assert [(notice.key, notice.count) for notice in opened.gate.notices()] == [("a", 2)]


def a_clock(offset_us: int) -> DutClock:
    clock = DutClock()
    clock.read(NOW - offset_us, 1, NOW - 100, NOW + 100)
    return clock


def test_times_of_a_dut_are_moved_and_those_without_are_of_now() -> None:
    opened = Opened(clock=a_clock(56 * 365 * 86_400_000_000))
    board = NOW - 56 * 365 * 86_400_000_000
    assert opened.offer("a", "1", f"{board / 1e6:.6f}") == ""
    assert opened.offer("a", "2") == ""
    (_, _, first, _, _), (_, _, second, _, _) = opened.taken
    assert abs(first - NOW) < 101 and second == NOW


def test_a_time_that_nothing_covers_waits_for_the_next_reading() -> None:
    clock = a_clock(3_600_000_000)
    opened = Opened(clock=clock)
    assert opened.offer("a", "1", str(NOW)) == ""  # the clock was set right a moment ago
    assert (opened.taken, opened.gate.held) == ([], 1)
    clock.read(NOW + 1_000_000, 1, NOW + 999_900, NOW + 1_000_100)
    opened.gate.settle(NOW + 1_000_100)
    assert [at for _, _, at, _, _ in opened.taken] == [NOW]
    assert opened.gate.held == 0


def test_a_dut_ahead_of_its_clock_is_refused_as_any_other() -> None:
    opened = Opened(clock=a_clock(0))
    assert opened.offer("a", "1", str(NOW + 60_000_000)) == ""
    opened.gate.settle(NOW)
    assert opened.taken == [] and opened.gate.ahead == 1


def test_no_more_than_so_many_wait_and_none_is_dropped() -> None:
    opened = Opened(clock=a_clock(3_600_000_000))
    for _ in range(MAX_HELD + 3):
        assert opened.gate.offer("a", 1.0, "", NOW - 7_300_000_000, now_us=NOW)
    assert (len(opened.taken), opened.gate.held) == (3, MAX_HELD)
    opened.gate.settle(NOW)
    assert len(opened.taken) == MAX_HELD + 3
