import pytest

from tests.support.builders import ORG, TestLab, a_dut, a_plan, a_spec, board, facts
from tshrag_common.criteria import CompiledCriterion, Evidence
from tshrag_common.errors import ErrorReport
from tshrag_common.ids import AgentId, DutId
from tshrag_common.jobs import JobSpec, Plan, PlannedJob
from tshrag_common.reports import Ended, Goodbye, Hello
from tshrag_common.states import AgentCause
from tshrag_controller.answers.lab import dut_state
from tshrag_controller.core.decision import JudgeRun, SendCancel, SendStart, SendSync
from tshrag_controller.core.events import JobJudged, RunJudged
from tshrag_controller.core.on_agent import on_silence
from tshrag_controller.core.on_attempt import on_stored
from tshrag_controller.core.on_run import AlreadyFinal, on_cancel, on_evidence
from tshrag_controller.core.revive import recorded, revive


def test_a_job_on_a_free_host_is_assigned_in_the_turn_of_its_submission() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan(()))
    assert lab.state(run) == "assigned"
    assert SendStart(AgentId("a1"), lab.fence(run)) in lab.decision.effects


def test_a_run_whose_jobs_pass_has_passed() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan((), (1,)))
    lab.started(lab.fence(run))
    assert (lab.state(run, 1), lab.state(run, 2)) == ("running", "waiting")
    lab.ended(lab.fence(run))
    assert (lab.state(run, 1), lab.state(run, 2)) == ("passed", "assigned")
    lab.ended(lab.fence(run, 2))
    assert lab.lab.runs[run].state == "passed"


def test_a_failed_step_skips_its_dependants_and_fails_the_run() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan((), (1,), (2,), ()))
    lab.ended(lab.fence(run), "failed", exit_code=3)
    assert [lab.state(run, n) for n in (1, 2, 3)] == ["failed", "skipped", "skipped"]
    lab.ended(lab.fence(run, 4))
    assert lab.lab.runs[run].state == "failed"


def test_on_fail_continue_lets_what_follows_start_and_fails_the_run_all_the_same() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan((), (1,), spec=a_spec(on_fail="continue")))
    lab.ended(lab.fence(run), "failed")
    assert lab.state(run, 2) == "assigned"
    lab.ended(lab.fence(run, 2))
    assert lab.lab.runs[run].state == "failed"


def test_an_error_is_tried_again_after_a_growing_pause_and_then_given_up() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan(()))
    broken = ErrorReport(code="dut_unreachable", message="no route", retryable=True)
    lab.ended(lab.fence(run), "error", error=broken)
    assert lab.state(run) == "waiting"
    lab.pass_time(1.5)
    assert lab.state(run) == "waiting"
    lab.pass_time(1.0)
    assert lab.state(run) == "assigned"
    lab.ended(lab.fence(run), "error", error=broken)
    lab.pass_time(5)
    lab.ended(lab.fence(run), "error", error=broken)
    assert lab.lab.runs[run].state == "error"
    judged = [event for event in lab.decision.events if isinstance(event, JobJudged)]
    assert judged[0].error == ErrorReport(
        code="dut_unreachable", message="attempts exhausted after 3: no route"
    )


def test_a_mistake_is_not_tried_again() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan(()))
    lab.ended(lab.fence(run), "error", error=ErrorReport(code="not_found", message="no such file"))
    assert lab.lab.runs[run].state == "error"
    assert lab.lab.jobs[lab.job(run)].attempts == 1
    judged = [event for event in lab.decision.events if isinstance(event, RunJudged)]
    assert judged[0].reason == "1 error; job1: no such file"


def test_slots_are_never_exceeded_and_the_next_job_starts_when_one_is_free() -> None:
    lab = TestLab()
    lab.hello(slots=2)
    run = lab.submit(a_plan((), (), ()))
    assert [lab.state(run, n) for n in (1, 2, 3)] == ["assigned", "assigned", "waiting"]
    lab.ended(lab.fence(run, 2))
    assert lab.state(run, 3) == "assigned"


def test_higher_priority_goes_first_and_equal_ones_in_the_order_of_submission() -> None:
    lab = TestLab()
    lab.hello(slots=1)
    first = lab.submit(a_plan(()), 1)
    low = lab.submit(a_plan(()), 2, priority=25)
    urgent = lab.submit(a_plan(()), 3, priority=100)
    later = lab.submit(a_plan(()), 4, priority=25)
    started = []
    for run in (first, urgent, low, later):
        assert lab.state(run) == "assigned"
        started.append(run)
        lab.ended(lab.fence(run))


def test_a_dut_is_never_given_twice_and_fences_only_grow() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut()])
    one = lab.submit(a_plan((), spec=a_spec(need=board())), 1)
    two = lab.submit(a_plan((), spec=a_spec(need=board())), 2)
    assert (lab.state(one), lab.state(two)) == ("assigned", "waiting")
    before = lab.fence(one)
    lab.ended(before)
    assert lab.state(two) == "assigned"
    assert lab.fence(two) > before


