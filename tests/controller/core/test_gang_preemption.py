"""Jobs that start together give way together, have others end, and start again together."""

import random
from itertools import product
from typing import Any

import pytest
from msgspec.structs import replace

from tests.controller.core.test_preemption import (
    LOW,
    NORMAL,
    OLD,
    URGENT,
    Trial,
    on_board,
    on_host,
    spec,
)
from tests.support.builders import a_dut, board
from tshrag_common.errors import ErrorReport
from tshrag_common.ids import AgentId, DutId, Fence, JobId, RunId
from tshrag_common.jobs import JobSpec, Need, Plan, PlannedJob
from tshrag_common.states import JOB, JobState
from tshrag_controller.core.aside import set_aside
from tshrag_controller.core.lab import Job, Order
from tshrag_controller.core.needs import misfits
from tshrag_controller.core.on_run import on_cancel
from tshrag_controller.core.order import order_of_run
from tshrag_controller.core.preempt_events import AttemptPreempted
from tshrag_controller.core.revive import recorded, revive
from tshrag_controller.core.stopping import to_end
from tshrag_controller.core.why import explain

BROKEN = ErrorReport(code="host_gone", message="the host broke", retryable=True)


def member(role: str, kind: str = "pi", hold: str = "job", **more: Any) -> JobSpec:
    return spec(board(kind, role, hold), **more)


def host_member(role: str, slots: int = 1, **more: Any) -> JobSpec:
    return spec(Need(slots=slots, role=role), **more)


def gang(trial: Trial, *specs: JobSpec, priority: int = LOW) -> RunId:
    trial.number += 1
    jobs = tuple(PlannedJob(n, f"m{n}", n - 1, gang=1) for n in range(1, len(specs) + 1))
    run = trial.lab.submit(Plan(specs=specs, jobs=jobs), trial.number, priority=priority)
    trial.start()
    return run


def pair(trial: Trial, priority: int = LOW, **more: Any) -> RunId:
    return gang(trial, member("x", **more), member("y", **more), priority=priority)


def jobs_of(trial: Trial, run: RunId) -> list[Job]:
    return [trial.job(run, planned.serial) for planned in trial.lab.lab.runs[run].plan.jobs]


def states(trial: Trial, run: RunId) -> list[str]:
    return [job.state for job in jobs_of(trial, run)]


def end(trial: Trial, run: RunId, serial: int, outcome: Any = "cancelled", **more: Any) -> None:
    trial.lab.ended(trial.job(run, serial).fence, outcome, **more)
    trial.start()


@pytest.mark.parametrize("hold", ["job", "run"])
def test_a_gang_gives_way_as_a_whole_and_starts_again_as_a_whole(hold: str) -> None:
    trial = Trial(2)
    low = pair(trial, hold=hold)
    trial.lab.pass_time(OLD)
    urgent = trial.submit(on_board(hold), priority=URGENT)
    assert [job.stop for job in jobs_of(trial, low)] == ["preempted"] * 2
    assert len(to_end(trial.lab.lab, AgentId("a1"))) == 2
    end(trial, low, 1)
    end(trial, low, 2)
    assert states(trial, low) == ["waiting"] * 2, "one board is not enough for it"
    assert trial.job(urgent).state is JobState.RUNNING
    assert [(job.preempted, job.faults, job.avoid) for job in jobs_of(trial, low)] == [
        (1, 0, ())
    ] * 2
    trial.end(urgent, "passed")
    assert states(trial, low) == ["running"] * 2
    end(trial, low, 1, "passed")
    end(trial, low, 2, "passed")
    assert states(trial, low) == ["passed"] * 2


def test_a_gang_one_of_which_must_not_be_ended_gives_nothing() -> None:
    trial = Trial(2)
    gang(trial, member("x"), member("y", preemptible=False))
    trial.lab.pass_time(OLD)
    trial.submit(on_board(), priority=URGENT)
    assert trial.stopping() == []


