"""Leases: what is shared is given again in time, what is owned only when nobody can be on it."""

import pytest

from tests.support.builders import ORG, T0, S, TestLab, a_dut, a_plan, a_spec, board, facts
from tshrag_common.errors import LabError
from tshrag_common.ids import AgentId, DutId, Fence, OrgId
from tshrag_common.inventory import Dut
from tshrag_common.reports import DutChanged, Ended, Hello
from tshrag_common.states import AgentCause, AgentState, AttemptState, JobState
from tshrag_controller.core.decision import SendCancel, SendStart
from tshrag_controller.core.events import AttemptLost, AttemptResolved
from tshrag_controller.core.on_agent import on_silence
from tshrag_controller.core.on_lease import on_leases_over, on_resolve, resolving, unreachable
from tshrag_controller.core.on_run import on_cancel
from tshrag_controller.core.why import explain
from tshrag_controller.dispatch import Specs, start_of

ON_BOARD = a_spec(need=board(), timeout_s=600.0)
ANY_BOARD = a_spec(need=board(hold="job"), timeout_s=600.0)


def shared(name: str = "board") -> Dut:
    return a_dut(name, shared=True)


def two_ways() -> TestLab:
    """A board that a1 and a2 reach."""
    lab = TestLab()
    lab.hello("a1", duts=[shared()])
    lab.hello("a2", duts=[shared()])
    return lab


def silent(lab: TestLab, agent: str, seconds: float) -> None:
    """Let the lab hear nothing of `agent` for so long, as the watch for silence does."""
    name = AgentId(agent)
    lab.now = max(lab.now, T0 + round((seconds + 1) * S))
    for cause, after_s in ((AgentCause.DOUBT, 15.0), (AgentCause.LOSE, 30.0)):
        if seconds >= after_s:
            on_silence(lab.begin(), name, cause)
            lab.end()
    decision = lab.begin()
    if seconds >= 30.0:
        on_leases_over(decision, name, seconds)
    lab.end()


def holder(lab: TestLab) -> Fence:
    return lab.lab.duts[DutId("board")].holder


def test_a_dut_that_two_agents_tell_of_is_one_dut_with_one_holder() -> None:
    lab = two_ways()
    first = lab.submit(a_plan((), spec=ANY_BOARD), 1)
    second = lab.submit(a_plan((), spec=ANY_BOARD), 2)
    assert len(lab.lab.duts) == 1
    assert lab.lab.duts[DutId("board")].ways == ("a1", "a2")
    assert lab.state(first) == "assigned"
    assert lab.state(second) == "waiting"
    lab.ended(lab.fence(first))
    assert holder(lab) == lab.fence(second)


def test_an_owned_dut_belongs_to_the_agent_that_told_of_it_first() -> None:
    lab = TestLab()
    lab.hello("a1", duts=[a_dut()])
    lab.hello("a2", duts=[shared()])
    row = lab.lab.duts[DutId("board")]
    assert (row.agent, row.ways) == ("a1", ())


def test_a_dut_is_shared_only_while_all_who_reach_it_say_so() -> None:
    lab = two_ways()
    lab.hello("a2", duts=[a_dut()])
    assert lab.lab.duts[DutId("board")].ways == ("a1",)
    lab.hello("a1", duts=[a_dut()])
    assert lab.lab.duts[DutId("board")].ways == ()


def test_a_shared_dut_goes_through_the_agent_that_is_here() -> None:
    lab = two_ways()
    silent(lab, "a1", 31.0)
    run = lab.submit(a_plan((), spec=ON_BOARD))
    assert lab.lab.attempts[lab.fence(run)].agent == "a2"
    assert lab.lab.runs[run].bound["board"] == ("a2", "board")


def test_a_free_shared_dut_is_with_an_agent_that_is_here() -> None:
    lab = two_ways()
    silent(lab, "a1", 31.0)
    assert lab.lab.duts[DutId("board")].agent == "a2"
    silent(lab, "a2", 31.0)
    lab.hello("a1", duts=[shared()])
    assert lab.lab.duts[DutId("board")].agent == "a1"


def test_the_attempt_on_a_shared_dut_has_a_lease_and_its_command_says_so() -> None:
    lab = two_ways()
    run = lab.submit(a_plan((), spec=ON_BOARD))
    assert start_of(lab.lab, lab.fence(run), Specs()).lease_s == 20.0