def test_a_run_keeps_its_dut_from_its_first_job_to_its_last() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut()])
    one = lab.submit(a_plan((), (1,), spec=a_spec(need=board())), 1)
    two = lab.submit(a_plan((), spec=a_spec(need=board())), 2, priority=100)
    lab.ended(lab.fence(one, 1))
    assert (lab.state(one, 2), lab.state(two)) == ("assigned", "waiting")
    lab.ended(lab.fence(one, 2))
    assert lab.state(two) == "assigned"


def test_a_run_gets_the_duts_of_all_its_roles_or_none() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut("b1"), a_dut("b2", kind="hub")])
    specs = (a_spec(need=board()), a_spec(need=board("hub", "hub")))
    plan = Plan(specs=specs, jobs=(PlannedJob(1, "a", 0), PlannedJob(2, "b", 1, (1,))))
    holds_hub = lab.submit(a_plan((), spec=a_spec(need=board("hub", "hub"))), 1)
    both = lab.submit(plan, 2)
    assert lab.state(both, 1) == "waiting"
    single = lab.submit(a_plan((), spec=a_spec(need=board())), 3)
    assert lab.state(single) == "assigned", "a board that another run waits for is not held"
    lab.ended(lab.fence(holds_hub))
    assert lab.state(both, 1) == "waiting"
    lab.ended(lab.fence(single))
    assert lab.state(both, 1) == "assigned"


def test_two_roles_of_one_kind_get_two_boards() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut("b1"), a_dut("b2")])
    specs = (a_spec(need=board(role="client")), a_spec(need=board(role="server")))
    plan = Plan(specs=specs, jobs=(PlannedJob(1, "a", 0), PlannedJob(2, "b", 1)))
    run = lab.submit(plan)
    duts = {lab.lab.attempts[lab.fence(run, n)].dut for n in (1, 2)}
    assert duts == {"b1", "b2"}


def test_cancel_is_final_at_once_and_the_dut_is_free_when_the_agent_says_so() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut()])
    one = lab.submit(a_plan((), spec=a_spec(need=board())), 1)
    fence = lab.fence(one)
    two = lab.submit(a_plan((), spec=a_spec(need=board())), 2)
    on_cancel(lab.begin(), ORG, one)
    decision = lab.end()
    assert SendCancel(AgentId("a1"), fence) in decision.effects
    assert lab.lab.runs[one].state == "cancelled"
    assert lab.state(two) == "waiting"
    lab.ended(fence, "cancelled")
    assert lab.state(two) == "assigned"
    with pytest.raises(AlreadyFinal, match="cancelled"):
        on_cancel(lab.begin(), ORG, one)


def test_of_cancel_and_completion_the_later_loses() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan((), ()))
    fence = lab.fence(run, 1)
    on_cancel(lab.begin(), ORG, lab.job(run, 1))
    lab.end()
    lab.ended(fence, "passed")
    assert lab.state(run, 1) == "cancelled"


def test_repeated_and_late_reports_count_for_nothing() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan((), ()))
    fence = lab.fence(run)
    ended = Ended(at=0, fence=fence, outcome="passed")
    lab.report("a1", ended)
    lab.report("a1", ended)
    assert lab.lab.counters == {"reports_refused.already_final": 1}
    assert lab.state(run) == "passed"


def test_an_agent_may_only_speak_of_its_own_attempts() -> None:
    lab = TestLab()
    lab.hello("a1")
    run = lab.submit(a_plan(()))
    lab.hello("a2")
    lab.report("a2", Ended(at=0, fence=lab.fence(run), outcome="passed"))
    assert lab.state(run) == "assigned"
    assert lab.lab.counters == {"reports_refused.not_holder": 1}


def test_a_job_ends_only_when_its_samples_are_stored() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan(()))
    lab.ended(lab.fence(run), samples_upto=7, output_upto=2)
    assert lab.state(run) == "collecting"
    on_stored(lab.begin(), AgentId("a1"), 6, 2)
    lab.end()
    assert lab.state(run) == "collecting"
    on_stored(lab.begin(), AgentId("a1"), 7, 2)
    lab.end()
    assert lab.lab.runs[run].state == "passed"


def test_samples_that_do_not_come_make_an_error_never_a_pass() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan(()))
    lab.ended(lab.fence(run), samples_upto=7)
    lab.pass_time(61)
    assert lab.lab.runs[run].state == "error"


def test_criteria_decide_a_run_whose_jobs_passed() -> None:
    lab = TestLab()
    lab.hello()
    criterion = CompiledCriterion(name="latency", key="net.latency", statistic="avg", bounds=())
    run = lab.submit(a_plan(()), criteria=(criterion,))
    decision = lab.ended(lab.fence(run))
    assert JudgeRun(run) in decision.effects
    assert lab.lab.runs[run].state == "evaluating"
    evidence = Evidence(
        criterion="latency",
        metric="net.latency",
        statistic="avg",
        verdict="fail",
        reason="too slow",
    )
    on_evidence(lab.begin(), run, (evidence,), None)
    lab.end()
    assert lab.lab.runs[run].state == "failed"


