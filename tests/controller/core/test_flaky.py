"""Board or build?"""

import pytest

from tshrag_controller.core.flaky import Result, Tally, boards, judge

B1, B2 = "b1", "b2"


def results(*told: tuple[str, str, bool]) -> list[Result]:
    return [
        Result(dut, "smoke: boot", build, passed, at, f"run-{at}")
        for at, (dut, build, passed) in enumerate(told)
    ]


@pytest.mark.parametrize(
    ("here", "elsewhere", "others", "verdict"),
    [
        ((0, 3), (0, 2), (5, 0), "build"),  # it fails everywhere
        ((0, 3), (4, 0), (0, 2), "board"),  # it passes elsewhere, and all fails here
        ((0, 3), (4, 0), (0, 0), "board"),
        ((0, 2), (0, 0), (5, 0), "build"),  # everything else passes here
        ((3, 2), (0, 0), (0, 0), "flaky"),
        ((3, 2), (4, 0), (9, 0), "flaky"),  # now and then, and only here
        ((0, 1), (0, 0), (0, 0), "unknown"),  # a failure alone accuses nobody
        ((0, 1), (1, 1), (0, 0), "unknown"),
    ],
)
def test_who_is_to_blame(
    here: tuple[int, int], elsewhere: tuple[int, int], others: tuple[int, int], verdict: str
) -> None:
    assert judge(Tally(*here), Tally(*elsewhere), Tally(*others))[0] == verdict


def test_a_board_is_compared_with_the_others_by_test_and_build() -> None:
    found = boards(
        results((B1, "v1", False), (B2, "v1", True), (B1, "v2", False), (B2, "v2", True))
    )
    assert [(board.dut, board.passed, board.failed) for board in found] == [
        (B1, 0, 2), (B2, 2, 0),
    ]  # fmt: skip
    assert {each.verdict for each in found[0].suspicions} == {"board"}
    assert found[1].suspicions == ()


def test_flips_are_counted_within_a_test_of_a_build() -> None:
    told = [(B1, "v1", True), (B1, "v1", False), (B1, "v1", True), (B1, "v2", False)]
    (board,) = boards(results(*told))
    assert board.flips == 2
    assert {each.build: each.verdict for each in board.suspicions} == {
        "v1": "flaky", "v2": "unknown",
    }  # fmt: skip


def test_the_order_in_which_results_come_does_not_matter() -> None:
    told = results((B1, "v1", False), (B2, "v1", True), (B1, "v1", True))
    assert boards(told) == boards(list(reversed(told)))
