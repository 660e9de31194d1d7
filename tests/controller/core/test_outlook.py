"""When a job that waits may start, and what would start it sooner."""

from hypothesis import given, settings, strategies as st

from tests.support.builders import ORG, S, TestLab, a_dut, a_plan, a_spec, board
from tests.support.lab_drill import history
from tshrag_common.ids import DutId, RunId
from tshrag_common.jobs import JobSpec, Need, Target
from tshrag_common.states import JobState
from tshrag_controller.core.free_at import Span
from tshrag_controller.core.intent_events import IntentSet
from tshrag_controller.core.lease_events import DutReserved, LeaseAsked
from tshrag_controller.core.leases import on_take
from tshrag_controller.core.on_intent import on_set
from tshrag_controller.core.on_reserve import on_reserve
from tshrag_controller.core.outlook import Outlook, outlook
from tshrag_controller.core.policy import Policy, Quota
from tshrag_controller.core.sched_events import PolicySet
from tshrag_controller.core.the_line import lines

ANY = a_spec(need=board(hold="job"), timeout_s=600.0)
MINUTES = {"true": Span(60 * S, 120 * S, 300 * S)}


def a_lab(*duts: str, labels: dict[str, str] | None = None) -> TestLab:
    lab = TestLab()
    first, *others = duts or ("b1",)
    known = [a_dut(first, labels=labels or {}), *(a_dut(name) for name in others)]
    lab.hello(slots=1, duts=known)
    return lab


def looks(lab: TestLab, run: RunId, serial: int = 1, observed: bool = True) -> Outlook:
    known = MINUTES if observed else {}
    return outlook(lab.lab, lab.lab.jobs[lab.job(run, serial)], lab.now, known.get)


def lease(lab: TestLab, dut: str, for_s: int) -> None:
    asked = LeaseAsked(
        lease=f"lease-{dut}", org=ORG, by="jo", alive_until=lab.now, for_us=for_s * S, dut=dut
    )
    on_take(lab.begin(), asked, False)
    lab.end()


def submit(lab: TestLab, number: int, spec: JobSpec = ANY, **more: object) -> RunId:
    return lab.submit(a_plan((), spec=spec), number, **more)  # type: ignore[arg-type]  # any fields


def test_it_starts_when_what_is_at_work_has_taken_as_long_as_such_jobs_take() -> None:
    lab = a_lab()
    submit(lab, 1)
    lab.pass_time(30)
    waits = submit(lab, 2)
    found = looks(lab, waits)
    assert found.start == Span(lab.now + 30 * S, lab.now + 90 * S, lab.now + 270 * S)
    assert (found.ahead, found.observed) == (0, True)
    (server,) = found.servers
    assert server.holder.startswith("DUT b1 is held by job-")


def test_without_an_earlier_job_like_it_the_limits_bound_it() -> None:
    lab = a_lab()
    submit(lab, 1)
    waits = submit(lab, 2)
    found = looks(lab, waits, observed=False)
    assert found.start == Span(lab.now, lab.now + 600 * S, lab.now + 600 * S)
    assert not found.observed


def test_who_stands_before_it_goes_first_on_all_places() -> None:
    lab = a_lab("b1", "b2")
    for number in range(1, 6):
        last = submit(lab, number)
    found = looks(lab, last)
    assert found.ahead == 2
    assert found.start is not None
    assert found.start.mid == lab.now + 240 * S, "two at work, two before it, two boards"


def test_a_leased_board_is_free_when_its_time_is_over_or_sooner() -> None:
    lab = a_lab()
    lease(lab, "b1", 3600)
    waits = submit(lab, 1)
    found = looks(lab, waits)
    assert found.start == Span(lab.now, lab.now + 3600 * S, lab.now + 3600 * S)
    (change,) = found.changes
    assert (change.what, change.start.mid) == ("if default/jo gives b1 back", lab.now)


def test_a_condition_less_is_said_with_the_start_that_it_would_bring() -> None:
    lab = a_lab("b1", "b2", labels={"hdmi": "yes"})
    lease(lab, "b1", 3600)
    target = Target(runtime="ssh", kind="pi", labels={"hdmi": "yes"}, hold="job")
    waits = submit(lab, 1, a_spec(need=Need(target=target, role="board")))
    found = looks(lab, waits)
    assert [(each.what, each.start.mid - lab.now) for each in found.changes] == [
        ("without label hdmi=yes", 0), ("if default/jo gives b1 back", 0),
    ]  # fmt: skip


def test_a_priority_that_goes_before_the_others_is_said() -> None:
    lab = a_lab()
    for number in (1, 2, 3):
        last = submit(lab, number)
    found = looks(lab, last)
    (change,) = found.changes
    assert change.what == "with priority 100, not 50"
    assert change.start.mid == lab.now + 120 * S


def test_nobody_can_say_when_what_is_out_of_service_comes_back_unless_it_was_said() -> None:
    lab = a_lab()
    out = IntentSet(kind="dut", name="b1", what="maintenance", by="op", reason="smoke")
    on_set(lab.begin(), out)
    lab.end()
    waits = submit(lab, 1)
    assert looks(lab, waits).start is None
    until = IntentSet(kind="dut", name="b1", what="maintenance", by="op", until=lab.now + 60 * S)
    on_set(lab.begin(), until)
    lab.end()
    found = looks(lab, waits).start
    assert found == Span(*[lab.now + 60 * S] * 3)


