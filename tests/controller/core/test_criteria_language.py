"""What the words of the criteria language mean: for, over, silence, absent, vs, across, logic."""

import math
import statistics as oracle
from collections.abc import Mapping, Sequence

import msgspec
import pytest
from hypothesis import given, strategies as st

from tests.controller.core.test_criteria import AT, LATENCY, SECOND, a_source
from tshrag_common.criteria import Criterion, Evidence
from tshrag_common.criteria_compile import compile_criterion
from tshrag_common.errors import Invalid
from tshrag_common.metrics import MetricInfo
from tshrag_controller.core.criteria import Source, judge

OTHER = MetricInfo(key="net.other", unit="ms")
TEMPERATURE = MetricInfo(key="cpu.temp", unit="V")


def asked(
    fields: Mapping[str, object],
    sources: Sequence[Source],
    expected: Sequence[str] = (),
    baseline: Sequence[Source] | None = None,
) -> Evidence:
    criterion = compile_criterion("c", msgspec.convert(fields, Criterion), [LATENCY, OTHER])
    return judge(criterion, sources, expected, baseline)


def every(**fields: object) -> dict[str, object]:
    return {"metric": "network.latency", **fields}


# for ------------------------------------------------------------------------------------------


def test_a_spike_is_forgiven_that_does_not_last() -> None:
    source = a_source([0.1, 0.2, 0.2, 0.1, 0.2, 0.1])
    found = asked(every(max="150ms", **{"for": "3s"}), [source])
    assert found.verdict == "pass", found.reason
    assert found.reason == (
        "network.latency was above max 150 ms for at most 2 s without a break, "
        "less than 3 s (6 samples)"
    )
    assert (found.value, found.bound, found.bound_name, found.unit) == (2, 3, "for", "s")
    assert found.margin == 1


def test_what_lasts_as_long_as_is_asked_fails() -> None:
    found = asked(every(max="150ms", **{"for": "2s"}), [a_source([0.1, 0.2, 0.2, 0.1])])
    assert found.verdict == "fail"
    assert "for at most 2 s without a break, 2 s or more is too long" in found.reason


def test_what_lasts_up_to_the_last_sample_counts_up_to_there() -> None:
    assert asked(every(max="150ms", **{"for": "2s"}), [a_source([0.2] * 3)]).verdict == "fail"
    assert asked(every(max="150ms", **{"for": "2s"}), [a_source([0.2] * 2)]).verdict == "pass"


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 6))
def test_for_is_what_a_walk_through_the_seconds_finds(bad: list[bool], least: int) -> None:
    longest = run = 0
    for second in range(len(bad) - 1):
        run = run + 1 if bad[second] else 0
        longest = max(longest, run)
    source = a_source([0.2 if each else 0.1 for each in bad])
    found = asked(every(max="150ms", **{"for": f"{least}s"}), [source])
    assert found.value == longest
    assert found.verdict == ("fail" if longest >= least else "pass")


# over -----------------------------------------------------------------------------------------


def test_a_statistic_over_stretches_finds_the_bad_minute_that_the_whole_hides() -> None:
    values = [0.1] * 50 + [0.3] * 10 + [0.1] * 60
    source = a_source(values, started_at=AT, ended_at=AT + 120 * SECOND)
    assert asked({"metric": "network::latency::avg", "max": "150ms"}, [source]).verdict == "pass"
    found = asked({"metric": "network::latency::avg", "max": "150ms", "over": "10s"}, [source])
    assert found.verdict == "fail"
    assert found.value is not None and math.isclose(found.value, 300)
    assert found.reason == (
        "avg of network.latency over 10 s is at worst 300 ms, above max 150 ms by 150 ms "
        "(12 stretches, 120 samples)"
    )


def test_a_stretch_without_samples_is_an_error() -> None:
    source = msgspec.structs.replace(
        a_source([0.1] * 3), times=[AT, AT + 1 * SECOND, AT + 29 * SECOND]
    )
    found = asked({"metric": "network::latency::avg", "max": "1s", "over": "10s"}, [source])
    assert found.verdict == "error"
    assert found.reason == "no samples of network.latency from 10 s to 20 s"


# silence and absent ---------------------------------------------------------------------------


