import math
import statistics as oracle
from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given, strategies as st

from tshrag_common.criteria import MAX_GROUPS, Criterion, Evidence
from tshrag_common.criteria_compile import compile_criterion
from tshrag_common.metrics import MetricInfo
from tshrag_controller.core.criteria import Source, judge

AT = 1_790_000_000_000_000
SECOND = 1_000_000
LATENCY = MetricInfo(key="network.latency", unit="ms")


def a_source(values: Sequence[float], **changes: object) -> Source:
    source = Source(
        key="network.latency",
        times=[AT + n * SECOND for n in range(len(values))],
        values=values,
        unit="ms",
        job="job-1",
        dut="rpi4",
        host="h1",
    )
    return msgspec.structs.replace(source, **changes)


def judged(*sources: Source, expected: Sequence[str] = (), **fields: object) -> Evidence:
    criterion = msgspec.convert({"metric": "network::latency::avg", **fields}, Criterion)
    return judge(compile_criterion("latency", criterion, [LATENCY]), sources, expected)


def test_the_example_fails_with_a_sentence() -> None:
    found = judged(a_source([0.182] * 240), max="150ms")
    assert found.verdict == "fail"
    assert found.reason == (
        "avg of network.latency is 182 ms, above max 150 ms by 32 ms (240 samples)"
    )
    assert (found.value, found.bound, found.bound_name, found.unit) == (182, 150, "max", "ms")
    assert found.margin is not None and math.isclose(found.margin, -32)
    assert (found.samples, found.first_at_us, found.last_at_us) == (240, AT, AT + 239 * SECOND)


def test_the_example_passes_with_a_sentence() -> None:
    found = judged(a_source([0.120] * 240), max="150ms")
    assert (found.verdict, found.marginal) == ("pass", False)
    assert found.reason == (
        "avg of network.latency is 120 ms, below max 150 ms by 30 ms (240 samples)"
    )


def test_limits_are_inclusive_even_after_rounding() -> None:
    found = judged(a_source([0.15] * 7777), max="150ms")
    assert found.verdict == "pass"
    assert found.reason.startswith("avg of network.latency is 150 ms, right at max 150 ms")


def test_a_warn_band_makes_a_pass_marginal() -> None:
    found = judged(a_source([0.145]), max="150ms", warn_max="140ms")
    assert (found.verdict, found.marginal, found.bound_name) == ("pass", True, "warn_max")
    assert found.reason == (
        "avg of network.latency is 145 ms, above warn_max 140 ms by 5 ms, "
        "which still passes (1 sample)"
    )


def test_a_criterion_without_statistic_asks_of_every_sample() -> None:
    found = judged(a_source([0.1, 0.2, 0.16]), metric="network.latency", max=150)
    assert found.verdict == "fail"
    assert found.reason == (
        "network.latency is at worst 200 ms, above max 150 ms by 50 ms (2 of 3 samples)"
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (a_source([]), "no samples of network.latency were stored; does the load emit that key?"),
        (a_source([0.1, math.nan]), "samples of network.latency are not all numbers"),
        (a_source([0.1, math.inf]), "samples of network.latency are not all numbers"),
        (a_source([0.1], missing=3), "3 samples of network.latency are missing"),
        (
            a_source([0.1], stale="no answer since 12:00"),
            "samples of network.latency are stale: no answer since 12:00",
        ),
        (
            a_source([0.1], unit="MB"),
            "network.latency was stored in MB, max is a time",
        ),
        (
            a_source([0.1], unit=""),
            "network.latency was stored in no unit, max is a time; "
            "declare its unit in load.toml or write it behind the value",
        ),
        (a_source([0.1], times=[]), "network.latency has 0 times, 1 values"),
    ],
)
def test_what_cannot_be_judged_is_an_error_and_never_a_pass(source: Source, reason: str) -> None:
    found = judged(source, max="150ms")
    assert (found.verdict, found.marginal, found.reason) == ("error", False, reason)
    assert found.value is None


def test_no_source_at_all_is_an_error() -> None:
    assert judged(max="150ms").verdict == "error"
    assert judged(max="150ms", scope="job").verdict == "error"
    assert judged(a_source([0.1], key="other.key"), max="150ms").verdict == "error"


