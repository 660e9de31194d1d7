"""Roles that run on their boards, over SSH, meet and speak: dropbear, and nothing but busybox."""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_gangs import said
from tests.e2e.test_lab import client_of, final, submit
from tests.support.ssh_server import SshServer, a_folder_of_busybox
from tests.support.waiting import wait_until
from tshrag_common.client import Client
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.xdist_group("gangs")]

MARK = secrets.token_hex(3)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, SshServer]]:
    base = tmp_path_factory.mktemp("boards")
    tiny = a_folder_of_busybox(base / "tiny", frozenset())
    poor = a_folder_of_busybox(base / "poor", frozenset({"mkfifo"}))
    made = {
        "drop": SshServer("dropbear", base / "drop"),
        "tiny": SshServer("board", base / "tiny-server", ("--path", tiny, "--no-sftp")),
        "poor": SshServer("board", base / "poor-server", ("--path", poor, "--no-sftp")),
    }
    try:
        for server in made.values():
            server.start()
        yield made
    finally:
        for server in made.values():
            server.stop()


@pytest.fixture(scope="module")
def lab(
    tmp_path_factory: pytest.TempPathFactory, servers: dict[str, SshServer]
) -> Iterator[LabProcesses]:
    made = LabProcesses(tmp_path_factory.mktemp("gangs") / "lab", {"TSHRAG_NATS_URL": ""})
    made.state.mkdir()
    tables = {name: server.table(f"{name}-{MARK}", name) for name, server in servers.items()}
    try:
        made.start_controller("")
        asyncio.run(made.wait_ready())
        made.start_agent("west", tables["drop"] + tables["poor"], slots=2)
        made.start_agent("east", tables["tiny"], slots=2)
        asyncio.run(made.wait_agents(2))
        yield made
    finally:
        made.stop()


def document(**lines: str) -> dict[str, Any]:
    """Return a gang: each role is a line of shell, on the board of its name or on a host."""
    boards = {"drop", "tiny", "poor"}
    return {
        "name": "gang",
        "schedule": {"gang": {role: {"command": ["sh", "-ec", t]} for role, t in lines.items()}},
        "targets": {role: {"kind": role} if role in boards else {} for role in lines},
        "limits": {"attempts": 1, "timeout": "2m"},
    }


async def test_two_boards_and_a_host_meet_and_exchange_messages(lab: LabProcesses) -> None:
    drop = """
        tshrag-sync send tiny port 5201; tshrag-sync send tiny port "a b  'c'"
        tshrag-sync barrier up --timeout 60s
        for turn in 1 2 3; do tshrag-sync barrier turn; echo turn $turn; done
        printf 'one\\0two' > value; tshrag-sync send host bytes @value; rm value
        echo of file | tshrag-sync send tiny piped @-
        tshrag-sync recv done
    """
    tiny = """
        tshrag-sync barrier up --timeout 60s
        echo first $(tshrag-sync recv port --from drop)
        echo "second $(tshrag-sync recv port)"
        for turn in 1 2 3; do tshrag-sync barrier turn; done
        echo piped $(tshrag-sync recv piped)
        tshrag-sync recv big --to copy; wc -c < copy; rm copy
        tshrag-sync roles; tshrag-sync send all done "all of it"
    """
    host = """
        tshrag-sync barrier up --timeout 60s
        for turn in 1 2 3; do tshrag-sync barrier turn; done
        head -c 60000 /dev/zero > big; tshrag-sync send tiny big @big
        tshrag-sync recv bytes --to out; od -An -c out; tshrag-sync recv done
    """
    async with client_of(lab) as client:
        run = await submit(client, document(drop=drop, tiny=tiny, host=host))
        view = await final(client, run)
        told = await said(client, run)
        assert view.state == "passed", (view.reason, told)
        assert told["drop"].splitlines() == ["turn 1", "turn 2", "turn 3", "all of it"]
        lines = told["tiny"].splitlines()
        assert lines[:4] == ["first 5201", "second a b  'c'", "piped of file", "60000"]
        rows = [line.split()[:2] for line in lines[5:]]
        assert rows == [["drop", "here"], ["tiny", "self"], ["host", "here"]]
        assert told["host"].split() == ["o", "n", "e", "\\0", "t", "w", "o", "all", "of", "it"]


async def test_what_cannot_be_has_the_same_codes_and_words_on_a_board(lab: LabProcesses) -> None:
    tiny = """
        tshrag-sync barrier alone --timeout 300ms || echo late $?
        tshrag-sync send nobody k v || echo nobody $?
        head -c 70000 /dev/zero | tshrag-sync send drop k @- || echo large $?
        tshrag-sync send drop k @none || echo none $?
        tshrag-sync barrier || echo usage $?
        tshrag-sync --help | grep -c barrier
        tshrag-sync send drop go on; tshrag-sync barrier never || echo ended $?
    """
    async with client_of(lab) as client:
        run = await submit(client, document(tiny=tiny, drop="tshrag-sync recv go"))
        view = await final(client, run)
        told = (await said(client, run))["tiny"]
        assert view.state == "passed", told
        for code in ("late 5", "nobody 2", "large 2", "none 2", "usage 2", "ended 4"):
            assert code in told.splitlines(), told
        assert "barrier alone: drop has not come" in told
        assert "sync_mate_ended: barrier never: drop has ended (passed)" in told


async def test_a_board_that_lacks_a_program_is_named_to_the_others(lab: LabProcesses) -> None:
    host = "tshrag-sync barrier x || echo code $?"
    async with client_of(lab) as client:
        run = await submit(client, document(host=host, poor="sleep 600"))
        told = await _said(client, run, "host", "code 2")
        assert "sync_deaf: barrier x: role poor has no tshrag-sync where it runs" in told
        await client.cancel(run)
        await final(client, run)


async def test_nothing_is_left_on_a_board(lab: LabProcesses) -> None:
    async with client_of(lab) as client:
        lines = {"drop": 'echo "$TSHRAG_SYNC"; sleep 600', "tiny": "tshrag-sync barrier never"}
        run = await submit(client, document(**lines))
        folder = await _said(client, run, "drop", "/tmp/")
        is_there = Path(folder.strip()).exists  # the board is on this machine
        assert is_there()
        await client.cancel(run)
        await final(client, run)
        await wait_until(lambda: not is_there(), 30)


async def _said(client: Client, run: str, role: str, text: str) -> str:
    async with asyncio.timeout(60):
        while True:
            told = (await said(client, run))[role]
            if text in told:
                return told
            await asyncio.sleep(0.2)
