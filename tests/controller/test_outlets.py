"""A board whose agent is away: its outlet is switched, and what it says decides."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.support.builders import a_dut, facts
from tests.support.people_lab import an_agent_of, on_board
from tests.support.served_lab import ScriptedAgent, ServedLab, served, until
from tests.support.waiting import wait_until
from tshrag_common import requests as r
from tshrag_common.errors import LabError, Refused
from tshrag_common.ids import DutId
from tshrag_controller.intake import beats
from tshrag_controller.outlets import Outlets, PowerUnconfirmed
from tshrag_controller.settings import OutletTable

B1 = DutId("b1")


def an_outlet(folder: Path, *, sticks: bool = False, says: str = "cat") -> OutletTable:
    """Make an outlet of a file that holds how it is; its history stands in another one."""
    now, told = folder / "now", folder / "told"
    now.write_text("on\n")

    def to(word: str) -> tuple[str, ...]:
        write = "" if sticks else f"echo {word} > '{now}';"
        return ("sh", "-c", f"{write} echo {word} >> '{told}'")

    return OutletTable(
        on=to("on"), off=to("off"), status=(says, str(now)), off_s=0.0, confirm_s=0.2
    )


async def test_a_board_is_seen_off_and_on_again(tmp_path: Path) -> None:
    await Outlets({"b1": an_outlet(tmp_path)}).cycle(B1)
    assert (tmp_path / "told").read_text() == "off\non\n"
    assert (tmp_path / "now").read_text() == "on\n"


async def test_a_relay_that_sticks_is_no_power_cycle(tmp_path: Path) -> None:
    with pytest.raises(PowerUnconfirmed, match="says on, not off"):
        await Outlets({"b1": an_outlet(tmp_path, sticks=True)}).cycle(B1)


@pytest.mark.parametrize(
    ("says", "why"),
    [("echo", "neither on nor off"), ("false", "ended with 1"), ("no-such", "no-such")],
)
async def test_nothing_is_switched_where_nobody_could_see_it(
    tmp_path: Path, says: str, why: str
) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(PowerUnconfirmed, match=why):
        await Outlets({"b1": an_outlet(tmp_path / "x", says=says)}).cycle(B1)
    assert not (tmp_path / "x" / "told").exists()


async def test_a_board_without_an_outlet_is_refused() -> None:
    with pytest.raises(Refused, match="no outlet"):
        await Outlets({}).cycle(B1)


async def test_an_outlet_that_only_another_host_reaches_is_switched_through_its_agent(
    tmp_path: Path, nats_url: str
) -> None:
    async with served(tmp_path / "lab", nats_url) as lab:
        through = (sys.executable, "-m", "tshrag_controller.cli.app", "exec", "a2",
                   "--url", lab.url, "--")  # fmt: skip
        near = an_outlet(tmp_path)
        far = msgspec.structs.replace(
            near,
            on=(*through, *near.on),
            off=(*through, *near.off),
            status=(*through, *near.status),
            confirm_s=30.0,
            timeout_s=30.0,
        )

        async def is_there() -> bool:
            return any(each.facts.agent == "a2" for each in (await lab.client.agents()).agents)

        async with an_agent_of(lab, tmp_path / "a2", boards=(), name="a2"):
            await until(is_there, 30)
            await Outlets({"b1": far}).cycle(B1)
        assert (tmp_path / "told").read_text() == "off\non\n"
        nobody = msgspec.structs.replace(far, status=(*through[:4], "a3", *through[5:], "true"))
        with pytest.raises(PowerUnconfirmed, match="a3"):
            await Outlets({"b1": nobody}).cycle(B1)


@pytest.fixture
async def lab(tmp_path: Path, nats_url: str) -> AsyncIterator[ServedLab]:
    async with served(tmp_path / "lab", nats_url) as made:
        outlet = {"b1": an_outlet(tmp_path)}
        made.settings = msgspec.structs.replace(made.settings, outlet=outlet)
        await made.restart()
        yield made


async def test_an_attempt_is_given_up_when_its_board_was_seen_off(
    lab: ServedLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = ScriptedAgent(lab)
    agent.facts = facts("a1", 4, [a_dut("b1")], boot=agent.facts.boot)
    await agent.hello()
    run = await lab.submit(on_board())
    await wait_until(lambda: bool(agent.starts), 30)
    job = (await lab.client.jobs(r.ListJobs(id=run))).jobs[0].id
    with pytest.raises(LabError, match="tshrag cancel"):
        await lab.client.resolve(job, power_cycle=True)
    assert not (tmp_path / "told").exists(), "who has an agent that answers keeps its power"
    monkeypatch.setattr(beats, "SUSPECT_S", 0.5)  # as if it had been silent for half a minute
    monkeypatch.setattr(beats, "LOST_S", 1.0)

    async def is_away() -> bool:
        return (await lab.client.resolve(job)).agent_state == "lost"

    await until(is_away, 30)
    answer = await lab.client.resolve(job, power_cycle=True)
    assert (answer.done, answer.dut, answer.by) == (True, "b1", "anybody")
    assert (tmp_path / "told").read_text() == "off\non\n"
    (lost,) = (await lab.client.jobs(r.ListJobs(id=run))).jobs[0].attempts
    assert lost.state == "lost"
    assert (await lab.client.duts()).duts[0].job == ""