def test_a_gang_is_as_old_as_its_youngest_and_loses_what_all_of_it_has_done() -> None:
    trial = Trial(3)
    pair(trial)
    alone = trial.submit(on_board())
    trial.lab.pass_time(OLD)
    trial.submit(on_board(), priority=URGENT)
    assert trial.stopping() == [alone], "a gang loses twice as much"


def test_one_of_a_gang_that_passes_while_it_gives_way_starts_again_with_the_others() -> None:
    trial = Trial(2)
    low = pair(trial)
    trial.lab.pass_time(OLD)
    urgent = trial.submit(on_board(), priority=URGENT)
    end(trial, low, 1, "passed")
    end(trial, low, 2)
    assert states(trial, low) == ["waiting"] * 2
    trial.end(urgent, "passed")
    assert states(trial, low) == ["running"] * 2


def test_a_gang_all_of_which_passes_meanwhile_has_passed() -> None:
    trial = Trial(2)
    low = pair(trial)
    trial.lab.pass_time(OLD)
    trial.submit(on_board(), priority=URGENT)
    end(trial, low, 1, "passed")
    end(trial, low, 2, "passed")
    assert states(trial, low) == ["passed"] * 2


def test_one_that_fails_meanwhile_is_what_the_gang_ends_by() -> None:
    trial = Trial(3)
    low = gang(trial, member("x"), member("y"), member("z"))
    trial.lab.pass_time(OLD)
    trial.submit(on_board(), priority=URGENT)
    end(trial, low, 1)
    end(trial, low, 3, "failed")
    end(trial, low, 2)
    assert states(trial, low) == ["skipped", "skipped", "failed"]
    error = jobs_of(trial, low)[0].error
    assert error is not None
    assert error.message.startswith(trial.job(low, 3).id), "the one that failed is named"


def test_a_gang_has_those_end_that_free_places_for_all_of_it_and_no_more() -> None:
    trial = Trial(3)
    runs = []
    for _ in range(3):
        runs.append(trial.submit(on_board()))
        trial.lab.pass_time(10)
    trial.lab.pass_time(OLD)
    urgent = pair(trial, URGENT)
    assert trial.stopping() == sorted(runs[1:]), "the two that lose least"
    said = explain(trial.lab.lab, trial.job(urgent, 2), trial.lab.now).sentence
    assert all(trial.job(run).id in said for run in runs[1:])
    trial.end(runs[1])
    assert states(trial, urgent) == ["waiting"] * 2
    trial.end(runs[2])
    assert states(trial, urgent) == ["running"] * 2


def test_a_gang_ends_nobody_where_one_of_it_would_have_no_place_all_the_same() -> None:
    trial = Trial(2)
    trial.submit(on_board())
    trial.submit(spec(board("pi", "solo", "job"), preemptible=False))
    trial.lab.pass_time(OLD)
    pair(trial, URGENT)
    assert trial.stopping() == []


def test_a_free_board_is_used_before_a_second_one_is_freed() -> None:
    trial = Trial(2)
    low = trial.submit(on_board())
    trial.lab.pass_time(OLD)
    urgent = pair(trial, URGENT)
    assert trial.stopping() == [low]
    trial.submit(spec(board("pi", "solo", "job"), preemptible=False), priority=NORMAL)
    trial.end(low)
    assert states(trial, urgent) == ["running"] * 2, "the free one was for it meanwhile"


def test_what_the_first_has_given_back_goes_to_nobody_else_while_the_last_still_ends() -> None:
    trial = Trial(2)
    low = [trial.submit(on_board()) for _ in range(2)]
    trial.lab.pass_time(OLD)
    urgent = pair(trial, URGENT)
    trial.end(low[0])
    behind = trial.submit(on_board(), priority=NORMAL)
    assert trial.job(behind).state is JobState.WAITING
    said = explain(trial.lab.lab, trial.job(behind), trial.lab.now).sentence
    assert "set aside for jobs that start together" in said
    trial.lab.lab = revive(recorded(trial.lab.lab), trial.lab.now)
    trial.lab.pass_time(1)
    assert trial.job(behind).state is JobState.WAITING, "another leader knows it too"
    trial.end(low[1])
    assert states(trial, urgent) == ["running"] * 2