def test_two_units_of_one_key_are_an_error() -> None:
    found = judged(a_source([0.1]), a_source([0.1], unit="s"), max="150ms")
    assert found.reason == "network.latency was stored as gauge in ms and gauge in s"


def test_a_statistic_that_needs_more_samples_is_an_error() -> None:
    found = judged(a_source([0.1]), metric="network.latency.stdev", max="150ms")
    assert found.reason == "stdev of network.latency needs more than 1 sample"


def test_a_window_chooses_the_samples() -> None:
    source = a_source([float(n) for n in range(100)], started_at=AT - 5 * SECOND)
    count = "network.latency.count"
    assert judged(source, metric=count, min=0, window={"after": "15s"}).value == 90
    assert judged(source, metric=count, min=0, window={"before": "15s"}).value == 11
    assert judged(source, metric=count, min=0, window={"last": "9s"}).value == 10
    found = judged(source, max="1s", window={"after": "10m"})
    assert found.verdict == "error"
    assert found.reason == "no samples of network.latency lie in the window (100 outside)"


def test_a_sample_that_lasts_into_the_window_counts() -> None:
    source = a_source([1.0, 2.0], durations=[10 * SECOND, 0], started_at=AT)
    found = judged(source, metric="network.latency.count", min=0, window={"after": "5s"})
    assert found.value == 1


def test_a_key_that_ends_like_a_statistic_is_judged_whole_where_it_has_samples() -> None:
    criterion = compile_criterion("x", Criterion(metric="disk.max", max=5))
    source = Source(key="disk.max", times=[AT], values=[6.0])
    assert judge(criterion, [source]).reason == (
        "disk.max is at worst 6, above max 5 by 1 (1 of 1 sample)"
    )
    plain = Source(key="disk", times=[AT], values=[4.0])
    assert judge(criterion, [plain]).reason.startswith("max of disk is 4, below max 5 by 1")


def test_a_bare_bound_is_in_the_unit_that_the_samples_came_with() -> None:
    criterion = compile_criterion("x", Criterion(metric="net.delay.avg", max=150))
    source = Source(key="net.delay", times=[AT], values=[0.16], unit="ms")
    assert judge(criterion, [source]).reason == (
        "avg of net.delay is 160 ms, above max 150 ms by 10 ms (1 sample)"
    )


def test_counters_of_several_sources_add_up() -> None:
    def counting(values: list[float], **changes: object) -> Source:
        return a_source(values, type="counter", unit="", key="errors", **changes)

    sources = [counting([0, 5]), counting([0, 0], job="job-2")]
    last = compile_criterion("x", Criterion(metric="errors.last", equals=0))
    assert judge(last, sources).reason == "last of errors is 5, not 0: off by 5 (4 samples)"
    rate = compile_criterion("x", Criterion(metric="errors.rate", max="4/s"))
    assert judge(rate, sources).value == 5


def test_the_worst_job_decides_and_every_job_is_told() -> None:
    sources = [a_source([value], job=f"job-{n}") for n, value in enumerate([0.1, 0.2, 0.16])]
    found = judged(*sources, max="150ms", scope="job")
    assert (found.verdict, found.group) == ("fail", "job-1")
    assert found.reason == (
        "job job-1: avg of network.latency is 200 ms, above max 150 ms by 50 ms (1 sample); "
        "of 3 jobs: 2 fail, 1 pass"
    )
    assert [each.group for each in found.groups] == ["job-1", "job-2", "job-0"]


def test_a_job_without_samples_is_an_error_beside_jobs_that_pass() -> None:
    found = judged(a_source([0.1]), max="150ms", scope="job", expected=["job-1", "job-2"])
    assert (found.verdict, found.group) == ("error", "job-2")
    assert found.reason.endswith("of 2 jobs: 1 error, 1 pass")


def test_a_failure_stays_one_when_another_job_has_no_samples() -> None:
    found = judged(a_source([0.2]), max="150ms", scope="job", expected=["job-2"])
    assert found.verdict == "fail"


