"""Health checks: when they are due, and what comes of them."""

import pytest

from tests.support.builders import ORG, TestLab, a_dut, a_plan, a_run_id, a_spec, board
from tshrag_common.ids import AgentId, DutId, Fence, RunId
from tshrag_common.jobs import Need, Target
from tshrag_common.reports import ConsoleSigned, Outcome
from tshrag_common.signs import SignKind
from tshrag_controller.core.events import RunAdmitted
from tshrag_controller.core.health import Due, Rules, due, on_check
from tshrag_controller.core.intent_events import IntentSet
from tshrag_controller.core.on_console import on_signed
from tshrag_controller.core.on_intent import on_set
from tshrag_controller.core.revive import recorded, revive

B1 = DutId("b1")
RULES = Rules(every_s=3600.0, after_errors=2, recheck_s=600.0, profiles={"pi": "pi.yaml"})
ANY = a_spec(need=board(hold="job"), attempts=1)


def a_lab(**labels: str) -> TestLab:
    lab = TestLab()
    lab.hello(duts=[a_dut("b1", labels=labels)])
    return lab


def check(lab: TestLab, number: int = 90) -> str:
    """Order a check of b1, as `checking` does."""
    target = Target(runtime="ssh", duts=("b1",), hold="job")
    spec = a_spec(need=Need(target=target, role="board"), attempts=1)
    run = a_run_id(number)
    admitted = RunAdmitted(
        run=run, org=ORG, by="health", key="", name="check", priority=75, profile=b"{}",
        plan=a_plan((), spec=spec),
    )  # fmt: skip
    on_check(lab.begin(), admitted, Due(kind="dut", name="b1", profile="pi", why="it is time"))
    lab.end()
    return run


def checked(lab: TestLab, outcome: Outcome, number: int = 90) -> None:
    run = check(lab, number)
    lab.ended(lab.fence(run), outcome)  # type: ignore[arg-type]  # a run id


def reasons(lab: TestLab, rules: Rules = RULES) -> list[str]:
    return [each.why for each in due(lab.lab, rules, lab.now)]


def test_a_new_board_is_checked_and_again_when_it_is_time() -> None:
    lab = a_lab()
    assert reasons(lab) == ["it is new"]
    run = check(lab)
    assert reasons(lab) == [], "one is open"
    lab.ended(lab.fence(run))  # type: ignore[arg-type]  # a run id
    assert reasons(lab) == []
    lab.pass_time(3601)
    assert reasons(lab) == ["it is time"]


def test_the_profile_is_named_by_label_kind_or_for_all() -> None:
    profiles = {"pi": "1", "special": "2", "*": "3"}
    for labels, rules, name in (
        ({}, profiles, "pi"),
        ({"health": "special"}, profiles, "special"),
        ({}, {"*": "3"}, "*"),
    ):
        lab = a_lab(**labels)
        found = due(lab.lab, Rules(every_s=60.0, profiles=rules), lab.now)
        assert [each.profile for each in found] == [name]
    assert due(a_lab().lab, Rules(every_s=60.0, profiles={"hub": "1"}), 0) == []


@pytest.mark.parametrize("outcome", ["failed", "error", "timeout"])
def test_what_does_not_pass_quarantines_and_what_passes_then_takes_it_back(
    outcome: Outcome,
) -> None:
    lab = a_lab()
    checked(lab, outcome)
    row = lab.lab.duts[B1]
    assert row.intent is not None
    assert (row.intent.what, row.intent.by) == ("quarantined", "lab")
    waits = lab.submit(a_plan((), spec=ANY), 1)
    assert lab.state(waits) == "waiting"
    lab.pass_time(599)
    assert reasons(lab) == []
    lab.pass_time(2)
    assert reasons(lab) == ["it is quarantined"]
    again = check(lab, 91)
    assert lab.state(again) == "assigned", "it alone may have the board"  # type: ignore[arg-type]
    assert lab.state(waits) == "waiting"
    lab.ended(lab.fence(again))  # type: ignore[arg-type]  # a run id
    lab.pass_time(0)
    assert lab.lab.duts[B1].intent is None
    assert lab.state(waits) == "assigned"


def test_infrastructure_errors_in_a_row_order_a_check_and_a_success_ends_the_row() -> None:
    rules = Rules(after_errors=2, profiles={"pi": "pi.yaml"})
    lab = a_lab()
    for number, outcome in enumerate(("error", "passed", "error", "failed", "error"), 1):
        run = lab.submit(a_plan((), spec=ANY), number)
        lab.ended(lab.fence(run), outcome)  # type: ignore[arg-type]  # a word
    assert reasons(lab, rules) == []
    run = lab.submit(a_plan((), spec=ANY), 9)
    lab.ended(lab.fence(run), "error")
    assert reasons(lab, rules) == ["2 infrastructure errors in a row"]


def crash(lab: TestLab, fence: Fence, sign: SignKind = "panic") -> None:
    report = ConsoleSigned(at=1, dut=B1, sign=sign, text="x", fence=fence)
    on_signed(lab.begin(), AgentId("a1"), report)
    lab.end()


