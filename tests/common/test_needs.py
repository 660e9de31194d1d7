import pytest

from tshrag_common.findings import Findings
from tshrag_common.needs import needed_steps
from tshrag_common.schedule import Step
from tshrag_common.strict import convert


def problems(schedule: object) -> list[str]:
    findings = Findings()
    needed_steps(convert(schedule, Step, findings), (), findings)
    return [str(problem) for problem in findings.problems]


def step(name: str, *needs: str, **more: object) -> dict[str, object]:
    return {"name": name, "needs": list(needs), **(more or {"nop": None})}


def test_what_is_needed_is_found_by_its_name() -> None:
    tree = convert({"par": [step("a", "b"), step("b", seq=[step("c")])]}, Step, Findings())
    found = needed_steps(tree, (), Findings())
    assert found == {id(tree.steps[0]): (tree.steps[1],)}


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ({"par": [step("a", "b"), step("b", "c"), step("c", "a")]}, "a -> b -> c -> a"),
        ({"seq": [step("a", "b"), step("b")]}, "a -> b -> a"),
        ({"nop": None, "name": "a", "needs": ["a"]}, "a -> a"),
        (step("a", seq=[step("b", "a")]), "b -> a -> b"),
        (
            {"seq": [step("a", seq=[step("x", "y")]), step("b", seq=[step("y")])]},
            "x -> y -> b -> a -> x",
        ),
    ],
)
def test_steps_that_wait_for_each_other_are_a_circle(schedule: object, said: str) -> None:
    found = problems(schedule)
    assert len(found) == 1
    walked = found[0].removeprefix("cycle: ").split(" -> ")[1:]
    turned = [walked[n:] + walked[:n] for n in range(len(walked))]
    assert said.split(" -> ")[1:] in turned


def test_a_name_is_looked_for_in_the_same_copy_first() -> None:
    inner = {"repeat": {"times": 2, "of": {"seq": [step("a"), step("b", "a")]}}}
    assert problems({"seq": [step("a"), inner]}) == []


def test_what_is_inside_a_repeat_cannot_be_named_from_outside() -> None:
    inner = {"name": "r", "repeat": {"times": 2, "of": step("a")}}
    assert problems({"par": [inner, step("b", "a")]}) == [
        "unknown_dependency: par[1].needs[0]: 'a'; give that step a name"
    ]
    assert problems({"par": [inner, step("b", "r")]}) == []


def test_a_name_that_two_steps_have_is_ambiguous() -> None:
    assert problems({"par": [step("a"), step("a"), step("b", "a")]}) == [
        "ambiguous_dependency: par[2].needs[0]: 2 steps are named 'a'"
    ]
