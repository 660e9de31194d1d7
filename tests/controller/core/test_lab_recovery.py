"""What a Lab must still know after a restart, and what must not come back from the past."""

from tests.support.builders import S, TestLab, a_dut, a_plan, a_spec, board, facts
from tshrag_common.ids import AgentId
from tshrag_common.reports import Ended, Goodbye, Hello, ReportBatch, Started
from tshrag_common.states import AgentCause
from tshrag_controller.core.on_agent import on_reports, on_silence
from tshrag_controller.core.on_attempt import on_stored
from tshrag_controller.core.revive import recorded, revive


def restarted(lab: TestLab) -> None:
    lab.lab = revive(recorded(lab.lab), lab.now)


def away(lab: TestLab, agent: str = "a1") -> None:
    for cause in (AgentCause.DOUBT, AgentCause.LOSE):
        on_silence(lab.begin(), AgentId(agent), cause)
        lab.end()


def test_a_job_whose_data_is_on_its_way_has_its_time_again_after_a_restart() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan(()))
    lab.ended(lab.fence(run), samples_upto=7)
    restarted(lab)
    lab.pass_time(30)
    assert lab.state(run) == "collecting"
    on_stored(lab.begin(), AgentId("a1"), 7, 0)
    lab.end()
    assert lab.state(run) == "passed"


def test_a_job_that_waited_for_nothing_when_the_controller_died_is_no_error() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan(()))
    lab.ended(lab.fence(run), samples_upto=7)
    lab.lab.attempts[lab.fence(run)].samples_upto = 0  # as after a frame that was cut
    restarted(lab)
    lab.pass_time(61)
    assert lab.state(run) == "passed"


def test_an_attempt_on_a_lost_agent_is_given_up_after_a_restart_too() -> None:
    lab = TestLab()
    lab.hello("a1")
    run = lab.submit(a_plan((), spec=a_spec(timeout_s=60.0)))
    lab.started(lab.fence(run))
    away(lab)
    restarted(lab)
    lab.pass_time(89)
    assert lab.state(run) == "running"
    lab.pass_time(2)
    assert lab.state(run) == "waiting"


def test_what_an_agent_left_running_when_it_said_goodbye_is_given_up_at_its_limit() -> None:
    lab = TestLab()
    lab.hello("a1")
    run = lab.submit(a_plan((), spec=a_spec(timeout_s=60.0)))
    lab.started(lab.fence(run))
    lab.report("a1", Goodbye(at=0))
    assert lab.state(run) == "running"
    lab.pass_time(91)
    assert lab.state(run) == "waiting"


def test_the_clock_of_an_agent_decides_nothing() -> None:
    lab = TestLab()
    lab.hello("a1")
    run = lab.submit(a_plan((), spec=a_spec(timeout_s=60.0)))
    yesterday = Started(at=lab.now - 86_400 * S, fence=lab.fence(run))
    lab.report("a1", yesterday)
    away(lab)
    lab.pass_time(80)
    assert lab.state(run) == "running"


def test_a_start_that_is_told_late_moves_the_moment_of_giving_up() -> None:
    lab = TestLab()
    lab.hello("a1")
    run = lab.submit(a_plan((), spec=a_spec(timeout_s=60.0)))
    away(lab)
    lab.pass_time(80)
    lab.started(lab.fence(run))
    lab.pass_time(80)
    assert lab.state(run) == "running"
    lab.pass_time(11)
    assert lab.state(run) == "waiting"


def test_a_window_that_opened_while_the_controller_was_away_is_open() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan(()), not_before=lab.now + 5 * S)
    lab.now += 6 * S
    restarted(lab)
    lab.pass_time(0)
    assert lab.state(run) == "assigned"


def test_a_board_that_comes_back_still_belongs_to_the_run_that_keeps_it() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut()])
    run = lab.submit(a_plan((), (1,), spec=a_spec(need=board())))
    lab.hello(duts=[])
    lab.ended(lab.fence(run, 1))
    assert lab.state(run, 2) == "waiting", "nobody tells of the board"
    lab.hello(duts=[a_dut()])
    assert lab.state(run, 2) == "assigned"


def test_a_board_that_nobody_tells_of_leaves_when_the_last_one_lets_go() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut()])
    run = lab.submit(a_plan((), spec=a_spec(need=board())))
    fence = lab.fence(run)
    lab.report("a1", Hello(at=0, facts=facts(), holds=(fence,)))
    assert "board" in lab.lab.duts
    lab.ended(fence)
    assert "board" not in lab.lab.duts


def test_a_board_that_was_plugged_into_another_host_is_found_there() -> None:
    lab = TestLab()
    lab.hello("a1", duts=[a_dut()])
    lab.hello("a2", duts=[a_dut()])
    assert lab.lab.duts[a_dut().id].agent == "a1", "the first that told of it owns it"
    lab.hello("a1", duts=[])
    assert lab.lab.duts[a_dut().id].agent == "a2"


def test_reports_of_a_spool_that_is_gone_count_for_nothing() -> None:
    lab = TestLab()
    lab.hello("a1")
    lab.report("a1", Hello(at=0, facts=facts(boot="b2")), spool="s2")
    run = lab.submit(a_plan(()))
    lab.report("a1", Started(at=0, fence=lab.fence(run)), spool="s2")
    late = ReportBatch(
        agent=AgentId("a1"), spool="s1", first_seq=1, reports=(Hello(at=0, facts=facts()),)
    )
    on_reports(lab.begin(), late)
    lab.end()
    assert lab.state(run) == "running", "the old hello does not know the attempt: it is old"
    assert lab.lab.counters == {"reports_refused.stale_spool": 1}
    lab.report("a1", Ended(at=0, fence=lab.fence(run), outcome="passed"), spool="s2")
    assert lab.state(run) == "passed"
