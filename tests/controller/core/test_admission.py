from tshrag_common.ids import AgentId, DutId
from tshrag_common.inventory import AgentFacts, Dut
from tshrag_common.jobs import Plan
from tshrag_common.reading import profile_of
from tshrag_controller.core.admission import nearest_place, refusals
from tshrag_controller.core.plan import plan

BOARDS = tuple(
    Dut(id=DutId(name), kind="rpi", transports=("ssh",), labels={"rack": "a"}, arch="aarch64")
    for name in ("rpi4", "rpi5")
)
LAB = [
    AgentFacts(agent=AgentId("lab1"), boot="1", version="0", slots=4, duts=BOARDS),
    AgentFacts(agent=AgentId("lab2"), boot="1", version="0", slots=1),
]


def plan_of(**target: object) -> Plan:
    schedule = {"cmd": "true", "target": "board"}
    targets = {"board": target}
    return plan(profile_of({"name": "x", "schedule": schedule, "targets": targets}), {})


def refused(*, require_agent: bool = False, **target: object) -> list[str]:
    found = refusals(plan_of(**target), LAB, require_agent=require_agent)
    return [str(problem) for problem in found]


def test_row_15_a_dut_that_is_not_there_is_named_with_the_nearest() -> None:
    assert refused(duts=["rpi9"]) == [
        "unknown_dut: targets.board.duts: 'rpi9'; nearest: rpi5, rpi4"
    ]


def test_all_unknown_names_are_told_at_once() -> None:
    assert refused(duts=["rpi9", "zz"], hosts=["lab3"]) == [
        "unknown_host: targets.board.hosts: 'lab3'; nearest: lab2, lab1",
        "unknown_dut: targets.board.duts: 'rpi9'; nearest: rpi5, rpi4",
        "unknown_dut: targets.board.duts: 'zz'; the lab has 2",
    ]


def test_row_16_what_nobody_can_serve_is_refused_when_asked_for() -> None:
    labels = {"rack": "a", "ram": "64G"}
    assert refused(kind="rpi", labels=labels) == []
    assert refused(require_agent=True, kind="rpi", labels=labels) == [
        "unsatisfiable: targets.board: needs rack=a, ram=64G, kind=rpi, runtime=dut; "
        "best match rpi4 misses: label ram is missing; "
        "'submit --park' keeps it waiting for one that fits"
    ]


def test_what_fits_is_admitted() -> None:
    assert refused(require_agent=True, kind="rpi", duts=["rpi5"]) == []
    assert refused(require_agent=True, hosts=["lab2"]) == []


def test_an_empty_lab_has_no_place() -> None:
    need = plan_of(kind="rpi").specs[0].need
    name, reasons = nearest_place(need, [])
    assert (name, [reason.code for reason in reasons]) == ("", ["target"])
