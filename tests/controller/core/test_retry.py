import pytest
from hypothesis import given, strategies as st

from tests.support.builders import TestLab, a_dut, a_plan, a_spec, board
from tshrag_common.errors import ErrorReport, Invalid
from tshrag_common.ids import Fence, RunId
from tshrag_common.jobs import JobSpec
from tshrag_common.reading import profile_of
from tshrag_common.reports import Outcome
from tshrag_controller.core.plan import plan
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


def a_lab_of_two_boards() -> TestLab:
    lab = TestLab()
    lab.hello(duts=[a_dut("b0"), a_dut("b1")])
    return lab


def dut_of(lab: TestLab, run: RunId) -> str:
    return str(lab.lab.attempts[lab.fence(run)].dut)


@pytest.mark.parametrize("outcome", ["failed", "timeout"])
@pytest.mark.parametrize(("elsewhere", "second"), [(False, "b0"), (True, "b1")])
@pytest.mark.parametrize("hold", ["job", "run"])
def test_a_job_is_tried_again_after_what_its_profile_names(
    outcome: Outcome, elsewhere: bool, second: str, hold: str
) -> None:
    lab = a_lab_of_two_boards()
    spec = a_spec(need=board(hold=hold), attempts=2, retry_on=(outcome,), retry_elsewhere=elsewhere)
    run = lab.submit(a_plan((), spec=spec))
    assert dut_of(lab, run) == "b0"
    lab.ended(lab.fence(run), outcome)
    assert lab.state(run) == "waiting"
    lab.pass_time(3)
    assert dut_of(lab, run) == second
    why = ErrorReport(code="exit", message="exit code 7")
    lab.ended(lab.fence(run), outcome, error=why)
    assert lab.state(run) == outcome, "two attempts in all"
    error = lab.lab.jobs[lab.job(run)].error
    assert error is not None
    assert error.message == "attempts exhausted after 2: exit code 7"


def test_what_is_not_named_is_not_tried_again_not_even_faults_of_the_lab() -> None:
    lab = a_lab_of_two_boards()
    run = lab.submit(a_plan((), spec=a_spec(retry_on=("failed",))))
    lab.ended(lab.fence(run), "timeout")
    other = lab.submit(a_plan((), spec=a_spec(retry_on=("failed",))), 2)
    lab.ended(lab.fence(other), "error")
    assert (lab.state(run), lab.state(other)) == ("timeout", "error")


def test_a_mistake_is_not_tried_again_however_often_it_may_be() -> None:
    lab = a_lab_of_two_boards()
    run = lab.submit(a_plan((), spec=a_spec(retry_on=("error", "failed"))))
    lab.ended(lab.fence(run), "error", error=ErrorReport(code="no_platform", message="x"))
    assert lab.state(run) == "error"


def test_a_board_is_frozen_for_the_last_attempt_only() -> None:
    lab = a_lab_of_two_boards()
    spec = a_spec(need=board(hold="job"), attempts=2, retry_on=("failed",), freeze_s=60.0)
    run = lab.submit(a_plan((), spec=spec))
    lab.ended(lab.fence(run), "failed")
    assert not lab.lab.people.leases
    lab.pass_time(3)
    lab.ended(lab.fence(run), "failed")
    assert [lease.dut for lease in lab.lab.people.leases.values()] == ["b0"]


def specs_of(**more: object) -> list[JobSpec]:
    steps = [
        {"command": "a"},
        {"command": "b", "retries": {"attempts": 5}},
        {"sequence": [{"command": "c"}], "retries": {"on": ["error"], "elsewhere": True}},
    ]
    document = {"name": "x", "schedule": {"sequence": steps}, **more}
    return list(plan(profile_of(document), {}).specs)


def test_a_step_says_its_own_and_takes_the_rest_from_around() -> None:
    retries = {"attempts": 2, "on": ["failed", "lost"]}
    told = [(s.attempts, s.retry_on, s.retry_elsewhere) for s in specs_of(retries=retries)]
    own = ("failed", "lost")
    assert told == [(2, own, False), (5, own, False), (2, ("error",), True)]
    assert [s.attempts for s in specs_of(limits={"attempts": 4})] == [4, 5, 4]


@pytest.mark.parametrize(
    "bad", [{"on": ["passed"]}, {"attempts": 0}, {"attempts": 11}, {"of": ["failed"]}]
)
def test_what_is_no_such_limit_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(Invalid, match="retries"):
        specs_of(retries=bad)
