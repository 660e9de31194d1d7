"""Who gives way to whom: as few as can be, of lower priority only, and only so often."""

import random
from typing import Any

import pytest
from msgspec.structs import replace

from tests.support.builders import ORG, TestLab, a_dut, a_spec, board
from tshrag_common.ids import AgentId, Fence, JobId, RunId
from tshrag_common.jobs import JobSpec, Need, Plan, PlannedJob
from tshrag_common.states import JOB, JobState
from tshrag_controller.core.decision import SendCancel
from tshrag_controller.core.lab import Job
from tshrag_controller.core.policy import Policy, Quota
from tshrag_controller.core.preempt_events import AttemptPreempted
from tshrag_controller.core.revive import recorded, revive
from tshrag_controller.core.sched_events import PolicySet
from tshrag_controller.core.stopping import to_end
from tshrag_controller.core.why import explain

LOW, NORMAL, URGENT = 25, 50, 100
OLD = 61.0
"""Seconds after which an attempt may give way."""


def spec(need: Need, preemptible: bool = True, **more: Any) -> JobSpec:
    return a_spec(need=need, preemptible=preemptible, **more)


def on_board(hold: str = "job", kind: str = "pi") -> JobSpec:
    return spec(board(kind, "solo", hold))


def on_host(slots: int = 1) -> JobSpec:
    return spec(Need(slots=slots))


class Trial:
    """A lab in which jobs start as soon as they are assigned."""

    def __init__(self, boards: int = 2, slots: int = 2, **policy: Any) -> None:
        self.lab = TestLab()
        self.lab.hello("a1", slots=slots, duts=[a_dut(f"b{n}") for n in range(boards)])
        self.number = 0
        if policy:
            self.lab.begin().happen(PolicySet(policy=Policy(**policy)))
            self.lab.end()

    def submit(self, *specs: JobSpec, priority: int = LOW, org: str = ORG) -> RunId:
        self.number += 1
        plan = Plan(
            specs=specs,
            jobs=tuple(PlannedJob(n, f"j{n}", n - 1, after=(n - 1,) if n > 1 else ()) for n in
                       range(1, len(specs) + 1)),
        )  # fmt: skip
        run = self.lab.submit(plan, self.number, priority=priority, org=org)
        self.start()
        return run

    @property
    def history(self) -> list[object]:
        return [event for _, events in self.lab.frames for event in events]

    def start(self) -> None:
        for fence, attempt in list(self.lab.lab.attempts.items()):
            if not attempt.outcome and not attempt.started_at:
                self.lab.started(fence)

    def job(self, run: RunId, serial: int = 1) -> Job:
        return self.lab.lab.jobs[self.lab.job(run, serial)]

    def stopping(self) -> list[RunId]:
        jobs = self.lab.lab.jobs.values()
        return sorted(job.run for job in jobs if job.stop == "preempted")

    def end(self, run: RunId, outcome: Any = "cancelled") -> None:
        self.lab.ended(self.job(run).fence, outcome)
        self.start()


def test_the_one_with_the_least_lost_work_gives_way_and_is_queued_again() -> None:
    trial = Trial()
    old = trial.submit(on_board())
    trial.lab.pass_time(30)
    young = trial.submit(on_board())
    trial.lab.pass_time(OLD)
    urgent = trial.submit(on_board(), priority=URGENT)
    assert trial.stopping() == [young]
    assert trial.job(urgent).state is JobState.WAITING
    trial.end(young)
    assert trial.job(urgent).state is JobState.RUNNING
    job = trial.job(young)
    assert (job.state, job.attempts, job.faults, job.preempted) == (JobState.WAITING, 1, 0, 1)
    assert job.avoid == ()
    assert trial.job(old).state is JobState.RUNNING
    trial.end(urgent, "passed")
    assert trial.job(young).state is JobState.RUNNING, "it had kept its place"
    trial.end(young, "passed")
    assert trial.job(young).state is JobState.PASSED
    assert trial.job(young).error is None


def test_the_stop_is_sent_and_said_again_until_the_end_is_told() -> None:
    trial = Trial(1)
    low = trial.submit(on_board())
    trial.lab.pass_time(OLD)
    urgent = trial.submit(on_board(), priority=URGENT)
    assert trial.stopping() == [low]
    assert SendCancel(AgentId("a1"), trial.job(low).fence) in trial.lab.decision.effects
    assert to_end(trial.lab.lab, AgentId("a1")) == (trial.job(low).fence,)
    again = trial.submit(on_board(), priority=URGENT)
    assert len([e for e in trial.history if isinstance(e, AttemptPreempted)]) == 1
    assert {trial.job(urgent).state, trial.job(again).state} == {JobState.WAITING}


