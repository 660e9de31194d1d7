"""Health checks over a real controller and a real agent: quarantine, return, board or build."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.support.people_lab import an_agent_of, on_board
from tests.support.served_lab import ServedLab, served, until, until_final
from tshrag_common import flaky_requests as fr
from tshrag_common.views import AgentView, DutView
from tshrag_controller.settings import HealthTable


@pytest.fixture
async def lab(tmp_path: Path, nats_url: str) -> AsyncIterator[ServedLab]:
    async with served(tmp_path / "lab", nats_url) as made:
        yield made


async def the_board(lab: ServedLab) -> DutView:
    return (await lab.client.duts()).duts[0]


async def test_a_board_that_does_not_pass_is_quarantined_until_it_does(
    lab: ServedLab, tmp_path: Path
) -> None:
    flag = tmp_path / "well"
    profile = tmp_path / "pi.json"
    profile.write_text(json.dumps(on_board(f"test -e {flag}")))
    table = HealthTable(every_s=3600.0, recheck_s=1.0, profiles={"pi": str(profile)})
    await lab.stop()
    lab.settings = msgspec.structs.replace(lab.settings, health=table)
    await lab.start()
    async with an_agent_of(lab, tmp_path / "a1"):

        async def is_quarantined() -> bool:
            return "quarantined by lab: health check run-" in (await the_board(lab)).intent

        await until(is_quarantined, 60.0)
        run = await lab.submit(on_board())
        assert (await lab.client.why(run)).sentence.startswith("DUT b1 is quarantined by lab")
        flag.touch()

        async def is_back() -> bool:
            return not (await the_board(lab)).intent

        await until(is_back, 60.0)
        assert await until_final(lab, run, 60) == "passed"


async def test_a_host_that_does_not_pass_is_quarantined_with_its_boards_until_it_does(
    lab: ServedLab, tmp_path: Path
) -> None:
    flag = tmp_path / "well"
    profile = tmp_path / "host.json"
    profile.write_text(
        json.dumps({"name": "host-check", "schedule": {"command": f"test -e {flag}"}})
    )
    table = HealthTable(every_s=3600.0, recheck_s=1.0, profiles={"host": str(profile)})
    await lab.stop()
    lab.settings = msgspec.structs.replace(lab.settings, health=table)
    await lab.start()
    async with an_agent_of(lab, tmp_path / "a1"):

        async def the_host() -> AgentView:
            return (await lab.client.agents()).agents[0]

        async def is_quarantined() -> bool:
            return "quarantined by lab: health check run-" in (await the_host()).intent

        await until(is_quarantined, 60.0)
        run = await lab.submit(on_board())
        assert (await lab.client.why(run)).sentence.startswith("host a1 is quarantined by lab")
        flag.touch()

        async def is_back() -> bool:
            found = await the_host()
            return not found.intent and found.checked.state == "passed"

        await until(is_back, 60.0)
        assert await until_final(lab, run, 60) == "passed"


async def test_a_build_that_fails_on_one_board_only_accuses_the_board(
    lab: ServedLab, tmp_path: Path
) -> None:
    async with an_agent_of(lab, tmp_path / "a1", ("b1", "b2")):
        command = "test $TSHRAG_JOB_DEVICE != b1"
        for number in range(2):
            for board in ("b1", "b2"):
                build = {"labels": {"build": f"v{number}"}}
                run = await lab.submit(on_board(f"sh -c '{command}'", **build), duts=(board,))
                await until_final(lab, run, 60)
        found = (await lab.client.flaky(fr.AskFlaky())).boards
        assert [(each.dut, each.passed, each.failed) for each in found] == [
            ("b1", 0, 2), ("b2", 2, 0),
        ]  # fmt: skip
        assert {each.verdict for each in found[0].suspicions} == {"board"}
        assert {each.build for each in found[0].suspicions} == {"v0", "v1"}
