from hypothesis import given, settings, strategies as st

from tests.controller.core.test_schedule import filled, hosts, plans
from tests.support.builders import ORG, S, TestLab, a_dut, a_plan, a_spec, board
from tshrag_common.errors import ErrorReport
from tshrag_common.ids import AgentId, RunId
from tshrag_common.inventory import AgentFacts
from tshrag_common.jobs import JobSpec, Need, Plan, PlannedJob, Target
from tshrag_common.reports import Goodbye
from tshrag_common.states import JobState
from tshrag_controller.core.intent_events import IntentSet
from tshrag_controller.core.on_intent import on_set
from tshrag_controller.core.on_run import on_cancel
from tshrag_controller.core.why import Explanation, explain

NO_ROUTE = ErrorReport(code="dut", message="no route", retryable=True)


def why(lab: TestLab, run: RunId, serial: int = 1) -> Explanation:
    return explain(lab.lab, lab.lab.jobs[lab.job(run, serial)], lab.now)


@settings(max_examples=150)
@given(hosts(), st.lists(plans(), min_size=1, max_size=4))
def test_what_explain_says_fits_a_free_place_has_been_started(
    places: list[AgentFacts], work: list[Plan]
) -> None:
    lab = TestLab()
    filled(lab, places, work)
    for job in lab.lab.jobs.values():
        if job.state is JobState.WAITING:
            found = explain(lab.lab, job, lab.now)
            assert found.reason in ("capacity", "target")
            assert "this very moment" not in found.sentence
            assert "wait" not in found.sentence or found.places


def test_a_lab_without_hosts_says_how_to_get_one() -> None:
    lab = TestLab()
    found = why(lab, lab.submit(a_plan(())))
    assert (found.reason, found.places) == ("target", ())
    assert found.sentence == (
        "no agent has said hello to this lab; start one with 'tshrag-agent run'"
    )


def test_capacity_says_what_is_taken_and_how_many_are_ahead() -> None:
    lab = TestLab()
    lab.hello(slots=1)
    lab.submit(a_plan((), ()), 1)
    found = why(lab, lab.submit(a_plan(()), 2))
    assert found.reason == "capacity"
    assert found.sentence == "1 of 1 slots taken, 1 job goes before it"
    assert found.ahead == 1


def test_a_target_that_no_place_fits_names_the_nearest_and_what_it_misses() -> None:
    lab = TestLab()
    target = Target(runtime="ssh", kind="pi", labels={"arch": "arm64"})
    run = lab.submit(a_plan((), spec=a_spec(need=Need(target=target, role="board"))))
    lab.hello(duts=[a_dut("hub", "hub"), a_dut("pi")])
    found = why(lab, run)
    assert found.reason == "target"
    assert found.sentence == "no place fits; nearest is pi: label arch is missing"
    assert [(place.dut, place.fits) for place in found.places] == [("hub", False), ("pi", False)]


def test_it_names_the_place_that_is_free_again_first_not_one_that_is_out_of_service() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut("b1"), a_dut("b2")])
    on_set(lab.begin(), IntentSet(kind="dut", name="b1", what="quarantined", by="op"))
    lab.end()
    spec = a_spec(need=board(hold="job"))
    first = lab.submit(a_plan((), spec=spec), 1)
    found = why(lab, lab.submit(a_plan((), spec=spec), 2))
    held = f"DUT b2 is held by {lab.job(first)} (run1) of {ORG}"
    assert found.sentence == f"{held} (and 1 more place)"


def test_a_dependency_names_what_it_comes_after() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan((), (1,)))
    found = why(lab, run, 2)
    assert found.reason == "dependency"
    assert found.sentence == f"it comes after {lab.job(run, 1)} (assigned)"


def test_backoff_says_how_long_and_why() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan(()))
    lab.ended(lab.fence(run), "error", error=NO_ROUTE)
    found = why(lab, run)
    assert found.reason == "backoff"
    assert found.sentence.startswith("attempt 2 begins in ")
    assert found.sentence.endswith(" s: no route")


def test_a_window_says_when_it_opens() -> None:
    lab = TestLab()
    lab.hello()
    found = why(lab, lab.submit(a_plan(()), not_before=lab.now + 60 * S))
    assert (found.reason, found.sentence) == ("window", "its window opens in 60 s")


def test_a_held_board_names_the_job_that_has_it_not_a_fence() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut()])
    first = lab.submit(a_plan((), spec=a_spec(need=board())), 1)
    found = why(lab, lab.submit(a_plan((), spec=a_spec(need=board())), 2))
    assert found.sentence == f"DUT board is held by {lab.job(first)} (run1) of default"


def test_a_faulty_board_an_absent_host_and_a_drained_one_are_told() -> None:
    lab = TestLab()
    sick = a_dut("sick", faulty="no answer on ssh")
    lab.hello("a1", duts=[sick])
    run = lab.submit(a_plan((), spec=a_spec(need=board())))
    assert why(lab, run).sentence == "DUT sick is faulty: no answer on ssh"
    lab.report("a1", Goodbye(at=0))
    assert why(lab, run).sentence == "host a1 is offline"


def test_roles_that_are_given_together_say_which_one_is_missing() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut("p1"), a_dut("h1", "hub")])
    pair = (a_spec(need=board()), a_spec(need=board("hub", "hub")))
    both = Plan(specs=pair, jobs=(PlannedJob(1, "a", 0), PlannedJob(2, "b", 1)))
    lab.submit(a_plan((), spec=a_spec(need=board("hub", "hub"))), 1)
    found = why(lab, lab.submit(both, 2))
    assert found.reason == "capacity"
    assert found.sentence == ("the DUTs of board, hub are given all at once: none is free for hub")


def test_two_roles_and_one_board_are_too_few() -> None:
    lab = TestLab()
    pair = (a_spec(need=board(role="client")), a_spec(need=board(role="server")))
    both = Plan(specs=pair, jobs=(PlannedJob(1, "a", 0), PlannedJob(2, "b", 1)))
    run = lab.submit(both)
    lab.hello(duts=[a_dut()])
    assert why(lab, run).sentence == (
        "the DUTs of client, server are given all at once: there are too few for all of them"
    )


def test_a_started_job_says_where_it_is_and_an_ended_one_how_it_ended() -> None:
    lab = TestLab()
    lab.hello()
    run = lab.submit(a_plan((), ()))
    lab.started(lab.fence(run))
    assert why(lab, run).sentence == "attempt 1 is running on a1"
    lab.ended(lab.fence(run), samples_upto=3)
    assert why(lab, run).sentence == ("it has ended; its last samples and output are on their way")
    on_cancel(lab.begin(), ORG, lab.job(run, 2))
    lab.end()
    assert why(lab, run, 2).sentence == "it has cancelled"


def test_a_sleep_runs_nowhere() -> None:
    lab = TestLab()
    plan = Plan(specs=(JobSpec(kind="sleep", sleep_s=5.0),), jobs=(PlannedJob(1, "a", 0),))
    assert why(lab, lab.submit(plan)).sentence == "it runs"


def test_the_host_of_a_board_that_is_gone_is_told() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut()])
    run = lab.submit(a_plan((), (1,), spec=a_spec(need=board())))
    lab.hello(duts=[])
    lab.ended(lab.fence(run))
    assert AgentId("a1") in lab.lab.agents
    assert why(lab, run, 2).sentence == "host a1 does not tell of DUT board any more"