@pytest.mark.parametrize(
    ("low", "high", "gap", "gives"),
    [(LOW, URGENT, 50, True), (NORMAL, URGENT, 50, True), (51, URGENT, 50, False),
     (URGENT, URGENT, 1, False), (99, URGENT, 1, True)],
)  # fmt: skip
def test_only_who_is_far_enough_below_gives_way(low: int, high: int, gap: int, gives: bool) -> None:
    trial = Trial(1, preempt_gap=gap)
    run = trial.submit(on_board(), priority=low)
    trial.lab.pass_time(OLD)
    trial.submit(on_board(), priority=high)
    assert trial.stopping() == ([run] if gives else [])


def test_nothing_gives_way_that_its_profile_does_not_allow_or_that_does_not_help() -> None:
    trial = Trial(1)
    trial.submit(spec(board("pi", "solo", "job"), preemptible=False))
    trial.submit(on_host())
    trial.lab.pass_time(OLD)
    trial.submit(on_board(), priority=URGENT)
    assert trial.stopping() == []


def test_a_free_place_ends_nobody() -> None:
    trial = Trial(2)
    trial.submit(on_board())
    trial.lab.pass_time(OLD)
    urgent = trial.submit(on_board(), priority=URGENT)
    assert trial.job(urgent).state is JobState.RUNNING
    assert trial.stopping() == []


def test_who_runs_not_long_enough_gives_way_when_time_comes_and_why_says_so() -> None:
    trial = Trial(1)
    low = trial.submit(on_board())
    trial.lab.pass_time(20)
    urgent = trial.submit(on_board(), priority=URGENT)
    assert trial.stopping() == []
    said = explain(trial.lab.lab, trial.job(urgent), trial.lab.now).sentence
    assert "in 40 s something of lower priority may be ended for it" in said
    trial.lab.pass_time(41)
    assert trial.stopping() == [low]
    said = explain(trial.lab.lab, trial.job(urgent), trial.lab.now).sentence
    assert f"{trial.job(low).id} of lower priority is ended for it" in said


def test_a_job_gives_way_so_often_and_no_more() -> None:
    trial = Trial(1, preempt_most=2, preempt_after_s=1)
    low = trial.submit(on_board())
    for _ in range(2):
        trial.lab.pass_time(2)
        urgent = trial.submit(on_board(), priority=URGENT)
        assert trial.stopping() == [low]
        trial.end(low)
        trial.end(urgent, "passed")
    trial.lab.pass_time(2)
    trial.submit(on_board(), priority=URGENT)
    assert trial.stopping() == []


def test_it_can_be_switched_off() -> None:
    trial = Trial(1, preempt_most=0)
    trial.submit(on_board())
    trial.lab.pass_time(OLD)
    trial.submit(on_board(), priority=URGENT)
    assert trial.stopping() == []


def test_one_that_ends_by_itself_meanwhile_has_its_result() -> None:
    trial = Trial(1)
    low = trial.submit(on_board())
    trial.lab.pass_time(OLD)
    trial.submit(on_board(), priority=URGENT)
    trial.end(low, "failed")
    assert trial.job(low).state is JobState.FAILED


def test_one_that_breaks_meanwhile_is_tried_again_as_ever() -> None:
    trial = Trial(1)
    low = trial.submit(on_board())
    trial.lab.pass_time(OLD)
    trial.submit(on_board(), priority=URGENT)
    trial.end(low, "error")
    assert (trial.job(low).state, trial.job(low).faults, trial.job(low).stop) == (
        JobState.WAITING, 1, "",
    )  # fmt: skip


def test_slots_of_a_host_are_freed_by_as_few_as_can_be() -> None:
    trial = Trial(0, slots=4)
    runs = []
    for slots in (1, 1, 2):
        runs.append(trial.submit(on_host(slots)))
        trial.lab.pass_time(10)
    trial.lab.pass_time(OLD)
    urgent = trial.submit(on_host(2), priority=URGENT)
    assert trial.stopping() == [runs[2]], "one of two slots does what two of one would"
    trial.end(runs[2])
    assert trial.job(urgent).state is JobState.RUNNING


def test_a_run_that_keeps_its_board_gives_it_back_where_it_has_just_begun() -> None:
    trial = Trial(1)
    fresh = trial.submit(on_board("run"), on_board("run"))
    trial.lab.pass_time(OLD)
    urgent = trial.submit(on_board("run"), priority=URGENT)
    assert trial.stopping() == [fresh]
    trial.end(fresh)
    assert trial.job(urgent).state is JobState.RUNNING
    trial.end(urgent, "passed")
    trial.end(fresh, "passed")
    assert trial.job(fresh, 2).state is JobState.RUNNING
    trial.lab.pass_time(OLD)
    trial.submit(on_board("run"), priority=URGENT)
    assert trial.stopping() == [], "what its first job did was done on that very board"


