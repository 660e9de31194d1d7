"""A DUT that is not to be trusted: not by a restart of its agent, only by a person or a check."""

from tests.support.builders import TestLab, a_dut, a_plan, a_spec, board
from tshrag_common.ids import DutId
from tshrag_common.reports import DutChanged
from tshrag_controller.core.on_intent import on_clear

BOARD = DutId("board")
WHY = "not ended: pids 71; reboot its host"


def a_lab() -> TestLab:
    lab = TestLab()
    lab.hello("a1", duts=[a_dut()])
    return lab


def test_it_is_bad_before_the_attempt_gives_it_back() -> None:
    lab = a_lab()
    first = lab.submit(a_plan((), spec=a_spec(need=board(hold="job"))), 1)
    second = lab.submit(a_plan((), spec=a_spec(need=board(hold="job"))), 2)
    lab.report("a1", DutChanged(at=lab.now, dut=BOARD, faulty=WHY))
    lab.ended(lab.fence(first), "cancelled")
    assert lab.state(second) == "waiting"


def test_a_restarted_agent_does_not_make_it_well() -> None:
    lab = a_lab()
    lab.report("a1", DutChanged(at=lab.now, dut=BOARD, faulty=WHY))
    lab.hello("a1", duts=[a_dut()])
    assert lab.lab.duts[BOARD].faulty == WHY


def test_a_check_of_the_agent_does() -> None:
    lab = a_lab()
    lab.report("a1", DutChanged(at=lab.now, dut=BOARD, faulty=WHY))
    lab.report("a1", DutChanged(at=lab.now, dut=BOARD))
    assert lab.lab.duts[BOARD].faulty == ""


def test_a_person_does_and_work_goes_on() -> None:
    lab = a_lab()
    lab.report("a1", DutChanged(at=lab.now, dut=BOARD, faulty=WHY))
    run = lab.submit(a_plan((), spec=a_spec(need=board())))
    assert on_clear(lab.begin(), "dut", "board", "jo", "rebooted")
    lab.end()
    assert lab.state(run) == "assigned"
    assert not on_clear(lab.begin(), "dut", "board", "jo", "again")
