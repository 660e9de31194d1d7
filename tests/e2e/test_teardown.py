"""The teardown of a group, over a real agent: at its end, with its environment, over a crash."""

import asyncio
import secrets
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_lab import client_of, final, submit
from tests.support.s3 import a_free_port
from tshrag_common import requests as r
from tshrag_common.client import Client
from tshrag_common.views import DutView
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.xdist_group("scheduling")]

PORT = a_free_port()
CONTROLLER = f"""
[scheduler]
linger_s = 0
[prometheus]
listen = "127.0.0.1:{PORT}"
"""
BOARD = f"solo-{secrets.token_hex(3)}"
DUT = f'[[dut]]\nid = "{BOARD}"\nkind = "solo"\n[dut.local]\n'


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabProcesses]:
    made = LabProcesses(tmp_path_factory.mktemp("undo") / "lab", {"TSHRAG_NATS_URL": ""})
    made.state.mkdir()
    try:
        made.start_controller(CONTROLLER)
        asyncio.run(made.wait_ready())
        made.start_agent("west", DUT, slots=2)
        asyncio.run(made.wait_agents(1))
        yield made
    finally:
        made.stop()


def document(key: str, log: Path, undo: str, **more: Any) -> dict[str, Any]:
    return {
        "name": key,
        "schedule": {"command": "true", "target": "place"},
        "targets": {"place": {"kind": "solo", "hold": "job"}},
        "setup": {"command": ["sh", "-c", f"echo made >> {log}"]},
        "teardown": {"command": ["sh", "-c", undo]},
        "group": {"key": key},
        **more,
    }


async def board(client: Client) -> DutView:
    return (await client.duts()).duts[0]


async def until(holds: Any, what: str) -> None:
    ends = time.monotonic() + 60
    while not await holds():
        assert time.monotonic() < ends, what
        await asyncio.sleep(0.05)


async def test_it_is_done_without_a_next_user_and_the_board_shows_it(
    lab: LabProcesses, tmp_path: Path
) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"
    undo = f'until [ -e {gate} ]; do sleep 0.05; done; echo "undone $WHO" >> {log}'
    async with client_of(lab) as client:
        run = await submit(client, document("a", log, undo, env={"WHO": "a b"}))
        assert (await final(client, run)).state == "passed"

        async def is_undoing() -> bool:
            return (await board(client)).state == "teardown"

        await until(is_undoing, "the board never showed its teardown")
        gate.touch()

        async def is_free() -> bool:
            view = await board(client)
            return view.state == "available" and not view.dut.owes and not view.dut.carries

        await until(is_free, "the board was never free again")
        assert log.read_text() == "made\nundone a b\n", "in the environment of its profile"


async def test_one_that_fails_is_done_by_the_next_user(lab: LabProcesses, tmp_path: Path) -> None:
    log, well = tmp_path / "log", tmp_path / "well"
    undo = f"test -e {well} && echo undone >> {log}"
    async with client_of(lab) as client:
        await final(client, await submit(client, document("b", log, undo)))

        async def has_failed() -> bool:
            runs = (await client.runs(r.ListRuns())).runs
            return any(each.name == "teardown b" and each.state == "error" for each in runs)

        await until(has_failed, "the teardown did not fail")
        (failed,) = [e for e in (await client.runs(r.ListRuns())).runs if e.name == "teardown b"]
        assert "the teardown failed: group_teardown_1: exit code 1" in failed.reason
        assert (await board(client)).dut.owes, "it is still to be done"
        well.touch()
        plain = document("", log, undo)
        for word in ("setup", "teardown", "group"):
            del plain[word]
        assert (await final(client, await submit(client, {**plain, "name": "c"}))).state == "passed"
        assert log.read_text() == "made\nundone\n"
        assert not (await board(client)).dut.owes


async def test_an_agent_that_dies_in_the_middle_does_it_again(
    lab: LabProcesses, tmp_path: Path
) -> None:
    log, first = tmp_path / "log", tmp_path / "first"
    undo = f"if mkdir {first}; then sleep 300; fi; echo undone >> {log}"
    async with client_of(lab) as client:
        await final(client, await submit(client, document("d", log, undo)))

        async def is_in_it() -> bool:
            return first.exists()

        await until(is_in_it, "the teardown did not begin")
        lab.kill("west")
        lab.run_agent("west")

        async def is_done() -> bool:
            return log.read_text() == "made\nundone\n" and not (await board(client)).dut.owes

        await until(is_done, "the teardown was lost with the agent")


async def test_what_setups_cost_and_saved_is_counted(lab: LabProcesses, tmp_path: Path) -> None:
    log = tmp_path / "log"
    body = document("e", log, f"echo undone >> {log}", group={"key": "e", "linger": "1h"})
    body["setup"] = {"command": ["sh", "-c", f"sleep 0.5; echo made >> {log}"]}
    async with client_of(lab) as client:
        before = (await client.stats()).setups
        assert before is not None
        for _ in range(3):
            assert (await final(client, await submit(client, body))).state == "passed"
        after = (await client.stats()).setups
        assert after is not None
        assert (after.made - before.made, after.avoided - before.avoided) == (1, 2)
        assert after.spent_s - before.spent_s >= 0.5
        assert after.saved_s - before.saved_s >= 1.0, "twice what the setup took"
        text = await asyncio.to_thread(scraped)
        assert f'tshrag_setups_total{{what="avoided"}} {after.avoided}' in text
        assert f'tshrag_setup_seconds_total{{what="saved"}} {after.saved_s}' in text
        for state, count in after.teardowns.items():
            assert f'tshrag_teardowns_total{{state="{state}"}} {count}' in text


def scraped() -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=30) as answer:
        text: str = answer.read().decode()
    return text