def test_boards_for_several_roles_are_freed_together_or_not_at_all() -> None:
    trial = Trial(2)
    low = trial.submit(on_board())
    stays = trial.submit(spec(board("pi", "solo", "job"), preemptible=False))
    trial.lab.pass_time(OLD)
    two = (spec(board("pi", "x")), spec(board("pi", "y")))
    pair = trial.submit(*two, priority=URGENT)
    assert trial.stopping() == [], "one board alone would not help"
    trial.end(stays, "passed")
    assert trial.stopping() == [low], "the free one and this one do"
    trial.end(low)
    assert trial.job(pair).state is JobState.RUNNING


def test_a_place_that_somebody_ahead_would_take_frees_nothing() -> None:
    trial = Trial(1, ageing_s=1)
    low = trial.submit(on_board())
    aged = trial.submit(spec(board("pi", "solo", "job"), preemptible=False), priority=LOW)
    trial.lab.pass_time(200)
    trial.submit(on_board(), priority=URGENT)
    assert trial.job(aged).state is JobState.WAITING
    assert trial.stopping() == [], "by its age the other one goes first"
    assert trial.job(low).state is JobState.RUNNING


def test_an_org_at_its_quota_ends_nothing() -> None:
    trial = Trial(1, quotas={ORG: Quota(running_duts=1)})
    trial.submit(on_board())
    trial.lab.pass_time(OLD)
    trial.submit(on_board(), priority=URGENT)
    assert trial.stopping() == []


def test_a_lab_that_is_read_again_goes_on_the_same_way() -> None:
    trial = Trial(1)
    low = trial.submit(on_board())
    trial.lab.pass_time(OLD)
    trial.lab.lab = revive(recorded(trial.lab.lab), trial.lab.now)
    urgent = trial.submit(on_board(), priority=URGENT)
    trial.lab.lab = revive(recorded(trial.lab.lab), trial.lab.now)
    assert trial.stopping() == [low]
    trial.end(low)
    assert trial.job(urgent).state is JobState.RUNNING


@pytest.mark.parametrize("seed", range(25))
def test_whatever_comes_none_ends_in_vain_and_all_comes_to_its_end(seed: int) -> None:
    chance = random.Random(seed)
    trial = Trial(3, slots=3, preempt_after_s=5, preempt_gap=chance.choice((1, 25, 50)))
    lab = trial.lab
    runs: list[RunId] = []
    for _ in range(30):
        fixed = replace(on_board(), preemptible=False)
        each = chance.choice((on_board(), on_board("run"), on_host(1), on_host(2), fixed))
        specs = [each, *([each] if chance.random() < 0.2 else [])]
        before = set(_preempted(trial))
        runs.append(trial.submit(*specs, priority=chance.choice((0, LOW, NORMAL, 75, URGENT))))
        _check(trial, before)
        _some_time(trial, chance)
    for _ in range(600):
        before = set(_preempted(trial))
        _some_time(trial, chance)
        _check(trial, before)
        if all(JOB.is_final(job.state) for job in lab.lab.jobs.values()):
            return
    raise AssertionError({job.id: job.state for job in lab.lab.jobs.values()})


def _preempted(trial: Trial) -> list[tuple[Fence, JobId, str]]:
    found = (e for e in trial.history if isinstance(e, AttemptPreempted))
    return [(e.fence, e.job, e.by) for e in found]


def _check(trial: Trial, before: set[tuple[Fence, JobId, str]]) -> None:
    """Nobody of equal or higher priority gives way, none twice, none more often than allowed."""
    lab, policy = trial.lab.lab, trial.lab.lab.policy
    told = _preempted(trial)
    assert len({fence for fence, _, _ in told}) == len(told)
    for _, name, by in set(told) - before:
        victim = lab.jobs[name]
        other = lab.runs.get(RunId(by)) or lab.runs[lab.jobs[JobId(by)].run]
        assert lab.runs[victim.run].priority + policy.preempt_gap <= other.priority
        assert victim.preempted <= policy.preempt_most
    for by in {by for _, _, by in set(told) - before}:
        run = lab.runs.get(RunId(by)) or lab.runs[lab.jobs[JobId(by)].run]
        need = run.plan.specs[0].need
        most = 1 if need.wants_dut else need.slots
        for _, events in trial.lab.frames[-8:]:
            found = [e for e in events if isinstance(e, AttemptPreempted) and e.by == by]
            assert len(found) <= most, "of what is ended in a turn none could be spared"


def _some_time(trial: Trial, chance: random.Random) -> None:
    trial.lab.pass_time(3)
    for agent in list(trial.lab.lab.agents.values()):
        for fence in sorted(agent.fences):
            job = trial.lab.lab.jobs[trial.lab.lab.attempts[fence].job]
            if job.stop == "preempted":
                if chance.random() < 0.7:
                    trial.lab.ended(fence, chance.choice(("cancelled", "cancelled", "passed")))
            elif chance.random() < 0.2:
                trial.lab.ended(fence, "passed")
    trial.start()
