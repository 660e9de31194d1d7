"""A criterion on a stream: it ends where the judgement of all samples does, and keeps its word."""

from collections.abc import Mapping, Sequence

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from tests.controller.core.test_criteria import AT, LATENCY, SECOND
from tshrag_common.criteria import Criterion
from tshrag_common.criteria_compile import compile_criterion
from tshrag_controller.core.criteria import judge
from tshrag_controller.core.live import Arrived, LiveCriterion
from tshrag_controller.core.source import Source

LIVE: list[dict[str, object]] = [
    {"metric": "network.latency", "max": "150ms"},
    {"metric": "network.latency", "in": ["50ms", "150ms"], "warn_max": "120ms"},
    {"metric": "network::latency::avg", "max": "100ms"},
    {"metric": "network::latency::max", "max": "150ms"},
    {"metric": "network::latency::min", "min": "50ms"},
    {"metric": "network::latency::count", "min": 5},
    {"metric": "network::latency::stdev", "max": "30ms"},
    {"metric": "network::latency::last", "max": "100ms"},
    {"metric": "network::latency::spread", "max": "100ms"},
    {"metric": "network::latency::slope", "max": 0.01},
    {"metric": "network.latency", "max": "150ms", "for": "3s"},
    {"metric": "network::latency::avg", "max": "120ms", "over": "4s"},
    {"metric": "network::latency::avg", "max": "100ms", "window": {"after": "2s", "before": "9s"}},
    {"metric": "network::latency::max", "max": "150ms", "scope": "job"},
    {"metric": "network.latency", "absent": True},
    {"all": [{"metric": "network::latency::avg", "max": "100ms"},
             {"metric": "network::latency::max", "max": "150ms"}]},
    {"any": [{"metric": "network::latency::avg", "max": "100ms"},
             {"metric": "network::latency::max", "max": "150ms"}]},
    {"not": {"metric": "network::latency::max", "max": "150ms"}},
]  # fmt: skip

numbers = st.integers(0, 250).map(lambda ms: ms / 1000)
streams = st.lists(st.lists(numbers, min_size=1, max_size=25), min_size=1, max_size=3)


def live_of(fields: Mapping[str, object]) -> LiveCriterion:
    return LiveCriterion(compile_criterion("c", msgspec.convert(fields, Criterion), [LATENCY]))


def arrived(
    values: Sequence[float], first: int = 0, job: str = "job-1", attempt: int = 1
) -> Arrived:
    times = [AT + (first + n) * SECOND for n in range(len(values))]
    return Arrived(
        key="network.latency", times=times, values=values, unit="ms", job=job, attempt=attempt,
        dut="d", host="h", started_at=AT,
    )  # fmt: skip


@pytest.mark.parametrize("fields", LIVE, ids=str)
@settings(max_examples=40)
@given(data=streams, cuts=st.lists(st.integers(1, 6), min_size=25, max_size=25))
def test_on_complete_data_live_and_final_agree_and_what_was_decided_stays(
    fields: dict[str, object], data: list[list[float]], cuts: list[int]
) -> None:
    live = live_of(fields)
    decided: list[str | None] = []
    jobs = {f"job-{n}": AT for n in range(len(data))}
    for number, values in enumerate(data):
        at = 0
        for cut in cuts:
            piece = values[at : at + cut]
            if piece:
                live.feed(arrived(piece, at, f"job-{number}"))
            at += cut
            standing = live.standing(AT + at * SECOND, jobs)
            if standing.decided:
                decided.append(standing.verdict)
    end = AT + max(map(len, data)) * SECOND
    sources = [
        Source(
            key="network.latency",
            times=[AT + n * SECOND for n in range(len(values))],
            values=values, unit="ms", job=f"job-{number}", dut="d", host="h", started_at=AT,
            ended_at=AT + len(values) * SECOND,
        )
        for number, values in enumerate(data)
    ]  # fmt: skip
    final = judge(live.criterion, sources)
    assert set(decided) <= {final.verdict}, final.reason
    said = live.standing(end, {})
    if final.verdict != "error" and said.verdict is not None and "over" not in fields:
        assert said.verdict == final.verdict, (said.said, final.reason)


def test_a_sample_beyond_a_bound_of_every_sample_decides_at_once() -> None:
    live = live_of({"metric": "network.latency", "max": "150ms"})
    live.feed(arrived([0.1] * 5))
    assert live.standing(AT, {"job-1": AT}).decided is False
    live.feed(arrived([0.2], 5))
    standing = live.standing(AT, {"job-1": AT})
    assert (standing.verdict, standing.decided) == ("fail", True)
    assert standing.said == "network.latency is 200 ms, above max 150 ms by 50 ms"


def test_a_window_that_is_over_for_every_open_job_decides() -> None:
    live = live_of({"metric": "network::latency::avg", "max": "1s", "window": {"before": "3s"}})
    live.feed(arrived([0.1] * 3))
    open_jobs = {"job-1": AT, "job-2": 0}
    assert not live.standing(AT, open_jobs).decided, "it may bring samples of the window still"
    live.feed(arrived([0.1] * 2, 3))
    assert not live.standing(AT, open_jobs).decided, "another job has not begun"
    standing = live.standing(AT, {"job-1": AT})
    assert (standing.verdict, standing.decided) == ("pass", True)


def test_a_later_attempt_begins_anew() -> None:
    live = live_of({"metric": "network.latency", "max": "150ms"})
    live.feed(arrived([0.2]))
    assert live.standing(AT, {}).verdict == "fail"
    live.feed(arrived([0.1], attempt=2))
    assert live.standing(AT, {}).verdict == "pass"
    live.feed(arrived([0.2], attempt=1))
    assert live.standing(AT, {}).verdict == "pass", "a late one of the first attempt"


def test_the_last_stretch_forgets_what_is_older() -> None:
    live = live_of({"metric": "network::latency::max", "max": "150ms", "window": {"last": "3s"}})
    live.feed(arrived([0.2] + [0.1] * 9))
    standing = live.standing(AT + 9 * SECOND, {"job-1": AT})
    assert (standing.verdict, standing.decided) == ("pass", False)


def test_silence_is_seen_by_the_clock() -> None:
    live = live_of({"metric": "network.latency", "silence": "5s"})
    live.feed(arrived([0.1] * 3))
    jobs = {"job-1": AT}
    assert live.standing(AT + 6 * SECOND, jobs).verdict == "pass"
    standing = live.standing(AT + 8 * SECOND, jobs)
    assert (standing.verdict, standing.decided) == ("fail", False), "a late sample may fill it"


def test_a_guard_of_a_job_can_look_at_its_own_samples_only() -> None:
    live = live_of({"metric": "network::latency::count", "min": 3, "scope": "job"})
    live.feed(arrived([0.1] * 3, job="job-1"))
    live.feed(arrived([0.1], job="job-2"))
    assert live.standing(AT, {}, "job-1").verdict == "pass"
    assert live.standing(AT, {}, "job-2").verdict == "fail"
    assert live.standing(AT, {}, "job-3").verdict is None