def test_slots_of_hosts_are_kept_for_a_gang_while_the_last_still_ends() -> None:
    trial = Trial(0, slots=2)
    trial.lab.hello("a2", slots=2)
    low = [trial.submit(on_host(2)) for _ in range(2)]
    trial.lab.pass_time(OLD)
    urgent = gang(trial, host_member("s", 2), host_member("c", 2), priority=URGENT)
    assert trial.stopping() == sorted(low)
    trial.end(low[0])
    behind = trial.submit(on_host(1), priority=NORMAL)
    assert trial.job(behind).state is JobState.WAITING
    said = explain(trial.lab.lab, trial.job(behind), trial.lab.now)
    assert "gang" in {reason.code for place in said.places for reason in place.reasons}
    trial.end(low[1])
    assert states(trial, urgent) == ["running"] * 2


def test_a_claim_that_is_gone_keeps_nothing() -> None:
    trial = Trial(2)
    low = [trial.submit(on_board()) for _ in range(2)]
    trial.lab.pass_time(OLD)
    urgent = pair(trial, URGENT)
    trial.end(low[0])
    assert states(trial, urgent) == ["waiting"] * 2
    on_cancel(trial.lab.begin(), trial.lab.lab.runs[urgent].org, urgent)
    trial.lab.end()
    assert trial.job(low[0]).state is JobState.ASSIGNED


def test_a_gang_gives_way_to_a_gang() -> None:
    trial = Trial(2)
    low = pair(trial)
    trial.lab.pass_time(OLD)
    urgent = pair(trial, URGENT)
    assert len([e for e in trial.history if isinstance(e, AttemptPreempted)]) == 2
    end(trial, low, 1)
    end(trial, low, 2)
    assert states(trial, urgent) == ["running"] * 2
    assert states(trial, low) == ["waiting"] * 2


def test_boards_and_slots_are_freed_together() -> None:
    trial = Trial(1, slots=1)
    on_pi = trial.submit(on_board())
    on_slot = trial.submit(on_host())
    trial.lab.pass_time(OLD)
    urgent = gang(trial, member("x"), host_member("h"), priority=URGENT)
    assert trial.stopping() == sorted([on_pi, on_slot])
    trial.end(on_slot)
    trial.end(on_pi)
    assert states(trial, urgent) == ["running"] * 2


def test_who_runs_not_long_enough_gives_way_to_a_gang_when_time_comes() -> None:
    trial = Trial(2)
    low = [trial.submit(on_board()) for _ in range(2)]
    trial.lab.pass_time(20)
    urgent = pair(trial, URGENT)
    assert trial.stopping() == []
    said = explain(trial.lab.lab, trial.job(urgent), trial.lab.now).sentence
    assert "in 40 s something of lower priority may be ended for it" in said
    trial.lab.pass_time(41)
    assert trial.stopping() == sorted(low)


def test_roles_that_a_run_keeps_have_both_boards_for_them_meanwhile() -> None:
    trial = Trial(2)
    low = [trial.submit(on_board()) for _ in range(2)]
    trial.lab.pass_time(OLD)
    both = trial.submit(member("x", hold="run"), member("y", hold="run"), priority=URGENT)
    trial.end(low[0])
    behind = trial.submit(on_board(), priority=NORMAL)
    assert trial.job(behind).state is JobState.WAITING
    trial.end(low[1])
    assert trial.job(both).state is JobState.RUNNING


def test_a_gang_that_fails_starts_again_as_a_whole_where_its_profile_says_so() -> None:
    trial = Trial(2)
    retried: dict[str, Any] = {"retry_on": ("failed",), "attempts": 2}
    run = pair(trial, **retried)
    for turn in (1, 2):
        assert states(trial, run) == ["running"] * 2
        end(trial, run, turn, "failed")
        end(trial, run, 3 - turn)
        if turn == 1:
            assert states(trial, run) == ["waiting"] * 2
            assert trial.job(run).avoid == ()
            trial.lab.pass_time(40)
            trial.start()
    assert states(trial, run) == ["skipped", "failed"], "two tries in all, whoever failed in them"
    error = trial.job(run, 2).error
    assert error is not None
    assert error.message.startswith("attempts exhausted after 2")


