import pytest

from tshrag_common.errors import ErrorReport
from tshrag_common.reports import BoardClock
from tshrag_common.views import AttemptView
from tshrag_controller.reports.notes import clock, notes


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, ""),
        (BoardClock(error_us=3_000, readings=1), "right to within 3ms, 1 reading"),
        (
            BoardClock(offset_us=3_600_000_000, error_us=12_000, readings=4, jumps=1, aligned=7),
            "1h behind to within 12ms, 4 readings, 1 jump, 7 samples moved",
        ),
        (
            BoardClock(offset_us=-1_500_000, error_us=500_000, readings=2, aligned=1),
            "1.5s ahead to within 500ms, 2 readings, 1 sample moved",
        ),
    ],
)
def test_a_clock_is_told_in_words(found: BoardClock | None, words: str) -> None:
    assert clock(found) == words


def test_the_notes_of_an_attempt_tell_a_clock_that_was_wrong_and_no_other() -> None:
    view = AttemptView(
        number=1, fence=1, agent="a1", dut="pi", state="ended", notices=("a.b: 1 x late",),
        error=ErrorReport(code="exit", message="exit code 1"), clock=BoardClock(readings=3),
    )  # fmt: skip
    assert notes(view) == "exit code 1; a.b: 1 x late"
    wrong = BoardClock(offset_us=2_000_000, error_us=1_000, readings=3, jumps=0)
    view = AttemptView(number=1, fence=1, agent="a1", dut="pi", state="ended", clock=wrong)
    assert notes(view) == "clock of pi: 2s behind to within 1ms, 3 readings"
