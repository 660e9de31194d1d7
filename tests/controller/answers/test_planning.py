import msgspec
import pytest

from tests.support.builders import a_run_id, a_spec, board
from tshrag_common import requests as r
from tshrag_common.errors import Invalid
from tshrag_common.jobs import Need, Plan, PlannedJob, Target
from tshrag_controller.answers.planning import narrowed


def asked(**more: object) -> r.Submit:
    return r.Submit(run=a_run_id(1), profile=msgspec.Raw(b"{}"), **more)  # type: ignore[arg-type]  # **more


def test_hosts_of_a_submit_hold_for_every_job_and_duts_for_those_on_a_dut() -> None:
    plan = Plan(
        specs=(a_spec(), a_spec(need=board())),
        jobs=(PlannedJob(1, "host", 0), PlannedJob(2, "board", 1)),
    )
    on_host, on_board = narrowed(plan, asked(hosts=("h1",), duts=("b1",))).specs
    assert on_host.need == Need(target=Target(hosts=("h1",)))
    assert (on_board.need.target.hosts, on_board.need.target.duts) == (("h1",), ("b1",))


def test_duts_for_a_profile_without_a_step_on_a_dut_are_refused() -> None:
    plan = Plan(specs=(a_spec(),), jobs=(PlannedJob(1, "host", 0),))
    with pytest.raises(Invalid, match="b9: no step of this profile goes to a DUT"):
        narrowed(plan, asked(duts=("b9",)))