def test_a_gang_whose_failing_member_may_not_go_again_has_failed() -> None:
    trial = Trial(2)
    run = gang(trial, member("x", retry_on=("failed",), attempts=3), member("y", attempts=3))
    end(trial, run, 2, "failed")
    end(trial, run, 1)
    assert states(trial, run) == ["skipped", "failed"]


def test_a_gang_may_go_again_on_the_boards_where_it_failed_unless_told_otherwise() -> None:
    trial = Trial(2)
    run = pair(trial, retry_on=("failed",), attempts=2, retry_elsewhere=True)
    end(trial, run, 1, "failed")
    end(trial, run, 2)
    assert len(trial.job(run, 1).avoid) == 1
    assert trial.job(run, 2).avoid == ()


def _world(chance: random.Random) -> Trial:
    trial = Trial(
        2, slots=3, preempt_after_s=5, preempt_gap=chance.choice((1, 25, 50)), preempt_most=2
    )
    trial.lab.hello(
        "a2", slots=2, duts=[a_dut("c0", "pi", agent="a2"), a_dut("e0", "esp", agent="a2")]
    )
    return trial


def _some_work(trial: Trial, chance: random.Random) -> RunId:
    priority = chance.choice((0, LOW, NORMAL, 75, URGENT))
    if chance.random() < 0.4:
        one = chance.choice(
            (on_board(), on_board("run"), on_host(1), on_host(2), on_board(kind="esp"))
        )
        return trial.submit(replace(one, preemptible=chance.random() < 0.8), priority=priority)
    hold = chance.choice(("job", "run"))
    roles = chance.sample(("x", "y", "e", "h"), chance.randrange(1, 4))
    kinds = {
        "x": member("x", hold=hold),
        "y": member("y", hold=hold),
        "e": member("e", "esp", hold),
        "h": host_member("h", chance.randrange(1, 3)),
    }
    may = chance.random() < 0.8
    return gang(
        trial, *(replace(kinds[role], preemptible=may) for role in roles), priority=priority
    )


@pytest.mark.parametrize("seed", range(12))
def test_whatever_comes_gangs_stay_whole_none_ends_in_vain_and_all_comes_to_its_end(
    seed: int,
) -> None:
    chance = random.Random(seed)
    trial = _world(chance)
    watch = _Watch(trial)
    for _ in range(30):
        _some_work(trial, chance)
        watch.look()
        _some_time(trial, chance, watch)
    for _ in range(600):
        _some_time(trial, chance, watch)
        if all(JOB.is_final(job.state) for job in trial.lab.lab.jobs.values()):
            return
    raise AssertionError({job.id: job.state for job in trial.lab.lab.jobs.values()})


def _some_time(trial: Trial, chance: random.Random, watch: "_Watch") -> None:
    trial.lab.pass_time(3)
    trial.start()
    watch.look()
    for agent in list(trial.lab.lab.agents.values()):
        for fence in sorted(agent.fences):
            attempt = trial.lab.lab.attempts[fence]
            if attempt.outcome:
                continue
            is_told = fence in to_end(trial.lab.lab, agent.facts.agent)
            if chance.random() < (0.6 if is_told else 0.15):
                bad = ("passed", "passed", "passed", "failed", "error")
                outcome: Any = "cancelled" if is_told else chance.choice(bad)
                trial.lab.ended(fence, outcome, error=BROKEN if outcome == "error" else None)
                trial.start()
                watch.look()


