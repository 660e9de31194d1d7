"""A person takes, renews, returns a DUT; jobs and people stand in one line."""

import pytest

from tests.support.builders import ORG, T0, S, TestLab, a_dut, a_plan, a_spec, board
from tshrag_common.errors import LabError, NotFound, PolicyDenied
from tshrag_common.ids import AgentId
from tshrag_controller.core.decision import SendHold, SendRelease
from tshrag_controller.core.lease_events import LeaseAsked, LeaseEnded
from tshrag_controller.core.leases import (
    marks_of,
    note_activity,
    on_release,
    on_renew,
    on_share,
    on_take,
    on_transfer,
)
from tshrag_controller.core.line import place_in_line
from tshrag_controller.core.people import Ask, Lease
from tshrag_controller.core.revive import recorded, revive
from tshrag_controller.core.why import explain

A1 = AgentId("a1")


def a_lab(*duts: str) -> TestLab:
    lab = TestLab()
    lab.hello(duts=[a_dut(name) for name in duts or ("b1",)])
    return lab


def ask(lab: TestLab, name: str = "lease-1", by: str = "jo", **more: object) -> LeaseAsked:
    fields = {
        "lease": name, "org": ORG, "by": by, "alive_until": lab.now + 60 * S,
        "for_us": 3600 * S, **more,
    }  # fmt: skip
    return LeaseAsked(**fields)  # type: ignore[arg-type]  # any fields


def take(lab: TestLab, name: str = "lease-1", wait: bool = False, **more: object) -> Lease | Ask:
    try:
        return on_take(lab.begin(), ask(lab, name, **more), wait)  # type: ignore[arg-type]
    finally:
        lab.end()


def held(lab: TestLab, name: str = "lease-1", **more: object) -> Lease:
    lease = take(lab, name, **more)  # type: ignore[arg-type]
    assert isinstance(lease, Lease)
    return lease


def test_a_leased_dut_is_not_given_to_a_job_and_why_names_the_holder() -> None:
    lab = a_lab()
    held(lab, dut="b1", reason="new kernel")
    run = lab.submit(a_plan((), spec=a_spec(need=board())))
    assert lab.state(run) == "waiting"
    said = explain(lab.lab, lab.lab.jobs[lab.job(run)], lab.now).sentence
    assert said == "DUT b1 is leased by default/jo (new kernel)"


def test_the_agent_is_told_of_a_lease_and_of_its_end() -> None:
    lab = a_lab()
    lease = held(lab, dut="b1")
    assert lab.decision.effects == [SendHold(A1, lease.fence)]
    assert marks_of(lab.lab, A1) == [(lease.fence, 1)]
    on_release(lab.begin(), ORG, "jo", "b1")
    assert SendRelease(A1, lease.fence) in lab.end().effects
    assert marks_of(lab.lab, A1) == []


def test_a_returned_dut_goes_to_the_job_that_waits_in_the_same_turn() -> None:
    lab = a_lab()
    held(lab)
    run = lab.submit(a_plan((), spec=a_spec(need=board())))
    on_release(lab.begin(), ORG, "jo", "lease-1")
    lab.end()
    assert lab.state(run) == "assigned"


def test_a_dut_that_a_job_holds_is_not_leased_and_the_answer_names_the_job() -> None:
    lab = a_lab()
    run = lab.submit(a_plan((), spec=a_spec(need=board())))
    with pytest.raises(LabError, match=rf"b1 is held by {lab.job(run)} .* --wait"):
        take(lab, dut="b1")


def test_who_waits_stands_in_one_line_with_the_jobs() -> None:
    lab = a_lab()
    plan = a_plan((), spec=a_spec(need=board(hold="job")))
    first = lab.submit(plan, 1)
    second = lab.submit(plan, 2)
    waiting = take(lab, wait=True, kind="pi")
    third = lab.submit(plan, 3)
    assert isinstance(waiting, Ask)
    assert place_in_line(lab.lab, waiting) == 1
    lab.ended(lab.fence(first))
    assert lab.state(second) == "assigned", "it was there before"
    lab.ended(lab.fence(second))
    lease = lab.lab.people.named("lease-1")
    assert lease is not None
    assert lab.state(third) == "waiting", "it came later"


