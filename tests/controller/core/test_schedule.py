from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings, strategies as st

from tests.support.builders import ORG, TestLab, a_dut, a_plan, a_spec, board, facts
from tshrag_common import ids
from tshrag_common.ids import AgentId
from tshrag_common.inventory import AgentFacts, Dut
from tshrag_common.jobs import JobSpec, Need, Plan, PlannedJob
from tshrag_common.reports import Goodbye, Hello
from tshrag_common.states import JobState
from tshrag_controller.core.events import RolesBound
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.on_run import on_cancel

ROLES = ("client", "server", "any")


@st.composite
def hosts(draw: st.DrawFn) -> list[AgentFacts]:
    """A few hosts with slots and boards; names of boards are unique."""
    found: list[AgentFacts] = []
    for number in range(draw(st.integers(1, 4))):
        kinds = draw(st.lists(st.sampled_from(("pi", "hub")), max_size=3))
        boards = [a_dut(f"b{number}{index}", kind) for index, kind in enumerate(kinds)]
        found.append(facts(f"h{number}", draw(st.integers(0, 4)), boards))
    return found


@st.composite
def specs(draw: st.DrawFn) -> JobSpec:
    if draw(st.booleans()):
        return a_spec(need=Need(slots=draw(st.integers(1, 3))))
    hold = draw(st.sampled_from(("run", "job")))
    role = draw(st.sampled_from(ROLES[:2])) if hold == "run" else "any"
    kind = draw(st.sampled_from(("pi", "hub")))
    return a_spec(need=board(kind, f"{kind}-{role}-{hold}", hold))  # one need a role, as planned


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    own = tuple(draw(st.lists(specs(), min_size=1, max_size=3)))
    count = draw(st.integers(1, 6))
    jobs = tuple(
        PlannedJob(serial, f"j{serial}", draw(st.integers(0, len(own) - 1)))
        for serial in range(1, count + 1)
    )
    return Plan(specs=own, jobs=jobs)


def filled(lab: TestLab, places: Sequence[AgentFacts], work: Sequence[Plan]) -> Lab:
    """Return the Lab after the runs came first and the hosts after them, one by one."""
    for number, plan in enumerate(work, 1):
        lab.submit(plan, number)
    for each in places:
        lab.report(each.agent, Hello(at=0, facts=each))
    return lab.lab


def live(lab: Lab) -> Counter[str]:
    return Counter(str(job.state) for job in lab.jobs.values())


@given(hosts(), st.lists(plans(), min_size=1, max_size=4))
def test_nothing_is_filled_beyond_its_capacity(places: list[AgentFacts], work: list[Plan]) -> None:
    lab = filled(TestLab(), places, work)
    slots: Counter[str] = Counter()
    duts: Counter[str] = Counter()
    for attempt in lab.attempts.values():
        job = lab.jobs[attempt.job]
        if attempt.dut is None:
            slots[attempt.agent] += lab.runs[job.run].spec(job).need.slots
        else:
            duts[attempt.dut] += 1
            assert lab.duts[attempt.dut].agent == attempt.agent
    assert all(count <= lab.agents[AgentId(name)].facts.slots for name, count in slots.items())
    assert all(count == 1 for count in duts.values())


@given(hosts(), st.lists(plans(), min_size=1, max_size=4))
def test_a_run_has_the_boards_of_all_its_roles_or_of_none(
    places: list[AgentFacts], work: list[Plan]
) -> None:
    lab = filled(TestLab(), places, work)
    for run in lab.runs.values():
        roles = {
            spec.need.role
            for number, spec in enumerate(run.plan.specs)
            if spec.need.role.endswith("-run") and any(j.spec == number for j in run.plan.jobs)
        }
        assert set(run.bound) in (set(), roles)
        boards = [dut for _, dut in run.bound.values()]
        assert len(set(boards)) == len(boards)
        assert all(lab.duts[dut].kept_by == run.id for dut in boards)


@settings(max_examples=60)
@given(hosts(), st.lists(plans(), min_size=1, max_size=4), st.permutations(range(4)))
def test_the_order_in_which_hosts_are_known_does_not_matter(
    places: list[AgentFacts], work: list[Plan], turned: list[int]
) -> None:
    shuffled = [places[index] for index in turned if index < len(places)]
    counts = []
    for order in (places, shuffled):
        lab = TestLab()
        for each in order:
            lab.report(each.agent, Hello(at=0, facts=each))
        for number, plan in enumerate(work, 1):
            lab.submit(plan, number, park=True)
        counts.append(live(lab.lab))
    assert counts[0] == counts[1]


def test_the_emptiest_host_is_taken_and_one_where_it_went_wrong_comes_last() -> None:
    lab = TestLab()
    lab.hello("a1", slots=4)
    lab.hello("a2", slots=2)
    first = lab.submit(a_plan((), (), ()), 1)
    hosts_of = [lab.lab.attempts[lab.fence(first, n)].agent for n in (1, 2, 3)]
    assert hosts_of == ["a1", "a1", "a1"] or hosts_of == ["a1", "a1", "a2"]
    lab.ended(lab.fence(first, 1), "error")
    lab.pass_time(3)
    assert lab.lab.attempts[lab.fence(first, 1)].agent == "a2"


