"""DUTs promised for a time to come: nothing is started that would run into it."""

import pytest

from tests.support.builders import ORG, S, TestLab, a_dut, a_plan, a_spec, board
from tshrag_common.errors import LabError, PolicyDenied
from tshrag_common.ids import DutId
from tshrag_controller.core.lease_events import DutReserved, LeaseAsked
from tshrag_controller.core.leases import on_release, on_renew, on_take
from tshrag_controller.core.on_reserve import on_give_up, on_reserve, reservation_named
from tshrag_controller.core.on_run import on_cancel
from tshrag_controller.core.people import Ask, Lease, Reservation
from tshrag_controller.core.revive import recorded, revive
from tshrag_controller.core.why import explain

MINUTES = 60 * S
SHORT = a_spec(need=board(hold="job"), timeout_s=300.0)
LONG = a_spec(need=board(hold="job"), timeout_s=1200.0)


def a_lab(*duts: str) -> TestLab:
    lab = TestLab()
    lab.hello(duts=[a_dut(name) for name in duts or ("b1",)])
    return lab


def reserve(
    lab: TestLab, in_min: int, for_min: int = 60, dut: str = "b1", by: str = "jo", kind: str = ""
) -> Reservation:
    start = lab.now + in_min * MINUTES
    asked = DutReserved(
        reservation=f"lease-r{in_min}", dut=DutId(dut), org=ORG, by=by, start=start,
        end=start + for_min * MINUTES, reason="demo",
    )  # fmt: skip
    try:
        return on_reserve(lab.begin(), asked, kind, {})
    finally:
        lab.end()


def named(lab: TestLab, name: str, by: str = "jo") -> Reservation:
    found = reservation_named(lab.lab, ORG, by, name)
    assert found is not None
    return found


def take(lab: TestLab, for_min: int, by: str = "al", dut: str = "b1") -> Lease | Ask:
    asked = LeaseAsked(
        lease=f"lease-{by}", org=ORG, by=by, alive_until=lab.now, for_us=for_min * MINUTES, dut=dut
    )
    try:
        return on_take(lab.begin(), asked, False)
    finally:
        lab.end()


def test_a_job_that_could_run_into_it_waits_and_a_shorter_one_goes_before() -> None:
    lab = a_lab()
    reserve(lab, 10)
    long = lab.submit(a_plan((), spec=LONG), 1)
    short = lab.submit(a_plan((), spec=SHORT), 2)
    assert (lab.state(long), lab.state(short)) == ("waiting", "assigned")
    lab.ended(lab.fence(short))
    said = explain(lab.lab, lab.lab.jobs[lab.job(long)], lab.now)
    assert said.sentence == (
        "DUT b1 is reserved for default/jo in 10 min, and this may take 20 min"
    )


def test_a_run_that_keeps_its_board_counts_all_its_jobs_there() -> None:
    lab = a_lab()
    reserve(lab, 12)
    kept = a_spec(need=board(), timeout_s=300.0)
    run = lab.submit(a_plan((), (1,), (2,), spec=kept))
    assert lab.state(run) == "waiting", "three times five minutes"
    on_give_up(lab.begin(), ORG, "jo", named(lab, "lease-r12"))
    lab.end()
    assert lab.state(run) == "assigned"


def test_at_its_start_it_is_a_lease_and_jobs_wait_until_it_ends() -> None:
    lab = a_lab()
    reserve(lab, 10, 30)
    waits = lab.submit(a_plan((), spec=LONG))
    lab.pass_time(10 * 60)
    lease = lab.lab.people.of_dut("b1")
    assert lease is not None
    assert (lease.owner, lease.until - lab.now) == ("default/jo", 30 * MINUTES)
    assert not lab.lab.people.reservations
    lab.pass_time(30 * 60)
    assert lab.state(waits) == "assigned"


