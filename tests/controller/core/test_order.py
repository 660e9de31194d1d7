"""Who goes first: priority with ageing, shares of orgs, quotas; a run that changes its board."""

from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from tests.support.builders import ORG, S, TestLab, a_dut, a_plan, a_spec, board
from tshrag_common.errors import ErrorReport, Refused
from tshrag_common.ids import DutId, OrgId
from tshrag_common.jobs import Plan, PlannedJob
from tshrag_controller.core.lease_events import LeaseAsked
from tshrag_controller.core.line import grant
from tshrag_controller.core.policy import Policy, Quota
from tshrag_controller.core.revive import recorded, revive
from tshrag_controller.core.sched_events import PolicySet, RoleReleased
from tshrag_controller.core.why import explain

ANY = a_spec(need=board(hold="job", role="any"))
BROKEN = ErrorReport(code="host_gone", message="the host broke", retryable=True)


def a_lab(boards: int = 1, **policy: object) -> TestLab:
    lab = TestLab()
    lab.begin().happen(PolicySet(policy=Policy(**policy)))  # type: ignore[arg-type]  # words of a test
    lab.end()
    lab.hello(duts=[a_dut(f"b{number}") for number in range(boards)])
    return lab


def end_oldest(lab: TestLab) -> OrgId:
    """End the attempt that has run for longest; return whose it was."""
    fence = min(fence for agent in lab.lab.agents.values() for fence in agent.fences)
    org = lab.lab.runs[lab.lab.jobs[lab.lab.attempts[fence].job].run].org
    lab.ended(fence)
    return org


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.sampled_from((60.0, 300.0)))
def test_a_stream_of_urgent_work_never_starves_what_is_low(boards: int, ageing_s: float) -> None:
    lab = a_lab(boards, ageing_s=ageing_s)
    for number in range(boards):
        lab.submit(a_plan((), spec=ANY), 1 + number, priority=100)
    low = lab.submit(a_plan((), spec=ANY), 10, priority=25)
    waited = 0
    while lab.state(low) == "waiting":
        lab.now += 60_000_000
        lab.submit(a_plan(*[()] * boards, spec=ANY), 11 + waited, priority=100)
        for _ in range(boards):
            if lab.state(low) == "waiting":
                end_oldest(lab)
        waited += 1
        assert waited * 60 <= 76 * ageing_s, "75 points of priority are 75 times the ageing"
    assert waited * 60 >= 70 * ageing_s, "until then urgent work goes first"


@settings(max_examples=6, deadline=None)
@given(st.sampled_from((1.0, 2.0, 3.0)), st.integers(1, 4))
def test_orgs_that_always_want_more_get_what_their_weights_say(weight: float, boards: int) -> None:
    lab = a_lab(boards, weights={"heavy": weight})
    lab.submit(a_plan(*[()] * 300, spec=ANY), 1, org=OrgId("light"))
    lab.submit(a_plan(*[()] * 300, spec=ANY), 2, org=OrgId("heavy"))
    got: Counter[str] = Counter()
    for _ in range(200):
        lab.now += 120_000_000
        got[end_oldest(lab)] += 1
    share = got["heavy"] / got.total()
    assert abs(share - weight / (1 + weight)) < 0.08


def test_one_who_comes_late_does_not_wait_behind_all_that_another_org_has_queued() -> None:
    lab = a_lab(1)
    lab.submit(a_plan(*[()] * 500, spec=ANY), 1, org=OrgId("flood"))
    for _ in range(40):
        lab.now += 120_000_000
        end_oldest(lab)
    late = lab.submit(a_plan((), spec=ANY), 2, org=OrgId("late"))
    lab.now += 60_000_000
    end_oldest(lab)
    assert lab.state(late) == "assigned"


def test_what_was_used_counts_half_after_its_half_life() -> None:
    lab = a_lab(1, half_life_s=3600.0)
    lab.submit(a_plan((), spec=ANY), 1)
    lab.pass_time(100)
    end_oldest(lab)
    assert lab.lab.orgs[ORG].used_s == pytest.approx(100)
    lab.pass_time(3600)
    lab.submit(a_plan((), spec=ANY), 2)
    end_oldest(lab)
    assert lab.lab.orgs[ORG].used_s == pytest.approx(50, abs=1)


def test_an_earlier_deadline_goes_first_among_equals() -> None:
    lab = a_lab(1)
    lab.submit(a_plan((), spec=ANY), 1)
    lab.submit(a_plan((), spec=ANY), 2)
    pressed = lab.submit(a_plan((), spec=ANY), 3, deadline=lab.now + 600_000_000)
    end_oldest(lab)
    assert lab.state(pressed) == "assigned"


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.sampled_from(("x", "y")), min_size=3))
def test_no_org_has_more_duts_than_its_quota(most: int, boards: int, orgs: list[str]) -> None:
    lab = a_lab(boards, quotas={"x": Quota(running_duts=most)})
    kept = a_spec(need=board())
    for number, org in enumerate(orgs, 1):
        spec = kept if number % 2 else ANY
        lab.submit(a_plan((), (), spec=spec), number, org=OrgId(org))
        has = sum(
            lab.lab.runs[lab.lab.jobs[each.job].run].org == "x"
            for each in lab.lab.attempts.values()
        )
        assert has <= most
    for job in lab.lab.jobs.values():
        said = explain(lab.lab, job, lab.now).sentence
        assert "this very moment" not in said