def test_what_is_out_of_service_would_be_free_if_it_came_back() -> None:
    lab = a_lab("b1", "b2")
    on_set(lab.begin(), IntentSet(kind="agent", name="a1", what="draining", by="op"))
    lab.end()
    waits = submit(lab, 1)
    now = Span(*[lab.now] * 3)
    assert looks(lab, waits).changes == (("if host a1 is taken back into service", now),)
    on_set(lab.begin(), IntentSet(kind="dut", name="b1", what="quarantined", by="op"))
    lab.end()
    (change,) = looks(lab, waits).changes
    assert change == ("if host a1 is taken back into service", now), "b2 would do"


def test_an_org_starts_no_more_than_its_quota_whatever_is_free() -> None:
    lab = a_lab("b1", "b2", "b3")
    lab.begin().happen(PolicySet(policy=Policy(quotas={"*": Quota(running_duts=1)})))
    lab.end()
    submit(lab, 1)
    lab.pass_time(30)
    found = looks(lab, submit(lab, 2))
    assert found.start == Span(lab.now + 30 * S, lab.now + 90 * S, lab.now + 270 * S)
    more = "if the quota of org default were more than 1"
    assert found.changes == ((more, Span(*[lab.now] * 3)),)
    third = looks(lab, submit(lab, 3)).start
    assert third == Span(lab.now + 90 * S, lab.now + 210 * S, lab.now + 570 * S)
    (line,), _ = lines(lab.lab, lab.now, MINUTES.get)
    assert line.next == found.start


def test_it_starts_behind_a_reservation_that_it_could_run_into() -> None:
    lab = a_lab("b1")
    begins = lab.now + 300 * S
    asked = DutReserved(
        reservation="lease-9", dut=DutId("b1"), org=ORG, by="jo", start=begins,
        end=begins + 3600 * S,
    )  # fmt: skip
    on_reserve(lab.begin(), asked, "", {})
    lab.end()
    waits = submit(lab, 1)
    found = looks(lab, waits)
    assert lab.state(waits) == "waiting"
    assert found.start == Span(*[begins + 3600 * S] * 3)
    now = Span(*[lab.now] * 3)
    assert found.changes == (("if default/jo gives up the reservation of b1", now),)
    (line,), _ = lines(lab.lab, lab.now, MINUTES.get)
    assert line.next == found.start
    quick = submit(lab, 2, a_spec(need=board(hold="job"), timeout_s=200.0))
    assert lab.state(quick) == "assigned", "it ends before"


def test_a_quota_that_people_use_up_ends_with_their_lease() -> None:
    lab = a_lab("b1", "b2")
    lab.begin().happen(PolicySet(policy=Policy(quotas={"*": Quota(running_duts=1)})))
    lab.end()
    lease(lab, "b2", 600)
    found = looks(lab, submit(lab, 1))
    assert found.start == Span(lab.now, lab.now + 600 * S, lab.now + 600 * S)
    assert [change.what for change in found.changes] == [
        "if default/jo gives b2 back",
        "if the quota of org default were more than 1",
    ]


def test_a_job_on_the_host_waits_for_a_slot() -> None:
    lab = a_lab()
    submit(lab, 1, a_spec())
    waits = submit(lab, 2, a_spec())
    found = looks(lab, waits).start
    assert found is not None
    assert found.mid == lab.now + 120 * S


def test_a_run_keeps_its_board_for_all_its_jobs_so_the_next_run_waits_for_all() -> None:
    lab = a_lab()
    lab.submit(a_plan((), (1,), (2,), spec=a_spec(need=board())), 1)
    waits = lab.submit(a_plan((), spec=a_spec(need=board())), 2)
    found = looks(lab, waits).start
    assert found is not None
    assert found.mid == lab.now + 360 * S


def test_the_lines_tell_who_is_next_and_when_who_comes_now_would_start() -> None:
    lab = a_lab()
    for number in (1, 2, 3):
        submit(lab, number)
    ((line,), more) = lines(lab.lab, lab.now, MINUTES.get)
    assert (line.waiting, line.people, line.places, line.free, more) == (2, 0, 1, 0, 0)
    assert line.next is not None
    assert line.last is not None
    assert (line.next.mid - lab.now, line.last.mid - lab.now) == (120 * S, 360 * S)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_whatever_has_happened_an_estimate_is_made_and_is_no_earlier_than_now(seed: int) -> None:
    drill = history(seed)
    before = repr(drill.lab.people), dict(drill.lab.duts)
    for job in drill.lab.jobs.values():
        run = drill.lab.runs[job.run]
        if job.state is JobState.WAITING and not job.missing and run.spec(job).is_placed:
            found = outlook(drill.lab, job, drill.now, MINUTES.get)
            if found.start is not None:
                assert drill.now <= found.start.low <= found.start.mid <= found.start.high
            assert all(change.start.mid >= drill.now for change in found.changes)
    lines(drill.lab, drill.now, MINUTES.get)
    assert before == (repr(drill.lab.people), dict(drill.lab.duts)), "an estimate changes nothing"
