"""Resources of hosts, things that the whole lab shares, and conditions on labels."""

import msgspec
import pytest

from tests.support.builders import TestLab, a_dut, a_plan, a_spec, board, facts
from tshrag_common.errors import Invalid
from tshrag_common.jobs import Need, Target
from tshrag_common.reports import Hello
from tshrag_controller.core.on_tick import next_due
from tshrag_controller.core.policy import Consumable, Policy
from tshrag_controller.core.sched_events import PolicySet
from tshrag_controller.core.why import explain


def a_lab(**consumables: Consumable) -> TestLab:
    lab = TestLab()
    lab.begin().happen(PolicySet(policy=Policy(consumables=consumables)))
    lab.end()
    return lab


def hello(lab: TestLab, name: str = "a1", duts: int = 0, hub: int = 0, **more: float) -> None:
    boards = [a_dut(f"{name}-{number}", agent=name) for number in range(duts)]
    resources = {**more, **({"usb-hub": hub} if hub else {})}
    told = msgspec.structs.replace(facts(name, 8, boards), resources=resources)
    lab.report(name, Hello(at=lab.now, facts=told))


def started(lab: TestLab, run: str) -> int:
    return sum(each.run == run and each.state == "assigned" for each in lab.lab.jobs.values())


def sentence(lab: TestLab, run: str, serial: int) -> str:
    return explain(lab.lab, lab.lab.jobs[lab.job(run, serial)], lab.now).sentence  # type: ignore[arg-type]  # a RunId


def test_memory_and_cores_of_a_host_bound_what_runs_there() -> None:
    lab = a_lab()
    hello(lab, memory=8 * 2**30, cpus=4)
    run = lab.submit(a_plan((), (), (), spec=a_spec(need=Need(resources={"memory": 3 * 2**30}))))
    assert started(lab, run) == 2
    assert "6 of 8 GiB of memory taken on a1" in sentence(lab, run, 3)
    cores = lab.submit(a_plan((), (), spec=a_spec(need=Need(resources={"cpus": 2.5}))), 2)
    assert started(lab, cores) == 1
    lab.ended(lab.fence(run, 1))
    assert started(lab, run) == 2, "the third has begun"


def test_two_flashes_at_once_behind_one_usb_hub_though_boards_are_free() -> None:
    lab = a_lab()
    hello(lab, duts=4, hub=2)
    need = msgspec.structs.replace(board(hold="job"), resources={"usb-hub": 1})
    run = lab.submit(a_plan((), (), (), spec=a_spec(need=need)))
    assert started(lab, run) == 2
    assert "2 of 2 usb-hub taken" in sentence(lab, run, 3)
    lab.ended(lab.fence(run, 1))
    assert lab.state(run, 3) == "assigned"


def test_a_run_that_keeps_its_board_takes_the_hub_only_while_a_job_runs() -> None:
    lab = a_lab()
    hello(lab, duts=2, hub=1)
    need = msgspec.structs.replace(board(), resources={"usb-hub": 1})
    one = lab.submit(a_plan((), (1,), spec=a_spec(need=need)), 1)
    two = lab.submit(a_plan((), spec=a_spec(need=need)), 2)
    assert (lab.state(one), lab.state(two)) == ("assigned", "waiting")
    lab.ended(lab.fence(one))
    assert {lab.state(one, 2), lab.state(two)} == {"assigned", "waiting"}


def test_a_licence_counts_over_all_hosts_and_is_given_back() -> None:
    lab = a_lab(licence=Consumable(count=2))
    hello(lab, "a1")
    hello(lab, "a2")
    run = lab.submit(a_plan((), (), (), spec=a_spec(need=Need(consumes={"licence": 1}))))
    assert started(lab, run) == 2
    assert sentence(lab, run, 3) == "2 of 2 licence taken in the lab"
    lab.ended(lab.fence(run, 2))
    assert lab.state(run, 3) == "assigned"


def test_a_pdu_strip_switches_one_board_every_half_second() -> None:
    lab = a_lab(**{"pdu-a": Consumable(every_s=0.5)})
    hello(lab, duts=3)
    need = msgspec.structs.replace(board(hold="job"), consumes={"pdu-a": 1})
    run = lab.submit(a_plan((), (), (), spec=a_spec(need=need)))
    assert started(lab, run) == 1
    assert "pdu-a is given every 0.5 s" in sentence(lab, run, 2)
    assert next_due(lab.lab) == lab.now + 500_000, "time makes the next pass, nobody polls"
    lab.pass_time(0.5)
    assert started(lab, run) == 2
    lab.pass_time(0.4)
    assert started(lab, run) == 2
    lab.pass_time(0.1)
    assert started(lab, run) == 3


def test_what_no_host_and_no_lab_has_is_refused_with_what_comes_near() -> None:
    lab = a_lab(licence=Consumable(count=2))
    hello(lab, memory=2**30)
    for need, why in (
        (Need(resources={"memory": 2.0**33}), "best match a1 misses: needs 8 GiB of memory"),
        (Need(consumes={"licenze": 1}), "nearest: licence"),
        (Need(consumes={"licence": 3}), "needs 3 licence, the lab has 2"),
    ):
        with pytest.raises(Invalid, match=why):
            lab.submit(a_plan((), spec=a_spec(need=need)))


def test_conditions_choose_the_board_and_name_what_comes_nearest() -> None:
    lab = a_lab()
    labels: tuple[dict[str, str], ...] = ({"ram": "4GiB"}, {"ram": "8GiB", "hdmi": "1"}, {})
    lab.hello(duts=[a_dut(f"b{n}", labels=each) for n, each in enumerate(labels)])
    target = Target(runtime="ssh", where=("ram >= 8GiB", "hdmi"), hold="job")
    run = lab.submit(a_plan((), spec=a_spec(need=Need(target=target, role="r"))))
    assert lab.lab.attempts[lab.fence(run)].dut == "b1"
    none = msgspec.structs.replace(target, where=("ram >= 16GiB", "!hdmi"))
    with pytest.raises(Invalid, match=r"best match b0 misses: label ram is 4GiB, not >= 16GiB"):
        lab.submit(a_plan((), spec=a_spec(need=Need(target=none, role="r"))), 2)