def test_it_waits_for_a_job_that_is_late_and_goes_before_everybody() -> None:
    lab = a_lab()
    run = lab.submit(a_plan((), spec=SHORT), 1)
    lab.started(lab.fence(run))
    with pytest.raises(LabError, match="may still be at work for a job then"):
        reserve(lab, 5)
    reserve(lab, 6)
    urgent = lab.submit(a_plan((), spec=SHORT), 2, priority=100)
    lab.pass_time(6 * 60)
    assert lab.lab.people.of_dut("b1") is None
    lab.ended(lab.fence(run))
    assert lab.lab.people.of_dut("b1") is not None
    assert lab.state(urgent) == "waiting"


def test_leases_give_way_too() -> None:
    lab = a_lab()
    reserve(lab, 60)
    with pytest.raises(LabError, match="reserved for default/jo in 60 min, and this may take 90"):
        take(lab, 90)
    take(lab, 30)
    with pytest.raises(LabError, match="renew it for a shorter time"):
        on_renew(lab.begin(), ORG, "al", "b1", 90 * MINUTES)


def test_whose_lease_reaches_into_their_own_reservation_goes_on() -> None:
    lab = a_lab()
    lease = take(lab, 30, by="jo")
    assert isinstance(lease, Lease)
    reserve(lab, 20, 60)
    lab.pass_time(20 * 60)
    assert lab.lab.people.of_dut("b1") is lease
    assert lease.until - lab.now == 60 * MINUTES


def test_two_do_not_get_the_same_time_and_another_board_will_do() -> None:
    lab = a_lab("b1", "b2")
    assert reserve(lab, 10, dut="", kind="pi").dut == "b1"
    assert reserve(lab, 20, dut="", kind="pi").dut == "b2"
    with pytest.raises(LabError, match=r"b1 is reserved for default/jo then; .*b2 is reserved"):
        reserve(lab, 30, dut="", kind="pi")
    with pytest.raises(PolicyDenied):
        on_give_up(lab.begin(), ORG, "al", named(lab, "lease-r10", "al"))


def test_it_is_named_by_its_board_too_where_that_says_which() -> None:
    lab = a_lab()
    first = reserve(lab, 10, 5)
    assert named(lab, "b1") == first
    assert reservation_named(lab.lab, ORG, "al", "b1") is None, "of somebody else"
    take(lab, 5, by="jo")
    assert reservation_named(lab.lab, ORG, "jo", "b1") is None, "the lease is meant"
    on_release(lab.begin(), ORG, "jo", "b1")
    lab.end()
    reserve(lab, 30, 5)
    assert reservation_named(lab.lab, ORG, "jo", "b1") is None, "which of the two?"


def test_it_is_kept_over_a_restart() -> None:
    lab = a_lab()
    made = reserve(lab, 10)
    lab.lab = revive(recorded(lab.lab), lab.now)
    assert lab.lab.people.reservations == {made.id: made}
    lab.pass_time(10 * 60)
    assert lab.lab.people.of_dut("b1") is not None


def test_what_could_not_be_kept_ends_with_its_time() -> None:
    lab = a_lab()
    reserve(lab, 10, 30)
    lab.hello(duts=[])
    lab.pass_time(41 * 60)
    assert not lab.lab.people.reservations
    assert not lab.lab.people.leases


def test_a_run_that_ends_while_its_board_is_leased_keeps_it_no_more() -> None:
    lab = a_lab()
    run = lab.submit(a_plan((), (1,), spec=a_spec(need=board(), timeout_s=300.0)))
    lab.started(lab.fence(run))
    reserve(lab, 6, 30)
    lab.ended(lab.fence(run))
    assert lab.state(run, 2) == "assigned", "it ends before"
    lab.pass_time(6 * 60)
    assert lab.lab.people.of_dut("b1") is None, "late"
    lab.ended(lab.fence(run, 2), "error")
    assert lab.lab.people.of_dut("b1") is not None
    assert lab.lab.duts[DutId("b1")].kept_by == run, "its second attempt waits"
    on_cancel(lab.begin(), ORG, run)
    lab.end()
    assert lab.lab.duts[DutId("b1")].kept_by is None
    lab.pass_time(31 * 60)
    assert lab.lab.people.of_dut("b1") is None
    assert not lab.lab.duts[DutId("b1")].holder