def test_silence_counts_before_the_first_and_after_the_last_sample() -> None:
    source = a_source([0.1] * 5, started_at=AT - 7 * SECOND, ended_at=AT + 10 * SECOND)
    found = asked(every(silence="5s"), [source])
    assert found.verdict == "fail"
    assert found.reason == (
        "network.latency was silent for at most 7 s, above silence 5 s by 2 s (5 samples)"
    )
    late = msgspec.structs.replace(source, started_at=AT - SECOND)
    assert asked(every(silence="5s"), [late]).value == 6
    assert asked(every(silence="6s"), [late]).verdict == "pass"
    warm = asked(every(silence="6s", window={"after": "3s"}), [source])
    assert warm.verdict == "pass", "the warm-up may be silent"


def test_a_metric_that_never_came_was_silent_all_the_time() -> None:
    empty = a_source([], started_at=AT, ended_at=AT + 9 * SECOND)
    assert asked(every(silence="5s"), [empty]).verdict == "fail"
    assert asked(every(silence="5s"), []).verdict == "error"


def test_what_must_be_absent_is_not_there_or_fails_or_is_missing() -> None:
    assert asked(every(absent=True), []).reason == (
        "there are no samples of network.latency, as asked"
    )
    found = asked(every(absent=True), [a_source([1.0, 2.0])])
    assert (found.verdict, found.value) == ("fail", 2)
    lost = asked(every(absent=True), [a_source([], missing=3)])
    assert lost.verdict == "error", "they may have been of it"


# vs -------------------------------------------------------------------------------------------

AVG = {"metric": "network::latency::avg"}


def test_a_change_against_the_baseline_in_percent() -> None:
    fields = {**AVG, "vs": "baseline", "max_change": "5%"}
    found = asked(fields, [a_source([0.107] * 50)], baseline=[a_source([0.1] * 50)])
    assert found.verdict == "fail"
    assert found.value is not None and math.isclose(found.value, 7)
    assert (found.bound, found.unit, found.p_value) == (5, "%", 0.0)
    assert found.reason == (
        "avg of network.latency is 107 ms, the baseline has 100 ms: +7%, above max 5% by 2% "
        "(50 and 50 samples, p = 0)"
    )
    less = asked(fields, [a_source([0.05] * 50)], baseline=[a_source([0.1] * 50)])
    assert less.verdict == "pass", "only what grew was asked for"


def test_a_change_that_may_be_chance_passes_and_says_so() -> None:
    now = [0.1, 0.2, 0.15, 0.12, 0.19, 0.11, 0.16, 0.18, 0.13, 0.21]
    before = [0.11, 0.17, 0.14, 0.10, 0.19, 0.12, 0.13, 0.18, 0.12, 0.17]
    fields = {**AVG, "vs": "baseline", "max_change": "5%", "significance": 0.01}
    found = asked(fields, [a_source(now)], baseline=[a_source(before)])
    assert (found.verdict, found.marginal) == ("pass", True)
    assert found.reason.endswith("; not significant at 0.01")
    assert found.p_value is not None and found.p_value > 0.01
    few = asked(fields, [a_source([0.3])], baseline=[a_source([0.1])])
    assert few.verdict == "error" and "do not suffice to test a change" in few.reason
    sure = asked(fields, [a_source([v + 0.2 for v in now])], baseline=[a_source(before)])
    assert sure.verdict == "fail"


def test_a_change_in_units_against_another_metric() -> None:
    other = a_source([0.1] * 4, key="net.other")
    fields = {**AVG, "vs": "net::other::max", "max_change": "5ms", "min_change": "-5ms"}
    assert asked(fields, [a_source([0.104] * 4), other]).verdict == "pass"
    found = asked(fields, [a_source([0.12] * 4), other])
    assert found.verdict == "fail" and "net.other has 100 ms: +20 ms" in found.reason
    assert asked(fields, [a_source([0.104] * 4)]).reason == (
        "net.other has no samples to compare with"
    )
    gap = msgspec.structs.replace(other, missing=2)
    assert asked(fields, [a_source([0.104] * 4), gap]).verdict == "error"


def test_no_baseline_is_an_error_unless_it_may_be_missing() -> None:
    fields: dict[str, object] = {**AVG, "vs": "baseline", "max_change": "5%"}
    found = asked(fields, [a_source([0.1])])
    assert found.verdict == "error" and found.reason.startswith("there is no baseline")
    first = asked({**fields, "without_baseline": "pass"}, [a_source([0.1])])
    assert (first.verdict, first.marginal) == ("pass", True)
    zero = asked(fields, [a_source([0.1])], baseline=[a_source([0.0])])
    assert zero.verdict == "error" and "a change in percent says nothing" in zero.reason


