import msgspec
import pytest
from hypothesis import given, strategies as st

from tshrag_common.criteria import (
    EVERY,
    MAX_CRITERIA,
    CompiledBound,
    CompiledCriterion,
    Criterion,
    Evidence,
)
from tshrag_common.criteria_compile import compile_criteria, compile_criterion
from tshrag_common.errors import Invalid
from tshrag_common.metrics import MetricInfo

LATENCY = MetricInfo(key="network.latency", unit="ms")

NOTHING_ASKED = (
    "bounds: criteria.latency: nothing that could fail is asked; give min, max, equals or in"
)
KNOWN = (
    "known: num sum avg min max count first last median stdev rate slope spread hist "
    "p50 p95 p99 p99.9 (any pNN or pNN.N)"
)


def written(**fields: object) -> Criterion:
    return msgspec.convert({"metric": "network::latency::avg", **fields}, Criterion)


def compiled(*known: MetricInfo, **fields: object) -> CompiledCriterion:
    return compile_criterion("latency", written(**fields), known)


def lines(*known: MetricInfo, **fields: object) -> list[str]:
    with pytest.raises(Invalid) as refused:
        compiled(*known, **fields)
    return [str(problem) for problem in refused.value.problems]


def bound(name: str, number: float, dimension: str | None) -> CompiledBound:
    return msgspec.convert({"name": name, "number": number, "dimension": dimension}, CompiledBound)


def test_the_criterion_of_the_example_compiles_without_a_declaration() -> None:
    found = compiled(max="150ms")
    assert (found.key, found.statistic, found.whole) == (
        "network.latency",
        "avg",
        "network.latency.avg",
    )
    assert found.bounds == (bound("max", 0.15, "time"),)
    assert found.keys == ("network.latency", "network.latency.avg")


def test_a_bare_number_is_in_the_declared_unit() -> None:
    found = compiled(LATENCY, max=150)
    assert found.bounds == (bound("max", 0.15, "time"),)
    assert found.unit == "ms"


def test_a_bare_number_without_a_declaration_waits_for_the_samples() -> None:
    assert compiled(max=150).bounds == (bound("max", 150, None),)
    assert compiled(max=150, unit="ms").bounds == (bound("max", 0.15, "time"),)


def test_a_key_that_is_declared_is_no_statistic() -> None:
    found = compiled(MetricInfo(key="disk.max", unit="MB"), metric="disk::max", max="5GB")
    assert (found.key, found.statistic, found.whole) == ("disk.max", EVERY, "")


def test_a_statistic_of_its_own_leaves_the_key_whole() -> None:
    found = compiled(metric="disk.max", stat="p99.9", max=5)
    assert (found.key, found.statistic, found.whole) == ("disk.max", "p99.9", "")


def test_count_and_rate_have_units_of_their_own() -> None:
    assert compiled(LATENCY, metric="network.latency.count", min=10).unit == ""
    traffic = MetricInfo(key="net.sent", unit="MB", type="counter")
    found = compiled(traffic, metric="net.sent.rate", min="10Mbps")
    assert found.bounds == (bound("min", 1.25e6, "data rate"),)
    assert found.unit == "MB/s"


def test_a_range_is_two_bounds_and_warn_bands_lie_inside() -> None:
    found = compiled(**{"in": ["4.9V", "5.1V"], "warn_max": "5.05V"})
    assert [each.name for each in found.bounds] == ["min", "max", "warn_max"]


