from pathlib import Path

import pytest

from tests.support.process_trees import living
from tests.support.transport_contract import new_tag
from tests.support.waiting import wait_until
from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.power import power_switch
from tshrag_agent.transport.ways import PowerWay
from tshrag_common.ids import DutId

DUT = DutId("rpi4")


def a_switch_that_notes(notes: Path) -> PowerWay:
    return PowerWay(
        on=("sh", "-c", f"echo on >>{notes}"), off=("sh", "-c", f"echo off >>{notes}"), off_s=0.01
    )


async def test_a_cycle_is_off_and_on_where_no_command_does_it(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    await power_switch(DUT, a_switch_that_notes(notes)).cycle()
    assert notes.read_text() == "off\non\n"


async def test_a_switch_that_cannot_be_given_back_is_not_cut(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    way = PowerWay(off=("sh", "-c", f"echo off >>{notes}"))
    with pytest.raises(TransportFailed, match=r"set power.cycle, or on and off"):
        await power_switch(DUT, way).cycle()
    assert not notes.exists()


@pytest.mark.parametrize(
    ("said", "state"), [("ON since", "on"), ("off", "off"), ("", "unknown"), ("onward", "unknown")]
)
async def test_the_first_word_of_the_status_counts(said: str, state: str) -> None:
    assert await power_switch(DUT, PowerWay(status=("echo", said))).status() == state


async def test_without_a_switch_nothing_is_switched_and_it_is_said() -> None:
    switch = power_switch(DUT, None)
    assert await switch.status() == "unknown"
    with pytest.raises(TransportFailed) as failure:
        await switch.on()
    assert failure.value.line == (
        "power_failed: power on of rpi4: it is not set up; set power.on in agent.toml"
    )


async def test_a_command_that_fails_says_what_it_said() -> None:
    way = PowerWay(on=("sh", "-c", "echo outlet 9: no; exit 4"))
    with pytest.raises(TransportFailed, match=r"'sh' ended with 4: 'outlet 9: no'"):
        await power_switch(DUT, way).on()


async def test_a_command_that_is_not_there_is_told() -> None:
    with pytest.raises(TransportFailed, match=r"'/no/pdu' does not start"):
        await power_switch(DUT, PowerWay(on=("/no/pdu",))).on()


async def test_a_command_that_hangs_is_ended_with_its_children() -> None:
    tag = new_tag()
    way = PowerWay(on=("sh", "-c", f"sleep 300.{tag} & sleep 301.{tag}"), timeout_s=0.3)
    with pytest.raises(TransportFailed, match=r"took longer than 0.3 s"):
        await power_switch(DUT, way).on()
    await wait_until(lambda: not living(f".{tag}"))