@pytest.mark.parametrize(("leases", "state"), [(True, "waiting"), (False, "assigned")])
def test_a_board_that_somebody_of_an_org_holds_counts(leases: bool, state: str) -> None:
    lab = a_lab(2, quotas={"x": Quota(running_duts=1, leases=leases)})
    asked = LeaseAsked(
        lease="lease-1",
        org=OrgId("x"),
        by="jo",
        alive_until=lab.now,
        for_us=60 * S,
        dut=DutId("b0"),
    )
    grant(lab.begin(), asked, next(iter(lab.lab.duts.values())))
    lab.end()
    run = lab.submit(a_plan((), spec=a_spec(need=board(hold="job"))), 1, org="x")
    assert lab.state(run) == state
    if leases:
        said = explain(lab.lab, lab.lab.jobs[lab.job(run)], lab.now)
        assert "org x has 1 DUT (1 of them leased), its quota is 1" in str(said.places)
        lab.pass_time(61)
        assert lab.state(run) == "assigned"


def test_who_has_what_is_the_same_after_a_restart() -> None:
    lab = a_lab(3, quotas={"x": Quota(running_duts=2)})
    for number in (1, 2, 3):
        lab.submit(a_plan((), spec=a_spec(need=board(hold="job"))), number, org="x")
    before = dict(lab.lab.indexes.idle.owned)
    assert before == {("x", False): 2}
    assert revive(recorded(lab.lab), lab.now).indexes.idle.owned == before


def test_a_quota_is_a_reason_to_wait_and_one_on_waiting_jobs_refuses() -> None:
    lab = a_lab(2, quotas={"*": Quota(running_duts=1, queued_jobs=2)})
    run = lab.submit(a_plan((), (), spec=ANY), 1)
    assert (lab.state(run, 1), lab.state(run, 2)) == ("assigned", "waiting")
    said = explain(lab.lab, lab.lab.jobs[lab.job(run, 2)], lab.now)
    assert (said.reason, said.sentence) == ("quota", f"org {ORG} has 1 DUT, its quota is 1")
    with pytest.raises(Refused, match=r"1 jobs wait and 2 would be added"):
        lab.submit(a_plan((), (), spec=ANY), 2)


def test_another_policy_reorders_what_waits_and_survives_a_checkpoint() -> None:
    lab = a_lab(1)
    lab.submit(a_plan((), spec=ANY), 1)
    old = lab.submit(a_plan((), spec=ANY), 2, priority=40)
    lab.now += 1_000_000_000
    new = lab.submit(a_plan((), spec=ANY), 3, priority=50)
    lab.begin().happen(PolicySet(policy=Policy(ageing_s=60.0)))
    lab.end()
    assert revive(recorded(lab.lab), lab.now).policy.ageing_s == 60.0
    end_oldest(lab)
    assert (lab.state(old), lab.state(new)) == ("assigned", "waiting")


def test_a_run_whose_first_job_met_a_broken_board_begins_again_on_another() -> None:
    lab = a_lab(2)
    run = lab.submit(a_plan((), spec=a_spec(need=board())), 1)
    assert lab.lab.attempts[lab.fence(run)].dut == "b0"
    decision = lab.ended(lab.fence(run), "error", error=BROKEN)
    assert any(isinstance(event, RoleReleased) for event in decision.events)
    lab.pass_time(5)
    assert lab.lab.attempts[lab.fence(run)].dut == "b1"


def test_a_run_that_has_worked_on_its_board_stays_there() -> None:
    lab = a_lab(2)
    spec = a_spec(need=board())
    plan = Plan(specs=(spec,), jobs=(PlannedJob(1, "flash", 0), PlannedJob(2, "test", 0, (1,))))
    run = lab.submit(plan, 1)
    lab.ended(lab.fence(run, 1))
    lab.ended(lab.fence(run, 2), "error", error=BROKEN)
    lab.pass_time(5)
    assert lab.lab.attempts[lab.fence(run, 2)].dut == "b0"


def test_a_job_waits_for_another_board_than_the_one_that_failed_it_and_says_so() -> None:
    lab = a_lab(2)
    first = lab.submit(a_plan((), spec=ANY), 1)
    other = lab.submit(a_plan((), spec=ANY), 2)
    lab.ended(lab.fence(first), "error", error=BROKEN)
    lab.pass_time(5)
    assert lab.state(first) == "waiting"
    assert "went wrong" in explain(lab.lab, lab.lab.jobs[lab.job(first)], lab.now).sentence
    lab.ended(lab.fence(other))
    assert lab.lab.attempts[lab.fence(first)].dut == "b1"


def test_a_run_that_shuns_a_board_lets_another_have_it() -> None:
    lab = a_lab(2)
    first = lab.submit(a_plan((), spec=a_spec(need=board())), 1)
    lab.submit(a_plan((), spec=a_spec(need=board())), 2)
    lab.ended(lab.fence(first), "error", error=BROKEN)
    lab.pass_time(5)
    assert lab.state(first) == "waiting"
    third = lab.submit(a_plan((), spec=a_spec(need=board())), 3)
    assert lab.lab.attempts[lab.fence(third)].dut == "b0"


def test_roles_that_go_together_may_go_back_where_it_went_wrong() -> None:
    lab = a_lab(2)
    pair = (a_spec(need=board(role="x")), a_spec(need=board(role="y")))
    plan = Plan(specs=pair, jobs=(PlannedJob(1, "x", 0), PlannedJob(2, "y", 1)))
    run = lab.submit(plan, 1)
    for serial in (1, 2):
        lab.ended(lab.fence(run, serial), "error", error=BROKEN)
        lab.pass_time(40)
    for serial in (1, 2):
        if lab.state(run, serial) == "assigned":
            lab.ended(lab.fence(run, serial), "error", error=BROKEN)
            lab.pass_time(40)
    assert "waiting" not in (lab.state(run, 1), lab.state(run, 2))
