"""A second controller joins a lab with accounts by one file, and leads when the first is gone."""

import asyncio
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.support.command_line import run_cli
from tests.support.controllers import Controllers
from tests.support.nats_server import NatsServer
from tests.support.waiting import wait_until
from tshrag_common.ids import DEFAULT_ORG
from tshrag_common.keys import Bundle, read_bundle, write_secret
from tshrag_common.labkeys import load_lab, new_lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.xdist_group("e2e")]


async def cli(*words: str, state: Path) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(partial(run_cli, *words, state=state))


async def test_a_controller_joins_by_one_file(tmp_path: Path) -> None:
    keys = new_lab(DEFAULT_ORG)
    server = NatsServer(tmp_path / "nats", keys=keys).start()
    first = tmp_path / "c0"
    keys.save(first / "keys.json")
    own = Bundle(
        kind="controller", name="c0", url=server.url, creds=keys.controller_creds("c0").text
    )
    write_secret(tmp_path / "c0.json", own.encoded())
    both = Controllers(tmp_path, server.url)
    try:
        both.start("c0", bundle=tmp_path / "c0.json")
        person = keys.with_person("jo", DEFAULT_ORG, server.url)[1]
        await both.meet(person.creds)
        assert await both.leader() == "c0"
        made = await cli("controller", "add", "c1", "--out", str(tmp_path / "c1.json"), state=first)
        assert made.returncode == 0, made.stderr
        both.start("c1", bundle=tmp_path / "c1.json", keys=False)
        await both.stands_by("c1")
        assert load_lab(tmp_path / "c1" / "keys.json").controller == keys.controller
        refused = await cli("agent", "enroll", "a1", state=tmp_path / "c1")
        assert refused.returncode == 2
        assert "keys_elsewhere" in refused.stderr
        shown = await cli("controller", "list", state=first)
        assert "standby" in shown.stdout, shown
        rotated = await cli("keys", "rotate", state=first)
        assert rotated.returncode == 0, rotated.stderr
        finished = await cli("keys", "rotate", "--finish", state=first)
        assert finished.returncode == 0, finished.stderr
        newest = (first / "keys.json").read_bytes()
        learned = tmp_path / "c1" / "keys.json"
        await wait_until(lambda: learned.read_bytes() == newest, 60)
        assert load_lab(learned).controller != keys.controller
        assert await both.end("c1") == 0
        both.start("c1", bundle=tmp_path / "c1.json", keys=False)
        await both.stands_by("c1")
        assert learned.read_bytes() == newest, "its file is older than what it has learned"
        both.kill("c0")
        assert await both.leader(but="c0") == "c1"
        assert read_bundle(tmp_path / "c1" / "me.json").kind == "person"
    finally:
        both.end_all()
        await both.bus.close()
        server.stop()


async def test_a_folder_of_another_lab_is_refused(tmp_path: Path) -> None:
    other = new_lab(DEFAULT_ORG).controller_bundle("c1", "nats://127.0.0.1:1", plain=True)
    write_secret(tmp_path / "c1.json", other.encoded())
    new_lab(DEFAULT_ORG).save(tmp_path / "c1" / "keys.json")
    alone = Controllers(tmp_path, "nats://127.0.0.1:1")
    alone.start("c1", bundle=tmp_path / "c1.json")
    assert alone.processes["c1"].wait(30) == 2
    assert "keys_differ" in alone.said("c1")
