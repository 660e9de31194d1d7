"""The teardown of a group: at its end, behind all other work, once; nobody hangs behind it."""

import pytest
from msgspec.structs import replace

from tests.controller.core.test_groups import grouped
from tests.support.builders import TestLab, a_dut, a_plan, a_spec, board
from tshrag_common.errors import ErrorReport
from tshrag_common.ids import THE_LAB, AgentId, DutId, Fence, JobId, OrgId, RunId
from tshrag_common.jobs import JobSpec
from tshrag_common.states import AgentCause, JobCause
from tshrag_controller.answers.lab import dut_state
from tshrag_controller.core.events import JobMoved
from tshrag_controller.core.lab import DutRow, Run
from tshrag_controller.core.on_agent import on_silence
from tshrag_controller.core.policy import Policy
from tshrag_controller.core.revive import recorded, revive
from tshrag_controller.core.sched_events import PolicySet

LINGER_S = 30


class TeardownLab(TestLab):
    """One board whose agent does setups and teardowns, and says so."""

    __test__ = False

    def __init__(self, boards: int = 1) -> None:
        super().__init__()
        self.hello(duts=[a_dut(f"b{number}") for number in range(boards)])

    @property
    def row(self) -> DutRow:
        return self.lab.duts[DutId("b0")]

    @property
    def undoing(self) -> Run | None:
        return self.lab.runs.get(RunId(self.row.undo)) if self.row.undo else None

    def spec_of(self, fence: Fence) -> JobSpec:
        job = self.lab.jobs[self.lab.attempts[fence].job]
        return self.lab.runs[job.run].spec(job)

    def finish(self, outcome: str = "passed") -> None:
        """Let the agent end what runs on the board, as it does."""
        fence = self.row.holder
        spec = self.spec_of(fence)
        group = spec.need.group
        error = None
        if spec.undo:
            there: tuple[str, ...] = ()
            owes = () if outcome == "passed" else self.row.dut.owes
            if outcome != "passed":
                error = ErrorReport(code="group_teardown_failed", message="exit code 1")
        else:
            owes = (group.digest,) if group is not None else ()
            there = owes if outcome in ("passed", "failed") else ()
        setup = "made" if group is not None else ""
        self.ended(fence, outcome, carries=there, owes=owes, setup=setup, error=error)  # type: ignore[arg-type]  # a word of the test

    def one(self, number: int, key: str = "v1", **more: object) -> RunId:
        return self.submit(a_plan((), spec=grouped(key, "job", **more)), number)

    def done_once(self, **more: object) -> None:
        self.one(1, **more)  # type: ignore[arg-type]  # any fields of a group
        self.finish()


def test_it_runs_when_the_group_has_ended_and_the_board_shows_it() -> None:
    lab = TeardownLab()
    lab.done_once()
    lab.pass_time(LINGER_S - 1)
    assert not lab.row.undo, "a late joiner still finds the setup"
    lab.pass_time(1)
    assert lab.undoing is not None
    assert lab.spec_of(lab.row.holder).undo
    assert dut_state(lab.lab, lab.row) == "teardown"
    lab.finish()
    assert (lab.row.dut.carries, lab.row.dut.owes, lab.row.undo) == ((), (), "")
    assert dut_state(lab.lab, lab.row) == "available"
    lab.pass_time(3600)
    assert not lab.row.undo, "once"


def test_the_org_whose_group_it_was_pays_for_the_teardown() -> None:
    lab = TeardownLab()
    radio = OrgId("radio")
    run = lab.submit(a_plan((), spec=grouped("v1")), 1, org=radio)
    assert lab.lab.runs[run].org == radio
    lab.finish()
    lab.pass_time(LINGER_S)
    assert lab.undoing is not None
    assert (lab.undoing.org, lab.undoing.by) == (radio, THE_LAB)
    used = lab.lab.orgs[radio].used_s
    lab.pass_time(10)
    lab.finish()
    assert lab.lab.orgs[radio].used_s > used
    assert OrgId("default") not in lab.lab.orgs


def test_a_group_says_itself_how_long_its_setup_stays() -> None:
    lab = TeardownLab()
    lab.done_once(linger_s=300.0)
    lab.pass_time(299)
    assert not lab.row.undo
    lab.pass_time(1)
    assert lab.row.undo


def test_who_comes_late_finds_the_setup_and_puts_the_teardown_off() -> None:
    lab = TeardownLab()
    lab.done_once()
    lab.pass_time(LINGER_S - 1)
    late = lab.one(2)
    assert lab.state(late) == "assigned"
    lab.pass_time(60)
    lab.finish()
    lab.pass_time(LINGER_S - 1)
    assert not lab.row.undo
    lab.pass_time(1)
    assert lab.row.undo