def test_crashes_under_several_runs_in_a_row_order_a_check() -> None:
    rules = Rules(after_crashes=2, profiles={"pi": "pi.yaml"})
    lab = a_lab()

    def run_once(number: int, *signs: SignKind, late: bool = False) -> None:
        fence = lab.fence(lab.submit(a_plan((), spec=ANY), number))
        for sign in () if late else signs:
            crash(lab, fence, sign)
        lab.ended(fence, "failed")
        for sign in signs if late else ():
            crash(lab, fence, sign)

    run_once(1, "panic", "oops")
    run_once(2, "login")
    run_once(3, "oops")
    assert reasons(lab, rules) == [], "a run without a crash has ended the row"
    run_once(4, "kasan", late=True)
    assert reasons(lab, rules) == ["it crashed under 2 runs in a row"]
    assert reasons(lab, Rules(profiles={"pi": "pi.yaml"})) == []
    checked(lab, "failed")
    assert lab.lab.duts[B1].intent is not None
    assert lab.lab.people.health[B1].crashed == ()


def test_what_an_operator_has_taken_out_is_neither_checked_nor_taken_back() -> None:
    lab = a_lab()
    run = check(lab)
    out = IntentSet(kind="dut", name="b1", what="maintenance", by="radio/op")
    on_set(lab.begin(), out)
    lab.end()
    lab.ended(lab.fence(run))  # type: ignore[arg-type]  # a run id
    assert lab.lab.duts[B1].intent is not None
    lab.pass_time(4000)
    assert reasons(lab) == []


def test_a_check_that_is_open_is_known_after_a_restart() -> None:
    lab = a_lab()
    checked(lab, "failed")
    lab.pass_time(601)
    run = check(lab, 91)
    lab.lab = revive(recorded(lab.lab), lab.now)
    lab.ended(lab.fence(run))  # type: ignore[arg-type]  # a run id
    assert lab.lab.duts[B1].intent is None


HOST_RULES = Rules(every_s=3600.0, after_errors=2, recheck_s=600.0, profiles={"host": "h.yaml"})


def check_host(lab: TestLab, number: int = 90) -> RunId:
    run = a_run_id(number)
    spec = a_spec(need=Need(target=Target(hosts=("a1",))), attempts=1)
    admitted = RunAdmitted(
        run=run, org=ORG, by="health", key="", name="check", priority=75, profile=b"{}",
        plan=a_plan((), spec=spec),
    )  # fmt: skip
    on_check(lab.begin(), admitted, Due(kind="agent", name="a1", profile="host", why="it is time"))
    lab.end()
    return run


def test_a_host_is_checked_too_by_its_label_or_as_a_host() -> None:
    lab = a_lab()
    lab.hello("a2", slots=0)
    found = due(lab.lab, HOST_RULES, lab.now)
    assert [(each.kind, each.name, each.why) for each in found] == [("agent", "a1", "it is new")]
    both = Rules(every_s=60.0, profiles={"host": "h.yaml", "*": "any.yaml"})
    found = due(lab.lab, both, lab.now)
    assert [(each.name, each.profile) for each in found] == [("a1", "host"), ("b1", "*")]
    check_host(lab)
    assert reasons(lab, HOST_RULES) == [], "one is open"


@pytest.mark.parametrize("outcome", ["failed", "error", "timeout"])
def test_a_host_that_does_not_pass_is_out_of_service_until_it_does(outcome: Outcome) -> None:
    lab = a_lab()
    lab.ended(lab.fence(check_host(lab)), outcome)
    intent = lab.lab.agents[AgentId("a1")].intent
    assert intent is not None
    assert (intent.what, intent.by) == ("quarantined", "lab")
    on_host = lab.submit(a_plan((), spec=a_spec(attempts=1)), 1)
    on_dut = lab.submit(a_plan((), spec=ANY), 2)
    assert (lab.state(on_host), lab.state(on_dut)) == ("waiting", "waiting")
    lab.pass_time(601)
    assert reasons(lab, HOST_RULES) == ["it is quarantined"]
    assert reasons(lab) == [], "its boards wait until it is back"
    again = check_host(lab, 91)
    assert lab.state(again) == "assigned", "it alone may come"
    assert lab.state(on_host) == "waiting"
    lab.lab = revive(recorded(lab.lab), lab.now)
    lab.ended(lab.fence(again))
    lab.pass_time(0)
    assert lab.lab.agents[AgentId("a1")].intent is None
    assert (lab.state(on_host), lab.state(on_dut)) == ("assigned", "assigned")


def test_errors_of_work_on_a_host_itself_are_counted_for_the_host() -> None:
    rules = Rules(after_errors=2, profiles={"host": "h.yaml", "pi": "pi.yaml"})
    lab = a_lab()
    for number in (1, 2):
        lab.ended(lab.fence(lab.submit(a_plan((), spec=ANY), number)), "error")
    assert [each.kind for each in due(lab.lab, rules, lab.now)] == ["dut"]
    for number in (3, 4):
        lab.ended(lab.fence(lab.submit(a_plan((), spec=a_spec(attempts=1)), number)), "error")
    found = due(lab.lab, rules, lab.now)
    assert [(each.kind, each.why) for each in found] == [
        ("agent", "2 infrastructure errors in a row"),
        ("dut", "2 infrastructure errors in a row"),
    ]


def test_a_host_that_an_operator_took_out_is_not_taken_back_by_a_check() -> None:
    lab = a_lab()
    run = check_host(lab)
    on_set(lab.begin(), IntentSet(kind="agent", name="a1", what="maintenance", by="radio/op"))
    lab.end()
    lab.ended(lab.fence(run))
    assert lab.lab.agents[AgentId("a1")].intent is not None
    lab.pass_time(4000)
    assert reasons(lab, HOST_RULES) == []
