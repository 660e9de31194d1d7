"""Steps of a board: how they are read, what becomes of them, and why one waits."""

import pytest

from tests.support.builders import a_dut, facts
from tshrag_common.actions import Action, Boot, Expect, Flash
from tshrag_common.errors import Invalid
from tshrag_common.inventory import AgentFacts
from tshrag_common.jobs import LoadRef, Plan
from tshrag_common.manifest import Manifest, Platform, ResolvedLoad
from tshrag_common.reading import profile_of
from tshrag_controller.core.needs import misfits
from tshrag_controller.core.plan import plan

FIRMWARE = ResolvedLoad(
    ref=LoadRef(name="fw", digest="a" * 64, source="x"),
    manifest=Manifest(name="fw", version="1", platforms=(Platform(entry="run"),)),
)


def planned(*steps: object, **more: object) -> Plan:
    document = {"name": "p", "schedule": {"sequence": list(steps)}, **more}
    return plan(profile_of(document), {"fw": FIRMWARE})


def actions(made: Plan) -> list[Action | None]:
    return [made.specs[job.spec].board for job in made.jobs]


def test_a_text_stands_for_the_first_field_of_a_step() -> None:
    made = planned({"boot": "shell"}, {"console.expect": "$ "}, {"bootloader": "printenv"})
    assert actions(made) == [
        Action(boot=Boot(to="shell")),
        Action(expect=Expect(text=("$ ",))),
        Action(bootloader=("printenv",)),
    ]


def test_variables_are_put_in_everywhere() -> None:
    step = {"console.expect": {"regex": ["v${V}"], "within": "2m"}, "env": {"V": "7"}}
    (action,) = actions(planned(step))
    assert action == Action(expect=Expect(regex=("v7",), within=120.0))


def test_a_shell_step_is_a_command_of_the_dut() -> None:
    made = planned({"shell": "dmesg | tail"})
    assert (made.specs[0].kind, made.specs[0].argv) == ("command", ("sh", "-c", "dmesg | tail"))
    assert made.specs[0].need.target.runtime == "dut"


def test_a_flash_takes_its_load_along() -> None:
    loads = {"fw": {"path": "git@h:fw.git#1"}}
    made = planned({"flash": {"load": "fw", "path": "image.bin"}}, loads=loads)
    assert made.specs[0].load == FIRMWARE.ref
    assert made.specs[0].board == Action(flash=Flash(load="fw", path="image.bin"))


def test_one_dut_has_to_have_all_that_the_steps_of_a_run_want() -> None:
    made = planned({"power": "cycle"}, {"bootloader": "printenv"}, {"console.send": "x"})
    assert {spec.need.can for spec in made.specs} == {("power", "bootloader", "console")}


def test_why_says_what_a_dut_lacks() -> None:
    need = planned({"power": "cycle"}, {"bootloader": "printenv"}).specs[0].need
    host: AgentFacts = facts("a1")
    (reason,) = misfits(need, host, a_dut("b1"))
    assert (reason.code, reason.text) == ("can", "DUT b1 has no power, bootloader set up")


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"power": "reset"}, "schedule.sequence[0].power: expected one of 'cycle', 'off', 'on'"),
        ({"console.expect": {}}, "there is nothing to wait for; add text or regex"),
        ({"console.expect": {"regex": ["login: $"]}}, "'$' looks beyond the match"),
        ({"flash": {"load": "fwx", "path": "a"}}, "unknown_load"),
        ({"upload": {"load": "fw", "path": "../a", "to": "/a"}}, "not a path below the folder"),
        ({"boot": "shell", "power": "on"}, "has 'power' and 'boot'; keep exactly one of them"),
        ({"boot": {"to": "shell", "frsh": True}}, "did you mean 'fresh'?"),
    ],
)
def test_what_is_wrong_with_a_step_is_said(step: object, said: str) -> None:
    loads = {"fw": {"path": "git@h:fw.git#1"}}
    with pytest.raises(Invalid) as caught:
        planned(step, loads=loads)
    assert said in str(caught.value)


def test_a_target_that_is_a_host_has_no_board() -> None:
    step = {"power": "on", "target": "h"}
    with pytest.raises(Invalid, match="target 'h' is a host"):
        planned(step, targets={"h": {"runtime": "host"}})