def test_a_host_where_it_went_wrong_is_taken_when_there_is_no_other() -> None:
    lab = TestLab()
    lab.hello("a1")
    run = lab.submit(a_plan(()))
    lab.ended(lab.fence(run), "error")
    lab.pass_time(3)
    assert lab.state(run) == "assigned"


def test_an_urgent_run_gets_the_board_before_one_that_asks_for_another_set() -> None:
    lab = TestLab()
    pair = (a_spec(need=board()), a_spec(need=board("hub", "hub")))
    both = Plan(specs=pair, jobs=(PlannedJob(1, "a", 0), PlannedJob(2, "b", 1)))
    patient = lab.submit(both, 1, priority=10)
    urgent = lab.submit(a_plan((), spec=a_spec(need=board())), 2, priority=90)
    lab.hello(duts=[a_dut("p1"), a_dut("h1", "hub")])
    assert lab.state(urgent) == "assigned"
    assert lab.state(patient) == "waiting"


def test_a_job_may_take_a_board_that_its_own_run_keeps_though_others_wait_for_one() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut()])
    kept, loose = a_spec(need=board()), a_spec(need=board(hold="job", role="any"))
    jobs = (PlannedJob(1, "a", 0), PlannedJob(2, "b", 1, (1,)), PlannedJob(3, "c", 0, (2,)))
    own = lab.submit(Plan(specs=(kept, loose), jobs=jobs), 1)
    lab.submit(a_plan((), spec=loose), 2, priority=90)
    lab.ended(lab.fence(own, 1))
    assert lab.state(own, 2) == "assigned", "else the run would wait for itself"
    lab.ended(lab.fence(own, 2))
    assert lab.state(own, 3) == "assigned"


def test_a_large_job_is_not_overtaken_by_those_behind_it_for_want_of_a_pass() -> None:
    lab = TestLab()
    lab.hello(slots=3)
    large = lab.submit(a_plan((), spec=a_spec(need=Need(slots=3))), 1)
    small = lab.submit(a_plan(()), 2)
    assert (lab.state(large), lab.state(small)) == ("assigned", "waiting")
    lab.ended(lab.fence(large))
    assert lab.state(small) == "assigned"


def test_a_host_that_shrank_gives_nothing_new_until_it_is_empty_enough() -> None:
    lab = TestLab()
    lab.hello(slots=3)
    run = lab.submit(a_plan((), (), (), ()))
    fences = [lab.fence(run, n) for n in (1, 2, 3)]
    lab.report("a1", Hello(at=0, facts=facts(slots=1), holds=tuple(fences)))
    lab.ended(fences[0])
    lab.ended(fences[1])
    assert lab.state(run, 4) == "waiting"
    lab.ended(fences[2])
    assert lab.state(run, 4) == "assigned"


def test_nothing_goes_to_a_host_that_has_said_goodbye_and_all_when_it_is_back() -> None:
    lab = TestLab()
    lab.hello("a1")
    lab.report("a1", Goodbye(at=0))
    run = lab.submit(a_plan(()))
    assert lab.state(run) == "waiting"
    lab.hello("a1")
    assert lab.state(run) == "assigned"


def test_a_cancelled_run_that_waited_for_boards_leaves_the_queue() -> None:
    lab = TestLab()
    lab.hello(duts=[a_dut()])
    first = lab.submit(a_plan((), spec=a_spec(need=board())), 1)
    gone = lab.submit(a_plan((), spec=a_spec(need=board())), 2)
    last = lab.submit(a_plan((), spec=a_spec(need=board())), 3)
    on_cancel(lab.begin(), ORG, gone)
    lab.end()
    lab.ended(lab.fence(first))
    assert lab.state(last) == "assigned"


def test_one_turn_assigns_up_to_its_limit_and_the_next_goes_on() -> None:
    lab = TestLab()
    lab.hello(slots=5000)
    run = lab.submit(a_plan(*[()] * 4200))
    states = Counter(lab.lab.jobs[ids.job_of(run, n)].state for n in range(1, 4201))
    assert states == {JobState.ASSIGNED: 4096, JobState.WAITING: 104}
    lab.pass_time(0)
    assert lab.state(run, 4200) == "assigned"


def test_boards_are_matched_along_augmenting_paths() -> None:
    lab = TestLab()
    rare = Dut(id=ids.dut_id("rare"), kind="pi", transports=("ssh",), labels={"usb": "3"})
    lab.hello(duts=[rare, a_dut("plain")])
    need = board(role="fast")
    labelled = Need(
        target=need.target.__class__(runtime="ssh", kind="pi", labels={"usb": "3"}), role="fast"
    )
    pair = (a_spec(need=board(role="any-of-them")), a_spec(need=labelled))
    plan = Plan(specs=pair, jobs=(PlannedJob(1, "a", 0), PlannedJob(2, "b", 1)))
    lab.submit(plan)
    bound = [each for each in lab.decision.events if isinstance(each, RolesBound)]
    assert [(role, dut) for role, _, dut in bound[0].duts] == [
        ("any-of-them", "plain"), ("fast", "rare"),
    ]  # fmt: skip