def test_a_window_is_microseconds() -> None:
    found = compiled(max=1, window={"after": "30s", "before": "10m", "last": 60})
    assert (found.after_us, found.before_us, found.last_us) == (30_000_000, 600_000_000, 60_000_000)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"max": "5MB"},
         "unit: criteria.latency.max: '5MB' is a size, avg of network.latency is in ms"),
        ({"max": "5 mss"},
         "unit: criteria.latency.max: 'mss' is no unit; nearest: ms, msg/s, msg"),
        ({"max": 1, "unit": "MB"},
         "unit: criteria.latency.unit: 'MB' is a size, avg of network.latency is in ms"),
        ({}, NOTHING_ASKED),
        ({"warn_max": 5}, NOTHING_ASKED),
        ({"min": "1s", "max": "1ms"}, "bounds: criteria.latency: min is above max"),
        ({"max": 1, "warn_max": 2}, "bounds: criteria.latency: warn_max is above max"),
        ({"max": 1, "equals": 2}, "bounds: criteria.latency: equals excludes min, max and in"),
        ({"max": 1, "stat": "hist"},
         "statistic: criteria.latency.stat: hist is not one number to be bounded"),
        ({"max": 1, "stat": "p101"},
         f"statistic: criteria.latency.stat: 'p101' is no statistic; {KNOWN}"),
        ({"max": 1, "metric": "network::latency::average"},
         f"statistic: criteria.latency.metric: 'average' is no statistic; {KNOWN}"),
        ({"max": 1, "metric": "network latency"},
         "metric_key: criteria.latency.metric: 'network latency' is no metric key; "
         "use segments of a-z, 0-9 and '_' joined by '.' or '::'"),
        ({"max": 1, "window": {"after": "soon"}},
         "type: criteria.latency.window.after: expected a duration like '10m', got 'soon'"),
        ({"max": 1, "window": {"after": "10m", "before": "5m"}},
         "range: criteria.latency.window: after is not before 'before'"),
        ({"min": 3, "in": [1, 5]},
         "bounds: criteria.latency.in[0]: min is given twice; use either 'in' or it"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused_at_submit(fields: dict[str, object], line: str) -> None:
    assert line in lines(LATENCY, **fields)


def test_bounds_of_different_kinds_are_refused_where_nothing_declares_the_metric() -> None:
    assert lines(min=1, max="5s") == [
        "unit: criteria.latency: bounds of different kinds: a bare number, time; "
        "give every bound a unit of one dimension"
    ]
    assert compiled(min=0, max="5s").bounds[0].number == 0  # zero is zero in every unit


def test_all_problems_of_all_criteria_are_named_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        compile_criteria({"a": written(max="1m", min="1 foo"), "b": written(metric="x y", max=1)})
    assert [problem.where for problem in refused.value.problems] == [
        "criteria.a.min",
        "criteria.a.max",
        "criteria.b.metric",
    ]


def test_criteria_are_bounded() -> None:
    many = {f"c{n}": written(max=1) for n in range(MAX_CRITERIA + 1)}
    with pytest.raises(Invalid, match="limit: criteria: 201 criteria > 200"):
        compile_criteria(many)


@pytest.mark.parametrize(
    "fields", [{"max": True}, {"maximum": 5}, {"in": [1]}, {"scope": "lab"}, {"window": {"x": 1}}]
)
def test_the_model_is_strict(fields: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        written(**fields)


def test_criteria_and_evidence_cross_a_wire() -> None:
    criterion = written(**{"in": ["1ms", 5], "window": {"after": "5s"}})
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(criterion), type=Criterion)
    assert again == criterion
    part = Evidence(
        criterion="a", metric="b", statistic="avg", verdict="fail", reason="because", group="job-1"
    )
    whole = msgspec.structs.replace(part, groups=(part,), counts={"fail": 1})
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Evidence) == whole


bounds = st.one_of(st.text(max_size=12), st.floats(allow_nan=False), st.integers(-5, 5))


@given(
    st.fixed_dictionaries(
        {"metric": st.sampled_from(["network.latency.avg", "Net/X", "a.rate", "a b", "x.y"])},
        optional={
            "stat": st.sampled_from(["", "avg", "p99", "hist", "x", "every"]),
            "min": bounds,
            "max": bounds,
            "equals": bounds,
            "warn_max": bounds,
            "unit": st.text(max_size=5),
            "window": st.fixed_dictionaries({"after": bounds}),
        },
    )
)
def test_whatever_is_written_compiles_or_is_refused(fields: dict[str, object]) -> None:
    criterion = msgspec.convert(fields, Criterion)
    try:
        assert compile_criterion("x", criterion, [LATENCY]).bounds
    except Invalid as refused:
        assert all(problem.where.startswith("criteria") for problem in refused.problems)
