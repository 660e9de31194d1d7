"""A run as it is watched."""

from rich.console import Console

from tests.support.run_reports import HOSTILE, T0, a_job, a_run, an_attempt
from tshrag_common.views import Moved, News
from tshrag_controller.cli.board import Board
from tshrag_controller.cli.follow import drawn, head_line, move_line

S = 1_000_000


def news(seq: int, *moved: Moved, state: str = "running", **counts: int) -> News:
    return News(seq=seq, at=T0 + seq * S, run="run", state=state, counts=counts, moved=moved)


def moved(state: str, job: str = "j1", **more: str) -> Moved:
    return Moved(job=job, name=more.pop("name", job), state=state, place="a1", **more)


def a_board() -> Board:
    board = Board()
    board.stands(a_run(state="running", total=3, ended_at=0, counts={"waiting": 3}))
    return board


def test_a_job_runs_from_its_start_on_not_from_its_assignment() -> None:
    board = a_board()
    board.hear(news(1, moved("assigned")))
    board.hear(news(5, moved("running")))
    board.hear(news(9, moved("collecting")))
    assert board.live["j1"].at == T0 + 5 * S
    assert board.live["j1"].moved.state == "collecting"


def test_a_job_that_has_ended_runs_no_more() -> None:
    board = a_board()
    board.hear(news(1, moved("running")))
    board.hear(news(2, moved("passed"), passed=1, waiting=2))
    assert board.live == {}
    assert (board.ended, board.total) == (1, 3)


def test_only_the_last_moves_are_kept() -> None:
    board = a_board()
    for seq in range(1, 100):
        board.hear(news(seq, moved("running", job=f"j{seq}")))
    assert len(board.last) == 8
    assert board.last[-1].moved.job == "j99"


def test_what_was_under_way_before_is_shown_with_its_start() -> None:
    board = a_board()
    board.seed([a_job(state="running", started_at=T0, attempts=(an_attempt(state="running"),))])
    assert [each.at for each in board.live.values()] == [T0]


def test_a_final_run_has_nothing_alive() -> None:
    board = a_board()
    board.hear(news(1, moved("running")))
    board.hear(news(2, state="cancelled", cancelled=3))
    assert board.is_final
    assert board.live == {}


def shown(board: Board) -> str:
    console = Console(width=100, force_terminal=True, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(drawn(board, T0 + 60 * S))
    return captured.get()


def test_the_screen_shows_counts_places_and_for_how_long() -> None:
    board = a_board()
    board.hear(news(5, moved("running", name="*seq.flash"), running=1, waiting=2))
    text = shown(board)
    assert "smoke" in text
    assert "0/3 jobs" in text
    assert "1 running" in text
    row = next(line for line in text.splitlines() if line.startswith("*seq.flash"))
    assert row.split()[-2:] == ["a1", "55s"]


def test_hostile_names_reach_the_screen_as_text() -> None:
    board = a_board()
    for seq, text in enumerate(HOSTILE, 1):
        board.hear(news(seq, moved("running", job=text, note=text)))
        assert "\x1b" not in move_line(board.last[-1])
        assert "\n" not in move_line(board.last[-1])
    assert "\x1b]" not in shown(board)
    assert "\u202e" not in shown(board)


def test_before_the_first_answer_it_says_so() -> None:
    assert head_line(Board(), T0).plain == "connecting"
