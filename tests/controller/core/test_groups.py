"""Jobs that share a setup: back to back where it is, with limits, and nobody hangs behind them."""

import random
from collections import Counter

import pytest
from msgspec.structs import replace

from tests.support.builders import TestLab, a_dut, a_plan, a_spec, board
from tshrag_common.errors import ErrorReport, Invalid
from tshrag_common.ids import DutId, Fence
from tshrag_common.jobs import Group, JobSpec
from tshrag_common.profile import Profile
from tshrag_common.reading import profile_of
from tshrag_controller.core.plan import plan
from tshrag_controller.core.revive import recorded, revive
from tshrag_controller.core.why import explain

SETUP_S = 60


def grouped(key: str, hold: str = "job", **more: object) -> JobSpec:
    group = Group(key=key, digest=key, **more)  # type: ignore[arg-type]  # any fields
    return a_spec(need=replace(board(role=f"{key}-{hold}", hold=hold), group=group))


class GroupLab(TestLab):
    """Boards whose agent makes setups of 60 s and says so."""

    __test__ = False

    def __init__(self, boards: int) -> None:
        super().__init__()
        self.hello(duts=[a_dut(f"b{number}") for number in range(boards)])
        self.said: Counter[str] = Counter()
        self.served: list[str] = []  # the groups of the jobs in the order of their ends

    def live(self) -> list[Fence]:
        return sorted(fence for agent in self.lab.agents.values() for fence in agent.fences)

    def finish(self, fence: Fence, outcome: str = "passed") -> None:
        """Let the agent end an attempt, and say what came of the setup of its group."""
        attempt = self.lab.attempts[fence]
        run = self.lab.runs[self.lab.jobs[attempt.job].run]
        group = run.spec(self.lab.jobs[attempt.job]).need.group
        assert group is not None
        assert attempt.dut is not None
        there = group.digest in self.lab.duts[attempt.dut].dut.carries
        setup = "failed" if outcome == "error" else "found" if there else "made"
        self.said[setup] += 1
        self.served.append(group.key)
        error = ErrorReport(code="group_setup_failed", message="no", retryable=True)
        self.ended(
            fence, outcome,  # type: ignore[arg-type]  # a word of the test
            carries=(group.digest,) if outcome != "error" else (), setup=setup,
            setup_us=0 if there else SETUP_S * 1_000_000,
            error=error if outcome == "error" else None,
        )  # fmt: skip

    def work(self, job_s: float = 10.0) -> None:
        """Let time pass and every attempt end, until nothing runs and nothing waits for time."""
        for _ in range(2000):
            if not self.live():
                self.pass_time(SETUP_S + 1)
                if not self.live():
                    return
            self.pass_time(job_s)
            for fence in self.live():
                self.finish(fence)
        raise AssertionError("it goes on for ever")

    def dut_of(self, run: str, serial: int = 1) -> DutId | None:
        return self.lab.attempts[self.fence(run, serial)].dut  # type: ignore[arg-type]  # a RunId


@pytest.mark.parametrize("hold", ["job", "run"])
def test_jobs_of_two_versions_on_one_board_need_two_setups(hold: str) -> None:
    lab = GroupLab(1)
    for number in range(20):
        lab.submit(a_plan((), spec=grouped(f"v{number % 2}", hold)), number + 1)
    lab.work()
    assert lab.said == {"made": 2, "found": 18}
    assert sorted(lab.served[:10]) == [lab.served[0]] * 10


def test_a_group_has_had_its_turn_after_so_many_jobs_while_another_waits() -> None:
    lab = GroupLab(1)
    lab.submit(a_plan(*[()] * 12, spec=grouped("v1", max_jobs=4)), 1)
    lab.submit(a_plan(*[()] * 4, spec=grouped("v2", max_jobs=4)), 2, priority=51)
    lab.submit(a_plan(*[()] * 4, spec=grouped("v3", max_jobs=4)), 3, priority=49)
    lab.work()
    longest = max(
        len(part) for part in "".join(each[1] for each in lab.served[:8]).replace("2", " ").split()
    )
    assert longest <= 4
    assert lab.served.count("v1") == 12


