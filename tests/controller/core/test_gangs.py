"""Jobs that start together: all of them or none, no partial hold, one end for all."""

import random
from typing import Any

import pytest
from msgspec.structs import replace

from tests.support.builders import TestLab, a_dut, a_plan, a_spec, board
from tshrag_common.errors import ErrorReport, Invalid
from tshrag_common.ids import AgentId, RunId
from tshrag_common.jobs import JobSpec, Need, Plan, PlannedJob
from tshrag_common.reading import profile_of
from tshrag_common.states import JobState
from tshrag_controller.core.decision import SendCancel
from tshrag_controller.core.on_run import on_cancel
from tshrag_controller.core.plan import plan
from tshrag_controller.core.stopping import to_end
from tshrag_controller.core.why import explain

HOST = a_spec(need=Need(role="server"))
BROKEN = ErrorReport(code="host_gone", message="the host broke", retryable=True)


def on_board(role: str, kind: str = "pi", hold: str = "job") -> JobSpec:
    return a_spec(need=board(kind, role, hold))


def a_gang(*specs: JobSpec) -> Plan:
    jobs = tuple(
        PlannedJob(serial, f"m{serial}", serial - 1, gang=1) for serial in range(1, len(specs) + 1)
    )
    return Plan(specs=specs, jobs=jobs)


def a_lab(boards: int = 2) -> TestLab:
    lab = TestLab()
    lab.hello("a1", slots=2, duts=[a_dut(f"b{number}") for number in range(boards)])
    lab.hello("a2", slots=2)
    return lab


def states(lab: TestLab, run: RunId) -> list[str]:
    count = len(lab.lab.runs[run].plan.jobs)
    return [lab.state(run, serial) for serial in range(1, count + 1)]


@pytest.mark.parametrize("hold", ["job", "run"])
def test_all_start_in_one_frame_on_boards_and_hosts(hold: str) -> None:
    lab = a_lab()
    run = lab.submit(a_gang(on_board("x", hold=hold), on_board("y", hold=hold), HOST))
    assert states(lab, run) == ["assigned"] * 3
    duts = {lab.lab.attempts[lab.fence(run, n)].dut for n in (1, 2, 3)}
    assert duts == {"b0", "b1", None}


def test_none_starts_while_one_of_them_has_no_place_and_nothing_is_held() -> None:
    lab = a_lab()
    other = lab.submit(a_plan((), spec=on_board("solo")), 1)
    run = lab.submit(a_gang(on_board("x"), on_board("y"), HOST), 2)
    assert states(lab, run) == ["waiting"] * 3
    assert lab.lab.duts[lab.lab.attempts[lab.fence(other)].dut].dut.id == "b0"  # type: ignore[index]  # it has one
    single = lab.submit(a_plan((), spec=on_board("solo")), 3)
    assert lab.state(single) == "assigned", "what the gang cannot use yet is free for others"
    lab.ended(lab.fence(other))
    assert states(lab, run) == ["waiting"] * 3
    lab.ended(lab.fence(single))
    assert states(lab, run) == ["assigned"] * 3


def test_two_gangs_for_the_same_boards_go_one_after_the_other() -> None:
    lab = a_lab()
    one = lab.submit(a_gang(on_board("x"), on_board("y")), 1)
    two = lab.submit(a_gang(on_board("x"), on_board("y")), 2)
    assert states(lab, one) == ["assigned"] * 2
    assert states(lab, two) == ["waiting"] * 2
    lab.ended(lab.fence(one, 1))
    assert states(lab, two) == ["waiting"] * 2
    lab.ended(lab.fence(one, 2))
    assert states(lab, one) == ["passed"] * 2
    assert states(lab, two) == ["assigned"] * 2


@pytest.mark.parametrize("hold", ["job", "run"])
@pytest.mark.parametrize("seed", range(10))
def test_gangs_that_name_the_same_boards_in_opposite_order_never_wait_for_each_other(
    hold: str, seed: int
) -> None:
    chance = random.Random(seed)
    lab = TestLab()
    kinds = [f"kind{number}" for number in range(4)]
    lab.hello("a1", duts=[a_dut(f"b{kind}", kind) for kind in kinds[:2]])
    lab.hello("a2", duts=[a_dut(f"b{kind}", kind, agent="a2") for kind in kinds[2:]])
    runs = []
    for number in range(1, 7):
        order = kinds if number % 2 else kinds[::-1]
        specs = [on_board(f"r{kind}", kind, hold) for kind in order]
        runs.append(lab.submit(a_gang(*specs), number))
    for _ in range(200):
        lab.pass_time(1)
        live = [fence for agent in lab.lab.agents.values() for fence in agent.fences]
        assert len({lab.lab.jobs[lab.lab.attempts[each].job].run for each in live}) <= 1
        assert live or all(set(states(lab, run)) == {"passed"} for run in runs), "all stand still"
        if not live:
            return
        lab.ended(chance.choice(sorted(live)))
    raise AssertionError([states(lab, run) for run in runs])


