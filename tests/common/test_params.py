import pytest
from hypothesis import given, strategies as st

from tshrag_common.findings import Findings
from tshrag_common.params import Param, ParamType, fill

DECLARED = {
    "duration": Param(type="duration", default=60.0, min=1, max=3600),
    "count": Param(type="integer", required=True),
    "mode": Param(type="text", choices=("up", "down")),
}

types = st.sampled_from(
    ["text", "integer", "number", "boolean", "list", "mapping", "duration", "size", "any"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def filled(given: dict[str, object]) -> tuple[dict[str, object], list[str]]:
    findings = Findings()
    found = fill(DECLARED, given, ("params",), findings)
    return found, [str(problem) for problem in findings.problems]


def test_what_is_left_out_gets_its_default() -> None:
    assert filled({"count": 3}) == ({"count": 3, "duration": 60.0}, [])


def test_values_take_the_type_that_is_declared() -> None:
    found, problems = filled({"count": "3", "duration": "10m", "mode": "up"})
    assert found == {"count": 3, "duration": 600.0, "mode": "up"}
    assert not problems


def test_every_problem_of_the_parameters_is_named() -> None:
    _, problems = filled({"duraton": 1, "mode": "dwn", "duration": "2h"})
    assert problems == [
        "unknown_param: params.duraton; did you mean 'duration'?",
        "choice: params.mode: expected one of 'up', 'down', got 'dwn'; did you mean 'down'?",
        "range: params.duration: 1..3600, got 7200",
        "missing: params: Missing required parameter(s): count",
    ]


@pytest.mark.parametrize(
    ("type_", "given", "said"),
    [
        ("integer", 1.5, "expected a whole number, got 1.5"),
        ("integer", True, "expected a whole number, got a boolean"),
        ("number", "fast", "expected a number, got 'fast'"),
        ("boolean", "yes", "expected true or false, got 'yes'"),
        ("text", 5, "expected text, got 5"),
        ("list", {}, "expected a list, got a mapping"),
        ("size", "5 parsec", "'parsec' is no unit"),
        ("duration", [], "expected a duration like '10m', got a list"),
    ],
)
def test_a_wrong_type_is_said_in_words(type_: ParamType, given: object, said: str) -> None:
    findings = Findings()
    fill({"p": Param(type=type_)}, {"p": given}, (), findings)
    assert said in str(findings.problems[0])


def test_a_load_that_declares_nothing_takes_anything() -> None:
    findings = Findings()
    assert fill({}, {"a": [1]}, (), findings) == {"a": [1]}
    assert not findings.problems


@given(types, values)
def test_any_value_is_taken_or_refused(type_: ParamType, value: object) -> None:
    findings = Findings()
    found = fill({"p": Param(type=type_, min=0, choices=("a", 1))}, {"p": value}, (), findings)
    assert "p" in found
