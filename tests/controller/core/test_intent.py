"""Hosts and DUTs out of service and back; what was observed stays apart."""

import pytest

from tests.support.builders import TestLab, a_dut, a_plan, a_spec, board, facts
from tshrag_common.errors import NotFound
from tshrag_common.ids import AgentId, DutId
from tshrag_common.reports import DutChanged, Hello
from tshrag_controller.core.decision import SendCancel
from tshrag_controller.core.intent_events import IntentSet, Kind
from tshrag_controller.core.on_intent import on_clear, on_set
from tshrag_controller.core.revive import recorded, revive
from tshrag_controller.core.why import explain

B1 = DutId("b1")
ON_BOARD = a_spec(need=board())
ANY = a_spec(need=board(hold="job"))


def a_lab(*duts: str) -> TestLab:
    lab = TestLab()
    lab.hello(duts=[a_dut(name) for name in duts or ("b1",)])
    return lab


def intend(
    lab: TestLab, what: str, name: str = "b1", kind: Kind = "dut", now: bool = False,
    until: int = 0,
) -> None:  # fmt: skip
    asked = IntentSet(kind=kind, name=name, what=what, by="radio/op", reason="smoke", until=until)
    on_set(lab.begin(), asked, now)
    lab.end()


def back(lab: TestLab, name: str = "b1", kind: Kind = "dut") -> None:
    on_clear(lab.begin(), kind, name, "radio/op")
    lab.end()


@pytest.mark.parametrize("what", ["cordoned", "draining", "maintenance", "quarantined"])
def test_nothing_new_comes_to_what_is_out_of_service(what: str) -> None:
    lab = a_lab()
    intend(lab, what)
    run = lab.submit(a_plan((), spec=ON_BOARD))
    assert lab.state(run) == "waiting"
    said = explain(lab.lab, lab.lab.jobs[lab.job(run)], lab.now).sentence
    assert said == f"DUT b1 is {what} by radio/op: smoke"
    back(lab)
    assert lab.state(run) == "assigned"


def test_a_host_out_of_service_takes_its_duts_and_slots_with_it() -> None:
    lab = a_lab()
    intend(lab, "draining", "a1", "agent")
    on_dut = lab.submit(a_plan((), spec=ON_BOARD), 1)
    on_host = lab.submit(a_plan(()), 2)
    assert (lab.state(on_dut), lab.state(on_host)) == ("waiting", "waiting")
    back(lab, "a1", "agent")
    assert (lab.state(on_dut), lab.state(on_host)) == ("assigned", "assigned")


@pytest.mark.parametrize(("what", "second"), [("cordoned", "assigned"), ("draining", "waiting")])
def test_a_run_finishes_on_a_cordoned_dut_and_not_on_one_that_drains(
    what: str, second: str
) -> None:
    lab = a_lab()
    run = lab.submit(a_plan((), (1,), spec=ON_BOARD))
    intend(lab, what)
    assert lab.state(run) == "assigned", "what is at work goes on"
    lab.ended(lab.fence(run))
    assert lab.state(run, 2) == second


def test_what_is_at_work_begins_again_elsewhere_when_it_must_go_now() -> None:
    lab = a_lab("b1", "b2")
    run = lab.submit(a_plan((), spec=ANY))
    fence = lab.fence(run)
    intend(lab, "maintenance", now=True)
    assert SendCancel(AgentId("a1"), fence, "lost") in lab.decision.effects
    lab.pass_time(5)
    assert lab.lab.attempts[lab.fence(run)].dut == "b2"


def test_it_comes_back_by_itself_when_its_time_is_over_also_after_a_restart() -> None:
    lab = a_lab()
    intend(lab, "maintenance", until=lab.now + 60_000_000)
    run = lab.submit(a_plan((), spec=ON_BOARD))
    lab.lab = revive(recorded(lab.lab), lab.now)
    lab.pass_time(59)
    assert lab.state(run) == "waiting"
    lab.pass_time(2)
    assert lab.state(run) == "assigned"


def test_intent_and_observation_are_kept_apart() -> None:
    lab = a_lab()
    intend(lab, "quarantined")
    lab.report("a1", DutChanged(at=lab.now, dut=B1, faulty="no answer"))
    back(lab)
    assert lab.lab.duts[B1].faulty == "no answer"
    intend(lab, "quarantined")
    lab.report("a1", DutChanged(at=lab.now, dut=B1, faulty=""))
    again = facts("a1", duts=[a_dut("b1")], boot="b2")
    lab.report("a1", Hello(at=lab.now, facts=again))
    row = lab.lab.duts[B1]
    assert row.faulty == ""
    assert row.intent is not None, "a new hello changes nothing of what people want"


def test_what_is_not_there_is_not_taken_out_of_service() -> None:
    with pytest.raises(NotFound, match="nearest: b1"):
        intend(a_lab(), "cordoned", "b11")