def test_groups_are_compared_with_their_counterparts() -> None:
    fields = {**AVG, "vs": "baseline", "max_change": "5%", "scope": "job"}
    now = [a_source([0.1] * 9, job="job-b-001"), a_source([0.2] * 9, job="job-b-002")]
    before = [a_source([0.1] * 9, job="job-a-001"), a_source([0.2] * 9, job="job-a-002")]
    assert asked(fields, now, baseline=before).counts == {"pass": 2}
    assert asked(fields, now, baseline=before[:1]).counts == {"pass": 1, "error": 1}


# across ---------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.floats(0.01, 5), min_size=1, max_size=6), min_size=2, max_size=5))
def test_the_spread_across_duts_is_that_of_their_means(boards: list[list[float]]) -> None:
    sources = [a_source(values, dut=f"d{n}") for n, values in enumerate(boards)]
    found = asked({**AVG, "scope": "dut", "across": "spread", "max": "1s"}, sources)
    means = [oracle.fmean(values) for values in boards]
    spread = max(means) - min(means)
    assert found.value is not None
    assert math.isclose(found.value / 1000, spread, rel_tol=1e-9, abs_tol=1e-12)
    assert found.verdict == ("pass" if spread <= 1 + 1e-12 else "fail")
    assert len(found.groups) == len(boards)


def test_a_board_without_samples_is_an_error_across_boards() -> None:
    fields = {**AVG, "scope": "dut", "across": "spread", "max": "1s"}
    found = asked(fields, [a_source([0.1], dut="d1")], expected=("d1", "d2"))
    assert found.verdict == "error" and found.reason.startswith("dut d2: no samples")


# all, any, not --------------------------------------------------------------------------------

GOOD = {"metric": "network::latency::avg", "max": "1s"}
BAD = {"metric": "network::latency::avg", "max": "1ms"}
UNKNOWN = {"metric": "net::other::avg", "max": "1s"}


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"all": [GOOD, GOOD]}, "pass"),
        ({"all": [GOOD, BAD]}, "fail"),
        ({"all": [UNKNOWN, BAD]}, "fail"),
        ({"all": [UNKNOWN, GOOD]}, "error"),
        ({"any": [BAD, GOOD]}, "pass"),
        ({"any": [UNKNOWN, GOOD]}, "pass"),
        ({"any": [UNKNOWN, BAD]}, "error"),
        ({"any": [BAD, BAD]}, "fail"),
        ({"not": BAD}, "pass"),
        ({"not": GOOD}, "fail"),
        ({"not": UNKNOWN}, "error"),
        ({"not": {"any": [BAD, {"all": [GOOD, BAD]}]}}, "pass"),
    ],
)
def test_criteria_over_criteria_in_three_values(fields: dict[str, object], verdict: str) -> None:
    found = asked(fields, [a_source([0.1] * 3)])
    assert found.verdict == verdict, found.reason
    assert found.parts


# refused at submit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (every(max=1, silence="5s"), "bounds: criteria.c: 'bounds' and 'silence' in one"),
        (every(max=1, **{"for": "5s"}, stat="avg"), "statistic: criteria.c.for"),
        ({**AVG, "vs": "baseline"}, "bounds: criteria.c: vs without a bound"),
        ({**AVG, "max": 1, "max_change": "5%"}, "bounds: criteria.c: a change against what?"),
        (every(vs="baseline", max_change="5%"), "statistic: criteria.c: a change of what?"),
        (
            {**AVG, "vs": "baseline", "max_change": "5%", "min_change": "-1ms"},
            "unit: criteria.c: changes in percent and in units",
        ),
        ({**AVG, "max": 1, "across": "spread"}, "bounds: criteria.c.across: across what?"),
        ({**AVG, "max": 1, "over": "0s"}, "range: criteria.c.over"),
        ({"all": [GOOD], "max": 3}, "bounds: criteria.c: max beside 'all'"),
        ({"any": [{"metric": "network::latency::avg", "max": "3V"}]}, "unit: criteria.c.any[0]"),
        (
            {"not": {"not": {"not": {"not": {"not": GOOD}}}}},
            "too_deep: criteria.c.not.not.not.not: limit 4",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object], line: str) -> None:
    with pytest.raises(Invalid) as refused:
        asked(fields, [])
    lines = [str(problem) for problem in refused.value.problems]
    assert any(each.startswith(line) for each in lines), lines