def test_a_group_that_is_alone_goes_on_behind_its_limit() -> None:
    lab = GroupLab(1)
    lab.submit(a_plan(*[()] * 9, spec=grouped("v1", max_jobs=4)), 1)
    lab.work()
    assert lab.said == {"made": 1, "found": 8}


def test_a_group_has_had_its_turn_after_so_long() -> None:
    lab = GroupLab(1)
    lab.submit(a_plan(*[()] * 10, spec=grouped("v1", max_runtime_s=25.0)), 1)
    other = lab.submit(a_plan((), spec=grouped("v2")), 2, priority=51)
    for _ in range(12):
        if lab.state(other) != "waiting":
            break
        lab.pass_time(10)
        for fence in lab.live():
            lab.finish(fence)
    assert 3 <= len(lab.served) <= 4, (
        "until its 25 s were over its setup went before the better place of v2"
    )


def test_one_who_comes_late_joins_while_the_last_one_runs_and_never_hangs() -> None:
    lab = GroupLab(1)
    lab.submit(a_plan((), spec=grouped("v1")), 1)
    lab.submit(a_plan((), spec=grouped("v2")), 2)
    lab.pass_time(5)
    late = lab.submit(a_plan((), spec=grouped("v1")), 3)
    lab.finish(lab.live()[0])
    assert lab.state(late) == "assigned", "before v2, which waits: its setup is there"
    lab.work()
    assert lab.said == {"made": 2, "found": 1}


def test_a_short_queue_waits_for_the_board_with_its_setup_and_says_so() -> None:
    lab = GroupLab(2)
    lab.submit(a_plan((), spec=grouped("v1")), 1)
    lab.pass_time(70)
    lab.finish(lab.live()[0])
    one = lab.submit(a_plan((), spec=grouped("v1")), 2)
    two = lab.submit(a_plan((), spec=grouped("v1")), 3)
    assert lab.dut_of(one) == "b0"
    assert lab.state(two) == "waiting"
    said = explain(lab.lab, lab.lab.jobs[lab.job(two)], lab.now)
    assert "its setup is on DUT b0" in str(said.places)
    lab.finish(lab.fence(one))
    assert lab.dut_of(two) == "b0"


def test_a_long_queue_takes_the_idle_boards_too_when_waiting_costs_more_than_a_setup() -> None:
    lab = GroupLab(3)
    lab.submit(a_plan((), spec=grouped("v1")), 1)
    lab.pass_time(70)
    lab.finish(lab.live()[0])
    run = lab.submit(a_plan(*[()] * 60, spec=grouped("v1")), 2)
    assert {lab.dut_of(run, n) for n in (1, 2, 3)} == {"b0", "b1", "b2"}


def test_a_job_that_takes_much_longer_than_others_does_not_hold_its_group_for_ever() -> None:
    lab = GroupLab(2)
    lab.submit(a_plan((), spec=grouped("v1")), 1)
    lab.pass_time(65)
    lab.finish(lab.live()[0])
    lab.submit(a_plan((), spec=grouped("v1")), 2)
    waiting = lab.submit(a_plan((), spec=grouped("v1")), 3)
    assert lab.state(waiting) == "waiting"
    for _ in range(4):
        lab.pass_time(61)  # only time passes: the timer looks again
    assert lab.dut_of(waiting) == "b1"


def test_a_window_lets_others_join_before_a_setup_is_made() -> None:
    lab = GroupLab(1)
    first = lab.submit(a_plan((), spec=grouped("v1", window_s=30.0)), 1)
    assert lab.state(first) == "waiting"
    assert "others may join" in explain(lab.lab, lab.lab.jobs[lab.job(first)], lab.now).sentence
    lab.pass_time(30)
    assert lab.state(first) == "assigned"


def test_a_setup_that_failed_is_tried_once_more_on_another_board_and_holds_nobody() -> None:
    lab = GroupLab(2)
    run = lab.submit(a_plan((), spec=grouped("v1")), 1)
    other = lab.submit(a_plan((), spec=grouped("v1")), 2)
    lab.finish(lab.fence(run), "error")
    lab.finish(lab.fence(other))
    lab.pass_time(5)
    assert lab.dut_of(run) == "b1", "not where it failed"
    lab.finish(lab.fence(run), "error")
    assert lab.state(run) == "error", "twice is enough, though three attempts are allowed"
    assert "group_setup_failed" in str(lab.lab.jobs[lab.job(run)].error)