def test_a_stream_of_single_jobs_does_not_starve_a_gang() -> None:
    lab = a_lab(3)
    number = 1
    for _ in range(3):
        lab.submit(a_plan((), spec=on_board("solo")), number)
        number += 1
    gang = lab.submit(a_gang(on_board("x"), on_board("y"), on_board("z")), 50)
    for step in range(40):
        lab.pass_time(7)
        lab.submit(a_plan((), spec=on_board("solo")), 100 + step)
        fences = sorted(fence for agent in lab.lab.agents.values() for fence in agent.fences)
        lab.ended(fences[0])
        if states(lab, gang) == ["assigned"] * 3:
            break
        late = lab.lab.jobs[lab.job(gang, 1)]
        assert explain(lab.lab, late, lab.now).sentence
    assert states(lab, gang) == ["assigned"] * 3
    assert step <= 20


def test_slots_of_a_host_are_counted_together() -> None:
    lab = TestLab()
    lab.hello("a1", slots=3)
    two = a_spec(need=Need(slots=2, role="server"))
    other = a_spec(need=Need(slots=2, role="client"))
    run = lab.submit(a_gang(two, other))
    assert states(lab, run) == ["waiting"] * 2
    lab.hello("a2", slots=2)
    assert states(lab, run) == ["assigned"] * 2


def test_resources_and_consumables_are_counted_together() -> None:
    lab = TestLab()
    lab.hello("a1", slots=8, duts=[a_dut("b0"), a_dut("b1")])
    need = replace(board("pi", "x", "job"), resources={"cpus": 1})
    other = replace(board("pi", "y", "job"), resources={"cpus": 1})
    run = lab.submit(a_gang(a_spec(need=need), a_spec(need=other)))
    assert states(lab, run) == ["waiting"] * 2, "the host has one core"


def test_when_one_fails_the_others_are_stopped_and_all_end_together() -> None:
    lab = a_lab()
    run = lab.submit(a_gang(on_board("x"), on_board("y")))
    decision = lab.ended(lab.fence(run, 1), "failed")
    stopped = [each.fence for each in decision.effects if isinstance(each, SendCancel)]
    assert stopped == [lab.fence(run, 2)]
    assert states(lab, run) == ["collecting", "assigned"]
    lab.ended(lab.fence(run, 2), "cancelled")
    assert states(lab, run) == ["failed", "skipped"]
    error = lab.lab.jobs[lab.job(run, 2)].error
    assert error is not None
    assert "started together" in error.message


def test_a_stop_that_was_lost_is_said_again_until_its_end_is_told() -> None:
    lab = a_lab()
    run = lab.submit(a_gang(on_board("x"), on_board("y")))
    agent = AgentId("a1")
    assert to_end(lab.lab, agent) == ()
    lab.ended(lab.fence(run, 1), "failed")  # the stop of its mate goes out, and is lost
    assert to_end(lab.lab, agent) == (lab.fence(run, 2),)
    lab.ended(lab.fence(run, 2), "cancelled")
    assert to_end(lab.lab, agent) == ()


def test_a_member_that_has_passed_stops_nobody() -> None:
    lab = a_lab()
    run = lab.submit(a_gang(on_board("x"), on_board("y")))
    lab.ended(lab.fence(run, 1), "passed")
    assert to_end(lab.lab, AgentId("a1")) == ()


def said_of(lab: TestLab, run: RunId, serial: int) -> tuple[str, str]:
    said = explain(lab.lab, lab.lab.jobs[lab.job(run, serial)], lab.now)
    return said.reason, said.sentence


def test_why_tells_what_the_whole_gang_waits_for_whoever_is_asked() -> None:
    lab = a_lab()
    lab.hello("a3", duts=[a_dut("e1", kind="esp", agent="a3")])
    lab.submit(a_plan((), spec=on_board("solo", kind="esp")), 1)
    run = lab.submit(a_gang(on_board("x"), on_board("y", kind="esp"), HOST), 2)
    found = {said_of(lab, run, serial) for serial in (1, 2, 3)}
    ((reason, sentence),) = found
    assert reason == "capacity"
    assert sentence.startswith("x, y, server start together: none is free for y; y: DUT e1 is held")


def test_why_tells_of_a_gang_whose_members_have_places_but_not_together() -> None:
    lab = a_lab(1)
    run = lab.submit(a_gang(on_board("x"), on_board("y")))
    reason, sentence = said_of(lab, run, 2)
    assert reason == "capacity"
    assert "there are too few for all of them at once" in sentence


def test_why_tells_of_the_mate_that_pauses() -> None:
    lab = a_lab()
    run = lab.submit(a_gang(on_board("x"), on_board("y")))
    lab.ended(lab.fence(run, 1), "passed")
    lab.ended(lab.fence(run, 2), "error", error=BROKEN)
    assert said_of(lab, run, 1)[0] == "backoff"


