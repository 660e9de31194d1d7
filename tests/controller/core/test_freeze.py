"""The board of a failed job goes to the submitter, and to nobody in between."""

import pytest

from tests.support.builders import S, TestLab, a_dut, a_plan, a_spec, board
from tshrag_common.actions import Capture
from tshrag_common.criteria import CompiledCriterion, Evidence
from tshrag_common.ids import DutId, JobId, RunId
from tshrag_common.jobs import JobSpec, Need
from tshrag_common.reports import Outcome
from tshrag_controller.core.decision import SendHold
from tshrag_controller.core.on_live import on_guard
from tshrag_controller.core.on_run import on_evidence
from tshrag_controller.core.people import Lease
from tshrag_controller.core.revive import recorded, revive
from tshrag_controller.dispatch import hold_of

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


CRITERION = CompiledCriterion(name="boot", key="boot::seconds", statistic="max", bounds=())
CAPTURE = (Capture(shell="dmesg"),)


def judged_spec(hold: str = "run", **more: object) -> JobSpec:
    return a_spec(need=board(hold=hold), freeze_s=FREEZE_S, capture=CAPTURE, attempts=1, **more)


def a_judged_run(lab: TestLab, hold: str = "run", number: int = 1) -> RunId:
    return lab.submit(a_plan((), spec=judged_spec(hold)), number, criteria=(CRITERION,))


def judge(lab: TestLab, run: RunId, *evidence: Evidence) -> None:
    on_evidence(lab.begin(), run, evidence, None)
    lab.end()


def said(verdict: str, **more: object) -> Evidence:
    return Evidence(
        criterion="boot",
        metric="boot::seconds",
        statistic="max",
        verdict=verdict,  # type: ignore[arg-type]  # a word in tests
        reason="too slow",
        **more,  # type: ignore[arg-type]
    )


def the_lease(lab: TestLab) -> Lease:
    (lease,) = lab.lab.people.leases.values()
    return lease


@pytest.mark.parametrize("hold", ["run", "job"])
def test_a_board_waits_for_the_verdict_and_is_frozen_when_a_criterion_fails(hold: str) -> None:
    lab = a_lab()
    run = a_judged_run(lab, hold)
    other = lab.submit(a_plan((), spec=a_spec(need=board())), 2)
    job = lab.job(run)
    lab.ended(lab.fence(run))
    assert (lab.lab.runs[run].state, lab.state(other)) == ("evaluating", "waiting")
    judge(lab, run, said("fail"))
    lease = the_lease(lab)
    assert (lease.dut, lease.owner) == ("b1", "default/jo")
    assert lease.reason == f"{run}: boot failed; kept as it is"
    assert lab.state(other) == "waiting"
    asked = hold_of(lab.lab, lease.fence, lab.now).questions
    assert asked is not None
    assert (asked.job, asked.attempt, asked.asked) == (job, 1, CAPTURE)
    assert SendHold(lease.agent, lease.fence) in lab.decision.effects


@pytest.mark.parametrize("hold", ["run", "job"])
@pytest.mark.parametrize("verdict", ["pass", "error"])
def test_a_verdict_that_is_no_failure_lets_go_of_the_board(hold: str, verdict: str) -> None:
    lab = a_lab()
    run = a_judged_run(lab, hold)
    other = lab.submit(a_plan((), spec=a_spec(need=board())), 2)
    lab.ended(lab.fence(run))
    judge(lab, run, said(verdict))
    assert frozen(lab) == []
    assert lab.state(other) == "assigned"


@pytest.mark.parametrize("again", [False, True])
def test_a_board_waits_for_a_verdict_no_longer_than_it_would_be_frozen(again: bool) -> None:
    lab = a_lab()
    run = a_judged_run(lab)
    other = lab.submit(a_plan((), spec=a_spec(need=board())), 2)
    lab.ended(lab.fence(run))
    lab.pass_time(FREEZE_S - 1)
    if again:
        lab.lab = revive(recorded(lab.lab), lab.now)
    assert lab.state(other) == "waiting"
    lab.pass_time(2)
    assert lab.state(other) == "assigned"
    judge(lab, run, said("fail"))
    assert frozen(lab) == [], "another one has it"


def test_many_boards_that_wait_for_a_verdict_have_a_timer_each() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut(f"b{number}") for number in range(4)])
    jobs = ((),) * 4
    run = lab.submit(a_plan(*jobs, spec=judged_spec("job")), 1, criteria=(CRITERION,))
    for number in range(1, 4):  # one is still at work: there is no verdict yet
        lab.ended(lab.fence(run, number))
    waiting = sorted(name for _, what, name in lab.lab.indexes.timers if what == "verdict")
    assert waiting == [f"{run} {dut}" for dut in sorted(lab.lab.runs[run].awaits)]
    assert len(waiting) == 3


def test_a_minor_criterion_freezes_nothing_and_keeps_nothing() -> None:
    lab = a_lab()
    minor = CompiledCriterion(
        name="boot", key="boot::seconds", statistic="max", bounds=(), severity="minor"
    )
    lab.submit(a_plan((), spec=judged_spec()), criteria=(minor,))
    other = lab.submit(a_plan((), spec=a_spec(need=board())), 2)
    (fence,) = lab.lab.attempts
    lab.ended(fence)
    assert lab.state(other) == "assigned"


@pytest.mark.parametrize(("scope", "group"), [("dut", "b2"), ("job", "2")])
def test_of_several_boards_the_one_that_failed_is_frozen(scope: str, group: str) -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut("b1"), a_dut("b2")])
    run = lab.submit(
        a_plan((), (), spec=judged_spec("job", on_fail="continue")), criteria=(CRITERION,)
    )
    for serial in (1, 2):
        lab.ended(lab.fence(run, serial))
    group = str(lab.job(run, 2)) if scope == "job" else group
    worst = (said("fail", scope=scope, group=group), said("pass", scope=scope, group="b1"))
    judge(lab, run, said("fail", scope=scope, groups=worst))
    assert [dut for dut, _ in frozen(lab)] == ["b2"]


def test_a_job_that_its_own_guard_aborts_leaves_a_frozen_board_that_is_asked() -> None:
    lab = a_lab()
    run = lab.submit(a_plan((), spec=judged_spec()))
    fence = lab.fence(run)
    lab.started(fence)
    on_guard(lab.begin(), JobId(lab.job(run)), "abort", "it is too hot")
    lab.end()
    lab.ended(fence, "cancelled")
    assert the_lease(lab).reason == f"{lab.job(run)} aborted; kept as it is"
    assert the_lease(lab).questions is not None


def test_a_board_that_waits_for_its_verdict_may_do_more_for_its_run() -> None:
    lab = a_lab()
    plan = a_plan((), (1,), spec=judged_spec("job"))
    run = lab.submit(plan, criteria=(CRITERION,))
    lab.ended(lab.fence(run, 1))
    assert lab.state(run, 2) == "assigned"
    lab.ended(lab.fence(run, 2), "failed")
    assert the_lease(lab).reason == f"{lab.job(run, 2)} failed; kept as it is"
    assert the_lease(lab).questions is None, "its attempt has asked already"