def test_what_a_board_carries_is_known_after_a_restart_and_gone_after_a_lost_attempt() -> None:
    lab = GroupLab(1)
    lab.submit(a_plan((), spec=grouped("v1")), 1)
    lab.finish(lab.live()[0])
    again = revive(recorded(lab.lab), lab.now)
    assert again.indexes.idle.carriers == {"v1": {"b0"}}
    assert again.setups["v1"].setup_s == SETUP_S


@pytest.mark.parametrize("seed", range(6))
def test_random_work_makes_few_setups_and_everything_ends(seed: int) -> None:
    chance = random.Random(seed)
    lab = GroupLab(3)
    versions = 4
    for number in range(60):
        hold = chance.choice(("job", "run"))
        key = f"v{chance.randrange(versions)}"
        lab.submit(a_plan((), spec=grouped(key, hold)), number + 1)
        if chance.random() < 0.2:
            lab.pass_time(chance.choice((1, 30)))
            for fence in lab.live()[: chance.randrange(3)]:
                lab.finish(fence)
    lab.work()
    assert sum(lab.said.values()) == 60
    assert lab.said["made"] <= 25, "without groups two of three jobs would need one"


PROFILE = {
    "name": "x",
    "schedule": {"sequence": [{"command": "test"}]},
    "targets": {"board": {"kind": "pi"}},
}


def digest_of(more: dict[str, object], org: str = "o") -> str:
    document = {**PROFILE, "schedule": {"sequence": [{"command": "t", "target": "board"}]}, **more}
    profile: Profile = profile_of(document)
    spec = plan(profile, {}, None, org).specs[0]
    assert spec.need.group is not None
    assert spec.setup is not None
    assert spec.setup.digest == spec.need.group.digest
    return spec.setup.digest


def test_a_digest_covers_org_key_commands_and_environment() -> None:
    setup = {"sequence": [{"command": "flash ${V}"}, {"command": ["boot", "it"]}]}
    base: dict[str, object] = {"setup": setup, "env": {"V": "1"}, "labels": {"app_version_id": "7"}}
    others = [
        digest_of(base),
        digest_of(base, "p"),
        digest_of({**base, "env": {"V": "2"}}),
        digest_of({**base, "labels": {"app_version_id": "8"}}),
        digest_of({**base, "group": {"key": "8a"}}),
        digest_of({**base, "setup": {"command": "flash"}}),
        digest_of({**base, "teardown": {"command": "wipe"}}),
    ]
    assert len(set(others)) == len(others)
    assert digest_of(base) == others[0]
    assert digest_of({**base, "name": "y"}) == others[0]


def test_a_setup_is_commands_only() -> None:
    with pytest.raises(Invalid, match=r"setup: .*a sleep cannot stand here; use a command"):
        plan(profile_of({**PROFILE, "setup": {"sequence": [{"sleep": "3s"}]}}), {})


def test_a_setup_may_name_a_load_that_is_a_command() -> None:
    loads = {"flash": {"command": "flash --image ${image}"}, "tree": {"path": "builtin:sleep"}}
    named = {"load": "flash", "params": {"image": "a b.img"}}
    base = {**PROFILE, "loads": loads, "schedule": {"command": "t", "target": "board"}}
    made = plan(profile_of({**base, "setup": {"sequence": [named]}}), {})
    setups = [spec.setup for spec in made.specs if spec.setup is not None]
    assert [each.commands for each in setups] == [(("flash", "--image", "a b.img"),)]
    with pytest.raises(Invalid, match=r"load 'tree' is a tree of files, which a setup cannot"):
        plan(profile_of({**base, "setup": {"load": "tree"}}), {})


@pytest.mark.parametrize("name", ["setup", "teardown"])
def test_a_setup_that_no_job_would_have_made_is_refused(name: str) -> None:
    on_host = {"name": "x", "schedule": {"command": "y"}, name: {"command": "z"}}
    with pytest.raises(Invalid, match=f"setup: {name}: no load or command runs on a board with"):
        plan(profile_of(on_host), {})
