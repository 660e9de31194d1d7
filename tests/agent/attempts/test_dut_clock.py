"""The clock of a DUT: bounds that hold, jumps that are seen, times that land where they were."""

from hypothesis import given, settings, strategies as st

from tshrag_agent.attempts.dut_clock import MOST_POINTS, DutClock

S = 1_000_000
NOW = 1_790_000_000 * S
HOUR = 3600 * S


def test_a_clock_that_may_be_right_is_left_alone() -> None:
    clock = DutClock()
    clock.read(NOW, 1, NOW - 2_000, NOW + 3_000)
    assert clock.place(NOW + 5, NOW + 10) == NOW + 5
    report = clock.report()
    assert report is not None
    assert (report.offset_us, report.error_us, report.aligned) == (0, 3000, 0)


def test_a_board_that_stands_at_1970_gives_right_times() -> None:
    clock = DutClock()
    clock.read(12 * S, 1, NOW, NOW + 4_000)
    placed = clock.place(13 * S, NOW + S)
    assert placed is not None and abs(placed - (NOW + S)) <= 4_000
    report = clock.report()
    assert report is not None and report.aligned == 1
    assert abs(report.offset_us - (NOW - 12 * S)) <= 4_000


def test_whole_seconds_get_better_with_every_reading() -> None:
    clock, offset = DutClock(), 5 * HOUR + 123_456
    for number in range(12):
        at = NOW + number * 1_370_000
        board = (at - offset) // S * S
        clock.read(board, S, at - 2_000, at + 2_000)
    report = clock.report()
    assert report is not None and report.jumps == 0
    assert abs(report.offset_us - offset) <= report.error_us < 150_000


def test_a_slow_line_does_not_spoil_a_quick_reading() -> None:
    clock, offset = DutClock(), -HOUR
    clock.read(NOW - offset, 1, NOW - 1_000, NOW + 1_000)
    clock.read(NOW + S - offset, 1, NOW + S - 900_000, NOW + S + 900_000)
    report = clock.report()
    assert report is not None and report.error_us < 1_500
    assert abs(report.offset_us - offset) <= 1_001


def test_samples_around_a_jump_wait_and_land_on_their_own_side() -> None:
    clock = DutClock()
    clock.read(10 * S, 1, NOW, NOW + 1_000)  # 1970
    before, after = 14 * S, NOW + 6 * S  # at NOW + 5 s somebody sets it right
    assert clock.place(before, NOW + 4 * S) is not None
    assert clock.place(after, NOW + 6 * S) is None, "only the next reading can tell"
    clock.read(NOW + 7 * S, 1, NOW + 7 * S - 500, NOW + 7 * S + 500)
    assert abs(clock.nearest(after, NOW + 7 * S) - (NOW + 6 * S)) <= 1_000
    assert abs(clock.nearest(before, NOW + 7 * S) - (NOW + 4 * S)) <= 1_000
    report = clock.report()
    assert report is not None and report.jumps == 1


def test_drift_between_two_readings_is_on_the_line() -> None:
    clock = DutClock()
    for number in range(11):  # 100 millionths fast, read every 100 s
        at = NOW + number * 100 * S
        clock.read(at + HOUR + number * 10_000, 1, at - 500, at + 500)
    board = NOW + HOUR + 250 * S + 25_000
    assert abs(clock.nearest(board, NOW + 1000 * S) - (NOW + 250 * S)) < 3_000
    report = clock.report()
    assert report is not None and report.jumps == 0


def test_what_is_kept_is_bounded() -> None:
    clock = DutClock()
    for number in range(3 * MOST_POINTS):
        at = NOW + number * S
        clock.read(at - HOUR, 1, at - 500, at + 500)
    stretch = clock._stretches[0]
    assert len(clock._stretches) == 1 and len(stretch.boards) <= MOST_POINTS
    assert abs(clock.nearest(NOW - HOUR, NOW + HOUR) - NOW) <= 501


@settings(max_examples=200)
@given(
    offset=st.integers(-60 * 365 * 24 * HOUR, 60 * 365 * 24 * HOUR),
    trips=st.lists(
        st.tuples(st.integers(0, 400_000), st.integers(0, 400_000), st.booleans()),
        min_size=1,
        max_size=30,
    ),
    asked=st.integers(0, 60),
)
def test_the_true_offset_is_always_within_the_error(
    offset: int, trips: list[tuple[int, int, bool]], asked: int
) -> None:
    clock, now = DutClock(), NOW
    for there, back, coarse in trips:
        now += S
        said = now - offset
        if coarse:
            said = said // S * S
        clock.read(said, S if coarse else 1, now - there, now + back)
    report = clock.report()
    assert report is not None and report.jumps == 0
    assert abs(report.offset_us - offset) <= report.error_us + 1
    then = NOW + asked * S
    found = clock.nearest(then - offset, now)
    assert abs(found - then) <= 2 * S


@given(st.lists(st.integers(-5, 40), max_size=40))
def test_times_keep_their_order_whatever_the_order_of_asking(seconds: list[int]) -> None:
    clock = DutClock()
    for number in range(30):
        at = NOW + number * S
        clock.read(at - HOUR, 1, at - 500, at + 500)
    placed = {second: clock.nearest(NOW + second * S - HOUR, NOW + 40 * S) for second in seconds}
    assert [placed[second] for second in sorted(placed)] == sorted(placed.values())
    assert all(abs(at - NOW - second * S) <= 501 for second, at in placed.items())