@pytest.mark.parametrize("need", [ON_BOARD, a_spec(timeout_s=600.0)])
def test_an_owned_dut_and_a_slot_of_a_host_have_none(need: object) -> None:
    lab = TestLab()
    lab.hello("a1", duts=[a_dut()])
    run = lab.submit(a_plan((), spec=need))  # type: ignore[arg-type]  # a spec
    assert lab.lab.attempts[lab.fence(run)].lease_s == 0.0


def test_a_shared_dut_is_given_again_after_thirty_seconds_and_not_before() -> None:
    lab = two_ways()
    run = lab.submit(a_plan((), spec=ON_BOARD))
    first = lab.fence(run)
    assert lab.lab.attempts[first].agent == "a1"
    silent(lab, "a1", 29.9)
    assert holder(lab) == first
    silent(lab, "a1", 30.0)
    assert holder(lab) == 0
    assert lab.state(run) == "waiting"
    lab.pass_time(5.0)  # the pause before another attempt
    assert holder(lab) == lab.fence(run) > first
    assert lab.lab.attempts[holder(lab)].agent == "a2"


def test_a_start_that_was_sent_after_the_last_heartbeat_has_a_whole_lease() -> None:
    lab = two_ways()
    silent(lab, "a1", 40.0)
    run = lab.submit(a_plan((), spec=ANY_BOARD), 1)
    fence = lab.fence(run)
    agent = lab.lab.attempts[fence].agent
    on_leases_over(lab.begin(), agent, 40.0)
    lab.end()
    assert holder(lab) == fence, "it may be on its way still"
    lab.now += 31 * S
    on_leases_over(lab.begin(), agent, 71.0)
    lab.end()
    assert lab.lab.attempts[fence].outcome == "lost"


def test_a_report_of_the_one_who_lost_the_dut_has_no_effect() -> None:
    lab = two_ways()
    run = lab.submit(a_plan((), spec=ON_BOARD))
    first = lab.fence(run)
    silent(lab, "a1", 30.0)
    lab.pass_time(5.0)
    second = lab.fence(run)
    lab.report("a1", Ended(at=lab.now, fence=first, outcome="passed"))
    assert lab.lab.counters["reports_refused.stale_fence"] == 1
    assert holder(lab) == second
    assert lab.state(run) == "assigned"


def test_an_owned_dut_is_not_given_again_while_its_agent_is_away() -> None:
    lab = TestLab()
    lab.hello("a1", duts=[a_dut()])
    lab.hello("a2")
    run = lab.submit(a_plan((), spec=ON_BOARD))
    silent(lab, "a1", 500.0)
    assert lab.state(run) == "assigned"
    assert holder(lab) == lab.fence(run)


def test_the_job_on_an_owned_dut_is_given_up_at_its_own_limit() -> None:
    lab = TestLab()
    lab.hello("a1", duts=[a_dut()])
    run = lab.submit(a_plan((), spec=ON_BOARD))
    silent(lab, "a1", 30.0)
    lab.pass_time(629.0 - 31.0)
    assert lab.state(run) == "assigned"
    lab.pass_time(2.0)
    assert lab.state(run) == "waiting"
    lab.pass_time(100.0)
    assert lab.state(run) == "waiting"  # its DUT is reached through a1 only
    lab.hello("a1", duts=[a_dut()])
    assert lab.state(run) == "assigned"


def test_disconnect_gives_a_host_slot_a_lease_of_its_own() -> None:
    lab = TestLab()
    lab.hello("a1")
    lab.hello("a2")
    run = lab.submit(a_plan((), spec=a_spec(timeout_s=600.0, disconnect_s=60.0)))
    where = lab.lab.attempts[lab.fence(run)].agent
    silent(lab, where, 69.0)
    assert lab.state(run) == "assigned"
    silent(lab, where, 70.0)
    assert lab.state(run) == "waiting"


def test_a_shared_dut_stays_as_long_as_somebody_tells_of_it() -> None:
    lab = two_ways()
    lab.hello("a1", duts=[])
    row = lab.lab.duts[DutId("board")]
    assert (row.agent, row.ways, row.gone) == ("a2", ("a2",), False)
    lab.hello("a2", duts=[])
    assert not lab.lab.duts