def test_a_silent_agent_is_doubted_and_lost_and_its_work_goes_on_until_its_limit() -> None:
    lab = TestLab()
    lab.hello("a1")
    run = lab.submit(a_plan((), spec=a_spec(timeout_s=60.0)))
    lab.started(lab.fence(run))
    for cause in (AgentCause.DOUBT, AgentCause.LOSE):
        on_silence(lab.begin(), AgentId("a1"), cause)
        lab.end()
    lab.hello("a2")
    lab.pass_time(80)
    assert lab.state(run) == "running"
    lab.pass_time(11)
    assert lab.state(run) == "waiting"
    lab.pass_time(3)
    assert lab.lab.attempts[lab.fence(run)].agent == "a2"


def test_a_returning_agent_that_knows_its_attempt_goes_on_with_it() -> None:
    lab = TestLab()
    lab.hello("a1")
    run = lab.submit(a_plan(()))
    fence = lab.fence(run)
    lab.started(fence)
    decision = lab.report("a1", Hello(at=0, facts=facts(boot="b2"), holds=(fence,)))
    assert lab.state(run) == "running"
    assert SendSync(AgentId("a1")) in decision.effects


def test_an_attempt_that_its_agent_forgot_is_lost_and_tried_again() -> None:
    lab = TestLab()
    lab.hello("a1")
    run = lab.submit(a_plan(()))
    lab.started(lab.fence(run))
    lab.report("a1", Hello(at=0, facts=facts(boot="b2")), spool="s2")
    assert lab.state(run) == "waiting"


def test_an_agent_that_says_goodbye_gets_nothing_more() -> None:
    lab = TestLab()
    lab.hello("a1")
    lab.report("a1", Goodbye(at=0, reason="reboot"))
    run = lab.submit(a_plan(()))
    assert lab.state(run) == "waiting"


def test_sleeps_and_comments_need_no_agent() -> None:
    lab = TestLab()
    specs = (JobSpec(kind="comment", text="hi"), JobSpec(kind="sleep", sleep_s=5.0))
    plan = Plan(specs=specs, jobs=(PlannedJob(1, "a", 0), PlannedJob(2, "b", 1, (1,))))
    run = lab.submit(plan)
    assert [lab.state(run, n) for n in (1, 2)] == ["passed", "running"]
    lab.pass_time(5.1)
    assert lab.lab.runs[run].state == "passed"


def test_a_window_that_closes_expires_what_has_not_started() -> None:
    lab = TestLab()
    run = lab.submit(a_plan((), (1,)), deadline=lab.now + 10_000_000)
    lab.pass_time(11)
    assert lab.lab.runs[run].state == "expired"


def test_a_run_that_takes_too_long_times_out_with_all_its_jobs() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan((), (1,)), duration_us=10_000_000)
    lab.pass_time(11)
    assert lab.lab.runs[run].state == "timeout"


def test_a_lab_that_was_stored_and_revived_goes_on_as_the_one_that_was_not() -> None:
    lab = TestLab()
    lab.hello(slots=1, duts=[a_dut()])
    runs = [
        lab.submit(a_plan((), (1,)), 1),
        lab.submit(a_plan((), spec=a_spec(need=board())), 2),
        lab.submit(a_plan((), spec=a_spec(need=board())), 3),
    ]
    lab.lab = revive(recorded(lab.lab), lab.now)
    assert recorded(revive(recorded(lab.lab), lab.now)) == recorded(lab.lab)
    lab.ended(lab.fence(runs[1]))
    lab.ended(lab.fence(runs[0]))
    assert lab.state(runs[2]) == "assigned"
    assert lab.state(runs[0], 2) == "assigned"


def test_a_run_whose_board_does_not_come_back_ends_and_says_so() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut()])
    run = lab.submit(a_plan((), (1,), spec=a_spec(need=board())))
    lab.ended(lab.fence(run, 1))
    lab.ended(lab.fence(run, 2), "error", error=ErrorReport(code="x", message="y", retryable=True))
    for cause in (AgentCause.DOUBT, AgentCause.LOSE):
        on_silence(lab.begin(), AgentId("a1"), cause)
        lab.end()
    lab.pass_time(590)
    assert lab.state(run, 2) == "waiting"
    lab.pass_time(20)
    assert lab.lab.runs[run].state == "error"


def test_a_thousand_jobs_for_one_board_start_one_by_one_in_their_order() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut()])
    run = lab.submit(a_plan(*[()] * 1000, spec=a_spec(need=board())))
    for serial in range(1, 6):
        assert lab.state(run, serial) == "assigned"
        assert lab.state(run, serial + 1) == "waiting"
        lab.ended(lab.fence(run, serial))


def test_a_dut_whose_attempt_is_being_ended_says_so() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut("b1")])
    run = lab.submit(a_plan((), spec=a_spec(need=board())))
    lab.started(lab.fence(run))
    row = lab.lab.duts[DutId("b1")]
    assert dut_state(lab.lab, row) == "leased"
    on_cancel(lab.begin(), ORG, run)
    lab.end()
    assert dut_state(lab.lab, row) == "cancelling"
    lab.ended(lab.fence(run), "cancelled")
    assert dut_state(lab.lab, row) == "available"