class _Watch:
    """Looks at the history as it grows."""

    def __init__(self, trial: Trial) -> None:
        self._trial, self._seen = trial, 0
        self._ends: dict[str, set[Fence]] = {}  # for whom

    def look(self) -> None:
        lab, history = self._trial.lab.lab, self._trial.history
        fresh = [e for e in history[self._seen :] if isinstance(e, AttemptPreempted)]
        self._seen = len(history)
        for event in fresh:
            self._ends.setdefault(event.by, set()).add(event.fence)
            victim, other = lab.jobs[event.job], self._claimant(event.by)
            assert (
                lab.runs[victim.run].priority + lab.policy.preempt_gap <= lab.runs[other].priority
            )
            assert victim.preempted <= lab.policy.preempt_most
        for by in {event.by for event in fresh}:
            self._needs_all(by, [event for event in fresh if event.by == by])
        self._are_whole()
        self._none_in_vain()

    def _claimant(self, by: str) -> RunId:
        lab = self._trial.lab.lab
        return RunId(by) if RunId(by) in lab.runs else lab.jobs[JobId(by)].run

    def _are_whole(self) -> None:
        lab = self._trial.lab.lab
        for run in lab.runs.values():
            if not run.plan.jobs[0].gang:
                continue
            jobs = jobs_of(self._trial, run.id)
            waiting = [job.state is JobState.WAITING for job in jobs]
            assert all(waiting) or not any(waiting)
            assert len({job.preempted for job in jobs}) == 1, "a gang gives way as a whole"
            assert len({job.attempts for job in jobs}) == 1

    def _none_in_vain(self) -> None:
        """Who had others end has his places when the last has ended; who is before him may too."""
        lab = self._trial.lab.lab
        for by, fences in list(self._ends.items()):
            if any(fence in lab.attempts and not lab.attempts[fence].outcome for fence in fences):
                continue
            del self._ends[by]
            mine = self._order(self._claimant(by))
            later = (
                lab.jobs[each.job].run for each in lab.attempts.values() if each.fence > max(fences)
            )
            aside = set_aside(lab, self._trial.lab.now).values()
            if any(order < mine for order in (*map(self._order, later), *aside)):
                continue
            for job in jobs_of(self._trial, self._claimant(by)):
                assert job.state is not JobState.WAITING or job.faults or job.missing, by

    def _order(self, run: RunId) -> Order:
        return order_of_run(self._trial.lab.lab, self._trial.lab.lab.runs[run])

    def _needs_all(self, by: str, events: list[AttemptPreempted]) -> None:
        """Without any one of the victims the boards would not do: by trying every choice."""
        lab = self._trial.lab.lab
        run = lab.runs[self._claimant(by)]
        needs = [run.spec(job).need for job in jobs_of(self._trial, run.id)]
        if not all(need.wants_dut for need in needs):
            return
        aside = set_aside(lab, self._trial.lab.now)
        others = {dut for dut, order in aside.items() if order < self._order(run.id)}
        if len(needs) == 1:
            others.update(DutId(name) for name in self._trial.job(run.id).avoid)
        free = {row.dut.id for row in lab.duts.values() if not row.holder and not row.kept_by}
        free -= others
        gives: dict[RunId, set[DutId]] = {}
        for event in events:
            attempt = lab.attempts[event.fence]
            dut = attempt.dut if not attempt.outcome else None
            gives.setdefault(lab.jobs[event.job].run, set()).update([dut] if dut else [])
        everything = free.union(*gives.values())
        assert self._can(needs, everything | self._ending()), "it has enough then"
        for victim in gives:
            assert not self._can(needs, everything - gives[victim]), "none could be spared"

    def _ending(self) -> set[DutId]:
        """Return the DUTs of those who are ending, for whomever."""
        lab = self._trial.lab.lab
        return {
            each.dut
            for each in lab.attempts.values()
            if each.dut and not each.outcome and lab.jobs[each.job].stop == "preempted"
        }

    def _can(self, needs: list[Need], duts: set[DutId]) -> bool:
        lab = self._trial.lab.lab
        rows = [lab.duts[name] for name in sorted(duts)]
        for choice in product(rows, repeat=len(needs)):
            together = zip(needs, choice, strict=True)
            if len({row.dut.id for row in choice}) == len(needs) and not any(
                misfits(need, lab.agents[row.agent].facts, row.dut) for need, row in together
            ):
                return True
        return False
