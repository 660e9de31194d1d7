from hypothesis import given, strategies as st

from tests.support.builders import TestLab, a_plan, a_spec
from tshrag_common.ids import Fence
from tshrag_controller.core.retry import JITTER_RATIO, MOST_S, REFUSALS, backoff_s


@given(st.integers(1, 10_000), st.integers(0, 2**62))
def test_pauses_grow_to_a_limit_and_vary_by_a_fifth(faults: int, fence: int) -> None:
    plain = min(MOST_S, 2.0 ** min(faults, 16))
    pause = backoff_s(faults, Fence(fence))
    assert plain * (1 - JITTER_RATIO) <= pause <= plain * (1 + JITTER_RATIO)
    assert pause == backoff_s(faults, Fence(fence)), "a replay finds the same"


def test_pauses_of_different_attempts_differ() -> None:
    assert len({backoff_s(5, Fence(number)) for number in range(50)}) > 40


def test_a_load_that_kills_every_agent_is_an_error_after_its_attempts() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan((), spec=a_spec(attempts=3)))
    for number in (1, 2, 3):
        assert lab.lab.jobs[lab.job(run)].attempts == number
        lab.ended(lab.fence(run), "error")
        lab.pass_time(40)
    assert lab.lab.runs[run].state == "error"


def test_refusals_are_no_attempts_but_there_is_an_end_to_them() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan((), spec=a_spec(attempts=1)))
    for _ in range(REFUSALS - 1):
        lab.ended(lab.fence(run), "refused")
        assert lab.state(run) == "waiting"
        lab.pass_time(2)
    lab.ended(lab.fence(run), "refused")
    assert lab.lab.runs[run].state == "error"


def test_a_failure_is_no_reason_to_try_again() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan((), spec=a_spec(attempts=3)))
    lab.ended(lab.fence(run), "failed")
    assert lab.lab.runs[run].state == "failed"