def test_evidence_is_bounded() -> None:
    sources = [a_source([0.2], job=f"job-{n:03d}") for n in range(300)]
    found = judged(*sources, max="150ms", scope="job")
    assert len(found.groups) == MAX_GROUPS
    assert found.counts == {"fail": 300}


# A brute-force oracle: the words of the documentation, said the slow way.

values = st.floats(min_value=-1000, max_value=1000).map(lambda x: round(x, 3))
groups = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.lists(values, min_size=0, max_size=12), max_size=3
)
RANK = ["fail", "error", "marginal", "pass"]


def brute_number(name: str, numbers: list[float]) -> float | None:
    if not numbers or (name == "stdev" and len(numbers) < 2):
        return None
    slow: dict[str, Callable[[list[float]], float]] = {
        "avg": oracle.fmean,
        "min": min,
        "max": max,
        "sum": math.fsum,
        "median": oracle.median,
        "count": len,
        "stdev": oracle.stdev,
        "last": lambda given_: given_[-1],
    }
    return float(slow[name](numbers))


def brute(name: str, numbers: list[float], low: float, high: float, warn: float) -> str:
    tested = numbers if name == "every" else [brute_number(name, numbers)]
    if not tested or None in tested:
        return "error"
    known = [number for number in tested if number is not None]
    if any(number < low or number > high for number in known):
        return "fail"
    return "marginal" if any(number > warn for number in known) else "pass"


def word(evidence: Evidence) -> str:
    return "marginal" if evidence.marginal else evidence.verdict


@given(
    groups,
    st.sampled_from(["avg", "min", "max", "sum", "median", "count", "stdev", "last", "every"]),
    st.tuples(values, values, values).map(sorted),
)
def test_verdicts_are_those_of_a_brute_force_oracle(
    given_: dict[str, list[float]], name: str, limits: list[float]
) -> None:
    low, warn, high = limits
    criterion = Criterion(metric="m", stat=name, min=low, max=high, warn_max=warn, scope="job")
    compiled = compile_criterion("x", criterion)
    sources = [a_source(numbers, key="m", unit="", job=job) for job, numbers in given_.items()]
    slow = {job: brute(name, numbers, low, high, warn) for job, numbers in given_.items()}
    numbers = [brute_number(name, each) for each in given_.values() if name != "every"]
    if any(n is not None and abs(n - limit) < 1e-9 for n in numbers for limit in limits):
        return  # so near that the oracle's own rounding decides
    found = judge(compiled, sources)
    assert word(found) == min(slow.values() or ["error"], key=RANK.index)
    assert {each.group: word(each) for each in found.groups if each.group} == slow
    assert judge(compiled, sources[::-1]) == found


@given(groups, st.integers(0, 2**32))
def test_bad_data_in_any_group_never_lets_a_run_pass(
    given_: dict[str, list[float]], where: int
) -> None:
    sources = [a_source(numbers, key="m", unit="", job=job) for job, numbers in given_.items()]
    bad = [
        a_source([math.nan], key="m", unit="", job="z"),
        a_source([], key="m", unit="", job="z"),
        a_source([1.0], key="m", unit="", job="z", stale="gone"),
        a_source([1.0], key="m", unit="", job="z", missing=1),
    ][where % 4]
    sources.insert(where % (len(sources) + 1), bad)
    for scope in ("run", "job", "dut", "host"):
        wide = msgspec.convert({"metric": "m", "max": 1e9, "min": -1e9, "scope": scope}, Criterion)
        found = judge(compile_criterion("x", wide), sources)
        if scope == "job" or where % 4 != 1:
            assert found.verdict == "error"


@given(st.lists(values, min_size=1, max_size=20), values, values)
def test_evidence_adds_up(numbers: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    criterion = Criterion(metric="m", stat="avg", min=low, max=high)
    found = judge(compile_criterion("x", criterion), [a_source(numbers, key="m", unit="")])
    assert found.value is not None and found.bound is not None and found.margin is not None
    far = found.value - found.bound if found.bound_name == "min" else found.bound - found.value
    assert math.isclose(far, found.margin, rel_tol=1e-9, abs_tol=1e-9)
    assert (found.margin >= 0) == (found.verdict == "pass")
