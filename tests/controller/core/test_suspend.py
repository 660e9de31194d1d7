"""Runs and jobs held back and let go; windows that move."""

import pytest

from tests.support.builders import ORG, S, TestLab, a_dut, a_plan, a_spec, board
from tshrag_common.errors import LabError
from tshrag_controller.core.on_run import AlreadyFinal
from tshrag_controller.core.on_suspend import on_hold, on_let_go, on_reschedule
from tshrag_controller.core.revive import recorded, revive
from tshrag_controller.core.why import explain

KEPT = a_spec(need=board())
ANY = a_spec(need=board(hold="job"))
SLEEP = a_spec(kind="sleep", sleep_s=1.0)


def a_lab(slots: int = 1) -> TestLab:
    lab = TestLab()
    lab.hello(slots=slots, duts=[a_dut("b1")])
    return lab


def hold(lab: TestLab, name: str, reason: str = "new firmware") -> None:
    on_hold(lab.begin(), ORG, "default/jo", name, reason)
    lab.end()


def let_go(lab: TestLab, name: str) -> None:
    on_let_go(lab.begin(), ORG, "default/jo", name)
    lab.end()


@pytest.mark.parametrize("spec", [a_spec(), KEPT, ANY], ids=["host", "kept", "any"])
def test_what_is_held_lets_others_go_first_and_comes_back_to_its_old_place(spec: object) -> None:
    lab = a_lab()
    plan = a_plan((), spec=spec)  # type: ignore[arg-type]  # a spec
    first, held, last = (lab.submit(plan, number) for number in (1, 2, 3))
    hold(lab, held)
    lab.ended(lab.fence(first))
    assert (lab.state(held), lab.state(last)) == ("waiting", "assigned")
    said = explain(lab.lab, lab.lab.jobs[lab.job(held)], lab.now)
    assert (said.reason, said.sentence) == ("on_hold", "it is held back: new firmware")
    behind = lab.submit(plan, 4)
    let_go(lab, held)
    lab.ended(lab.fence(last))
    assert (lab.state(held), lab.state(behind)) == ("assigned", "waiting")


def test_a_held_sleep_does_not_begin() -> None:
    lab = a_lab()
    run = lab.submit(a_plan((), (1,), spec=SLEEP))
    hold(lab, lab.job(run, 2))
    lab.pass_time(2)
    assert (lab.state(run), lab.state(run, 2)) == ("passed", "waiting")
    let_go(lab, run)
    assert lab.state(run, 2) == "running"


def test_a_held_run_is_held_after_a_restart_and_also_what_becomes_ready_later() -> None:
    lab = a_lab()
    run = lab.submit(a_plan((), (1,), spec=KEPT))
    hold(lab, run)
    lab.ended(lab.fence(run))
    lab.lab = revive(recorded(lab.lab), lab.now)
    lab.pass_time(1)
    assert lab.state(run, 2) == "waiting"
    let_go(lab, run)
    assert lab.state(run, 2) == "assigned"


def test_what_does_not_wait_is_not_held_and_what_is_not_held_is_not_let_go() -> None:
    lab = a_lab()
    run = lab.submit(a_plan(()))
    with pytest.raises(AlreadyFinal):
        on_hold(lab.begin(), ORG, "default/jo", lab.job(run), "")
    waits = lab.submit(a_plan(()), 2)
    with pytest.raises(LabError, match="nothing of it is held"):
        on_let_go(lab.begin(), ORG, "default/jo", waits)


def test_a_window_that_moves_moves_the_start_and_the_end() -> None:
    lab = a_lab()
    run = lab.submit(a_plan(()), not_before=lab.now + 10 * S, deadline=lab.now + 20 * S)
    on_reschedule(lab.begin(), ORG, "jo", run, lab.now + 30 * S, lab.now + 60 * S)
    lab.end()
    lab.pass_time(25)
    assert lab.state(run) == "waiting", "neither started nor expired"
    lab.pass_time(6)
    assert lab.state(run) == "assigned"


def test_a_window_may_open_at_once_and_the_old_deadline_counts_no_more() -> None:
    lab = a_lab(slots=0)
    run = lab.submit(a_plan(()), park=True, not_before=lab.now + 10 * S, deadline=lab.now + 20 * S)
    on_reschedule(lab.begin(), ORG, "jo", run, 0, 0)
    lab.end()
    lab.pass_time(60)
    assert lab.state(run) == "waiting"
    lab.hello(slots=1)
    assert lab.state(run) == "assigned"
    with pytest.raises(LabError, match="closes before it opens"):
        on_reschedule(lab.begin(), ORG, "jo", run, lab.now + 30 * S, lab.now + 20 * S)