def test_an_urgent_job_goes_before_a_person_who_came_first() -> None:
    lab = a_lab()
    held(lab, "lease-0")
    take(lab, "lease-1", wait=True)
    urgent = lab.submit(a_plan((), spec=a_spec(need=board())), priority=100)
    on_release(lab.begin(), ORG, "jo", "lease-0")
    lab.end()
    assert lab.state(urgent) == "assigned"


def test_a_place_in_the_line_is_kept_while_somebody_asks_again() -> None:
    lab = a_lab()
    held(lab, "lease-0")
    take(lab, wait=True)
    lab.pass_time(50)
    take(lab, wait=True)
    lab.pass_time(50)
    assert "lease-1" in lab.lab.people.asks
    lab.pass_time(20)
    assert "lease-1" not in lab.lab.people.asks


def test_a_lease_that_nobody_renews_ends_at_its_time() -> None:
    lab = a_lab()
    lease = held(lab, for_us=60 * S)
    on_renew(lab.begin(), ORG, "jo", "lease-1", 120 * S)
    lab.end()
    assert (lease.rev, lease.until) == (2, T0 + 120 * S)
    lab.pass_time(61)
    assert lab.lab.people.leases
    decision = lab.pass_time(60)
    (ended,) = [each for each in decision.events if isinstance(each, LeaseEnded)]
    assert ended.cause == "expired"
    assert not lab.lab.duts[lease.dut].holder


def test_an_idle_lease_is_returned_and_one_that_is_used_is_not() -> None:
    lab = a_lab()
    lease = held(lab, idle_us=60 * S)
    lab.pass_time(50)
    note_activity(lab.lab, A1, {str(lease.fence): 10.0}, lab.now)
    lab.pass_time(20)
    assert lab.lab.people.leases, "it was used 40 s after it was taken"
    lab.pass_time(40)
    assert not lab.lab.people.leases


def test_only_the_owner_renews_and_returns() -> None:
    lab = a_lab()
    held(lab)
    with pytest.raises(PolicyDenied, match="is of default/jo"):
        on_release(lab.begin(), ORG, "al", "lease-1")
    with pytest.raises(NotFound, match="lease-1"):
        on_renew(lab.begin(), ORG, "jo", "lease-2", S)


def test_a_lease_that_is_handed_over_has_a_new_fence() -> None:
    lab = a_lab()
    lease = held(lab)
    old = lease.fence
    on_share(lab.begin(), ORG, "jo", "b1", ("radio",))
    lab.end()
    on_transfer(lab.begin(), (ORG, "jo"), "b1", (ORG, "al"), "holiday")
    decision = lab.end()
    assert lease.fence > old
    assert (lease.owner, lease.shared) == ("default/al", ())
    assert decision.effects == [SendHold(A1, lease.fence)]
    assert lab.lab.duts[lease.dut].holder == lease.fence


def test_the_same_request_again_is_the_same_lease() -> None:
    lab = a_lab("b1", "b2")
    assert held(lab).fence == held(lab).fence
    with pytest.raises(PolicyDenied):
        take(lab, by="al")


def test_what_nothing_fits_is_refused_with_what_comes_nearest() -> None:
    lab = a_lab()
    with pytest.raises(LabError, match="no DUT is like that; nearest is b1: kind"):
        take(lab, kind="hub", wait=True)
    with pytest.raises(NotFound, match="is not known; nearest: b1"):
        take(lab, dut="b2")


def test_leases_and_the_line_are_there_after_a_restart() -> None:
    lab = a_lab()
    lease = held(lab, for_us=60 * S)
    take(lab, "lease-2", wait=True)
    lab.lab = revive(recorded(lab.lab), lab.now)
    assert lab.lab.people.leases[lease.fence] == lease
    assert marks_of(lab.lab, A1) == [(lease.fence, 1)]
    lab.pass_time(59)
    take(lab, "lease-2", wait=True)
    lab.pass_time(2)
    granted = lab.lab.people.named("lease-2")
    assert granted is not None
    assert granted.fence > lease.fence
