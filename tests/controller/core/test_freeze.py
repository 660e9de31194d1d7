"""The board of a failed job goes to the submitter, and to nobody in between."""

import pytest

from tests.support.builders import S, TestLab, a_dut, a_plan, a_spec, board
from tshrag_common.ids import DutId
from tshrag_common.jobs import Need
from tshrag_common.reports import Outcome

FREEZE_S = 600.0
OUTCOMES: tuple[Outcome, ...] = ("passed", "error")


def a_lab() -> TestLab:
    lab = TestLab()
    lab.hello(duts=[a_dut("b1")])
    return lab


def frozen(lab: TestLab) -> list[tuple[str, str]]:
    return [(each.dut, each.owner) for each in lab.lab.people.leases.values()]


@pytest.mark.parametrize("hold", ["run", "job"])
@pytest.mark.parametrize("outcome", ["failed", "timeout"])
def test_a_board_that_failed_goes_to_the_submitter_not_to_the_next_run(
    hold: str, outcome: Outcome
) -> None:
    lab = a_lab()
    need: Need = board(hold=hold)
    spec = a_spec(need=need, freeze_s=FREEZE_S, attempts=1)
    first = lab.submit(a_plan((), spec=spec))
    second = lab.submit(a_plan((), spec=a_spec(need=board())), 2)
    lab.ended(lab.fence(first), outcome)
    (lease,) = lab.lab.people.leases.values()
    run = lab.lab.runs.get(first)
    assert (lease.dut, lease.reason.split()[1]) == (DutId("b1"), f"{outcome};")
    assert run is None or lease.owner == f"{run.org}/{run.by}"
    assert lease.until == lab.now + FREEZE_S * S
    assert lab.state(second) == "waiting"


def test_a_board_that_passed_or_met_a_fault_of_the_lab_is_free() -> None:
    lab = a_lab()
    spec = a_spec(need=board(), freeze_s=FREEZE_S, attempts=1)
    for number, outcome in enumerate(OUTCOMES, 1):
        run = lab.submit(a_plan((), spec=spec), number)
        lab.ended(lab.fence(run), outcome)
    assert frozen(lab) == []


def test_a_run_that_goes_on_keeps_its_board_until_its_last_failure() -> None:
    lab = a_lab()
    spec = a_spec(need=board(), freeze_s=FREEZE_S, on_fail="continue", attempts=1)
    run = lab.submit(a_plan((), (1,), spec=spec))
    lab.ended(lab.fence(run, 1), "failed")
    assert frozen(lab) == []
    lab.ended(lab.fence(run, 2), "failed")
    assert [dut for dut, _ in frozen(lab)] == ["b1"]