def test_a_fault_of_the_lab_starts_all_of_them_again() -> None:
    lab = a_lab()
    run = lab.submit(a_gang(on_board("x"), on_board("y")))
    lab.ended(lab.fence(run, 1), "passed")
    lab.ended(lab.fence(run, 2), "error", error=BROKEN)
    assert states(lab, run) == ["waiting"] * 2
    lab.hello("a3", duts=[a_dut("b8", agent="a3"), a_dut("b9", agent="a3")])
    lab.pass_time(5)
    assert states(lab, run) == ["assigned"] * 2
    assert [lab.lab.jobs[lab.job(run, n)].attempts for n in (1, 2)] == [2, 2]


def test_cancelling_one_cancels_all() -> None:
    lab = a_lab()
    run = lab.submit(a_gang(on_board("x"), on_board("y")))
    stopping = on_cancel(lab.begin(), lab.lab.runs[run].org, lab.job(run, 2))
    lab.end()
    assert len(stopping.jobs) == 2
    assert states(lab, run) == ["cancelled"] * 2


@pytest.mark.parametrize("seed", range(20))
def test_gangs_among_other_work_start_whole_and_all_of_it_ends(seed: int) -> None:
    chance = random.Random(seed)
    lab = a_lab(3)
    runs: list[RunId] = []
    for number in range(1, 25):
        size = chance.randrange(1, 4)
        hold = chance.choice(("job", "run"))
        specs = [on_board(f"r{each}", hold=hold) for each in range(size)]
        if chance.random() < 0.5:
            specs.append(HOST)
        solo = chance.random() < 0.5
        run_plan = a_plan((), spec=on_board("solo")) if solo else a_gang(*specs)
        runs.append(lab.submit(run_plan, number, priority=chance.choice((25, 50, 100))))
        _some_time(lab, chance)
        _check_whole(lab, runs)
    for _ in range(400):
        _some_time(lab, chance, 5)
        _check_whole(lab, runs)
        if all(job.ended_at for run in runs for job in _jobs(lab, run)):
            return
    raise AssertionError([(run, states(lab, run)) for run in runs])


def _jobs(lab: TestLab, run: RunId) -> list[Any]:
    return [job for job in lab.lab.jobs.values() if job.run == run]


def _some_time(lab: TestLab, chance: random.Random, seconds: float = 1) -> None:
    lab.pass_time(seconds)
    for agent in list(lab.lab.agents.values()):
        for fence in sorted(agent.fences):
            if chance.random() < 0.5:
                outcome: Any = chance.choice(("passed", "passed", "failed", "error"))
                lab.ended(fence, outcome, error=BROKEN if outcome == "error" else None)


def _check_whole(lab: TestLab, runs: list[RunId]) -> None:
    """A gang waits as a whole, or none of it waits."""
    for run in runs:
        jobs = _jobs(lab, run)
        if lab.lab.runs[run].plan.jobs[0].gang:
            waiting = [job.state is JobState.WAITING for job in jobs]
            assert all(waiting) or not any(waiting)
        for job in jobs:
            if job.state is JobState.WAITING:
                said = explain(lab.lab, job, lab.now).sentence
                assert lab.lab.runs[run].plan.jobs[0].gang or "this very moment" not in said


BOTH = {"duts": ["rpi4"], "hold": "job"}
TARGETS = {"a": {"kind": "pi"}, "b": BOTH, "c": BOTH, "h": {}}


def planned(gang: dict[str, Any]) -> Plan:
    return plan(profile_of({"name": "g", "schedule": {"gang": gang}, "targets": TARGETS}), {})


def test_members_know_their_role_and_the_others() -> None:
    made = planned({"a": {"command": "x"}, "h": {"command": "y", "name": "peer"}})
    assert [job.gang for job in made.jobs] == [1, 1]
    assert [job.name for job in made.jobs] == ["*gang.a", "*gang.peer"]
    assert made.jobs[1].env == {"TSHRAG_ROLE": "h", "TSHRAG_ROLES": "a,h"}
    assert [made.specs[job.spec].need.role for job in made.jobs] == ["a", "h"]


@pytest.mark.parametrize(
    ("gang", "why"),
    [
        ({"b": {"command": "x"}, "c": {"command": "x"}}, "duplicate_dut: .*rpi4"),
        ({"a": {"sequence": [{"command": "x"}]}}, "a sequence cannot be in a gang"),
        ({"a": {"command": "x"}, "n": {"command": "x"}}, "there is no target 'n'"),
        ({"a": {"command": "x"}, "h": {"command": "x", "target": "a"}}, "have one target"),
        ({f"r{n}": {"command": "x"} for n in range(65)}, "gang of 65: gang <= 64"),
    ],
)
def test_what_cannot_start_together_is_refused(gang: dict[str, Any], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        planned(gang)