def test_a_job_that_still_waits_keeps_the_setup() -> None:
    lab = TeardownLab()
    plan = a_plan((), (1,), spec=grouped("v1"))
    run = lab.submit(plan, 1)
    lab.begin().happen(JobMoved(job=lab.job(run, 2), cause=JobCause.CANCEL))
    lab.end()
    lab.finish()
    lab.pass_time(LINGER_S)
    assert lab.row.undo, "nobody of it is left"

    lab = TeardownLab()
    lab.one(1)
    waiting = lab.submit(a_plan((), spec=grouped("v1")), 2, not_before=lab.now + 10**9)
    lab.finish()
    lab.pass_time(LINGER_S + 1)
    assert not lab.row.undo, f"{waiting} may start later"


def test_other_work_goes_first_and_undoes_the_setup_itself() -> None:
    lab = TeardownLab()
    lab.done_once(linger_s=5.0)
    plain = lab.submit(a_plan(*[()] * 2, spec=a_spec(need=board(hold="job"))), 3)
    lab.pass_time(10)
    assert lab.state(plain, 1) == "assigned"
    lab.finish()
    assert lab.state(plain, 2) == "assigned"
    assert not lab.row.dut.owes
    lab.finish()
    lab.pass_time(3600)
    assert not lab.row.undo, "the plain job has undone it"


def test_one_that_was_ordered_is_withdrawn_when_the_setup_is_wanted_again() -> None:
    lab = TeardownLab()
    lab.done_once(linger_s=5.0)
    lab.begin()
    on_silence(lab.decision, AgentId("a1"), AgentCause.DOUBT)
    lab.end()
    lab.pass_time(10)
    assert not lab.row.undo, "the agent does not answer: nothing is ordered"
    lab.hello(duts=[replace(lab.row.dut)])
    assert lab.undoing is not None
    run = lab.undoing
    lab.ended(lab.row.holder, "refused", carries=None)
    assert lab.undoing is run, "a refusal is no failure: it is tried again"
    late = lab.one(2)
    assert lab.state(late) == "assigned", "but not before who finds the setup in place"
    assert not lab.row.undo
    assert str(run.state) == "cancelled"


def test_a_teardown_that_failed_is_left_to_the_next_user() -> None:
    lab = TeardownLab()
    lab.done_once(linger_s=0.0)
    lab.finish("error")
    assert (lab.row.undo, lab.row.undo_failed) == ("", "v1")
    assert lab.row.dut.owes == ("v1",)
    lab.pass_time(3600)
    assert not lab.row.undo, "it does not go on for ever"
    lab.submit(a_plan((), spec=a_spec(need=board(hold="job"))), 3)
    lab.finish()
    assert not lab.row.dut.owes
    assert not lab.row.undo_failed


def test_a_teardown_that_failed_takes_the_board_out_of_service_where_wanted() -> None:
    lab = TeardownLab()
    lab.begin().happen(PolicySet(policy=Policy(teardown_failed="quarantine")))
    lab.end()
    lab.done_once(linger_s=0.0)
    lab.finish("error")
    assert lab.row.intent is not None
    assert "quarantined by lab: teardown run-" in lab.row.intent.text


def test_a_spoilt_setup_is_undone_at_once_although_others_of_the_group_run() -> None:
    lab = TeardownLab(2)
    lab.one(1)
    lab.one(2)
    assert lab.lab.duts[DutId("b1")].holder
    lab.finish("timeout")
    assert lab.row.dut.carries == ()
    assert lab.undoing is not None


@pytest.mark.parametrize("when", ["lingering", "ordered"])
def test_it_survives_a_restart_of_the_controller(when: str) -> None:
    lab = TeardownLab()
    lab.done_once()
    lab.pass_time(LINGER_S - 1 if when == "lingering" else LINGER_S)
    assert bool(lab.row.undo) is (when == "ordered")
    lab.lab = revive(recorded(lab.lab), lab.now)
    lab.pass_time(1)
    assert lab.undoing is not None
    assert lab.lab.indexes.undoing == {RunId(lab.row.undo): DutId("b0")}
    lab.finish()
    assert (lab.row.undo, lab.row.dut.owes) == ("", ())


def test_a_lost_agent_leaves_it_to_another_attempt() -> None:
    lab = TeardownLab()
    lab.done_once(linger_s=0.0)
    assert lab.undoing is not None
    run = lab.undoing.id
    lab.ended(lab.row.holder, "error", error=ErrorReport(code="lost", message="x", retryable=True))
    lab.pass_time(5)
    assert lab.row.undo == run
    assert lab.lab.jobs[JobId(lab.job(run))].attempts == 2