def test_a_shared_dut_whose_holder_tells_no_more_of_it_goes_on_through_another() -> None:
    lab = two_ways()
    first = lab.submit(a_plan((), spec=ANY_BOARD), 1)
    second = lab.submit(a_plan((), spec=ANY_BOARD), 2)
    lab.report("a1", Hello(at=lab.now, facts=facts("a1"), holds=(lab.fence(first),)))
    assert holder(lab) == lab.fence(first)
    lab.ended(lab.fence(first))
    assert lab.lab.attempts[lab.fence(second)].agent == "a2"


def test_either_agent_of_a_shared_dut_may_say_that_it_is_bad() -> None:
    lab = two_ways()
    lab.report("a2", DutChanged(at=lab.now, dut=DutId("board"), faulty="host key changed"))
    run = lab.submit(a_plan((), spec=ON_BOARD))
    assert lab.state(run) == "waiting"
    said = explain(lab.lab, lab.lab.jobs[lab.job(run)], lab.now)
    assert [place.host for place in said.places] == ["a1", "a2"]
    assert "host key changed" in said.sentence


# a person's word


def lost_board() -> tuple[TestLab, str]:
    lab = TestLab()
    lab.hello("a1", duts=[a_dut()])
    run = lab.submit(a_plan((), spec=ON_BOARD))
    silent(lab, "a1", 31.0)
    return lab, lab.job(run)


def test_a_person_gives_up_an_attempt_and_the_log_knows_who_and_why() -> None:
    lab, job = lost_board()
    lab.hello("a2", duts=[a_dut()])  # the board was carried there
    fence = holder(lab)
    on_resolve(lab.begin(), ORG, job, "jo", "powered off")
    decision = lab.end()
    resolved, lost = (each for each in decision.events[:2])
    assert resolved == AttemptResolved(fence=fence, by="jo", reason="powered off")
    assert isinstance(lost, AttemptLost)
    assert lost.reason == "resolved by jo: powered off"
    assert SendCancel(AgentId("a1"), fence, "lost") in decision.effects
    lab.pass_time(5.0)
    assert lab.lab.attempts[holder(lab)].agent == "a2"
    lab.hello("a1", duts=[a_dut()])
    assert lab.lab.duts[DutId("board")].agent == "a2"


def test_an_attempt_whose_agent_answers_is_not_given_up() -> None:
    lab = TestLab()
    lab.hello("a1", duts=[a_dut()])
    run = lab.submit(a_plan((), spec=ON_BOARD))
    with pytest.raises(LabError, match="its agent a1 is online; end it in order: tshrag cancel"):
        on_resolve(lab.begin(), ORG, lab.job(run), "jo", "x")


@pytest.mark.parametrize("name", ["{job}", "{job}.1", "{fence}"])
def test_an_attempt_has_three_names(name: str) -> None:
    lab, job = lost_board()
    found = resolving(lab.lab, ORG, name.format(job=job, fence=holder(lab)))
    assert found.attempt.fence == holder(lab)
    assert found.frees == "DUT board"


@pytest.mark.parametrize("name", ["{job}.2", "17", "job-nothing"])
def test_what_is_not_alive_cannot_be_given_up(name: str) -> None:
    lab, job = lost_board()
    with pytest.raises(LabError, match="is not known"):
        resolving(lab.lab, ORG, name.format(job=job))


def test_another_org_gives_up_nothing_of_ours() -> None:
    lab, job = lost_board()
    with pytest.raises(LabError, match="is not known"):
        resolving(lab.lab, OrgId("bolt"), job)


# cancel while the agent is away


def test_a_cancel_on_an_agent_that_is_away_says_so_and_until_when() -> None:
    lab, job = lost_board()
    fence = holder(lab)
    on_cancel(lab.begin(), ORG, job)
    decision = lab.end()
    assert lab.lab.jobs[lab.lab.attempts[fence].job].state is JobState.CANCELLED
    assert not any(isinstance(effect, SendStart) for effect in decision.effects)
    said = unreachable(lab.lab, fence, lab.now)
    assert said.startswith("cancelling (agent unreachable): a1 is lost")
    assert "598 s at the latest" in said
    assert holder(lab) == fence
    lab.pass_time(631.0)
    assert holder(lab) == 0
    assert not lab.lab.attempts or lab.lab.attempts[fence].state is AttemptState.LOST
    assert lab.lab.agents[AgentId("a1")].state is AgentState.LOST
