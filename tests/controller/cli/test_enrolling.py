"""Files for agents and people, and their revocation, on a real server with accounts."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.command_line import run_cli
from tests.support.nats_server import NatsServer
from tests.support.waiting import wait_until
from tshrag_common.bus.connection import connect
from tshrag_common.errors import Refused
from tshrag_common.ids import DEFAULT_ORG
from tshrag_common.keys import Bundle, claims_of, parse_creds, write_secret
from tshrag_common.labkeys import LabKeys, load_lab, new_lab
from tshrag_controller.cli.enrolling import keyring


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Give the state folder of a lab whose bus has no accounts."""
    new_lab(DEFAULT_ORG).save(tmp_path / "keys.json")
    own = Bundle(kind="person", name="me", org="default", url="nats://127.0.0.1:1")
    write_secret(tmp_path / "me.json", own.encoded())
    return tmp_path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """Give a server with the accounts of a lab, its state folder beside it."""
    keys = new_lab(DEFAULT_ORG)
    server = NatsServer(tmp_path / "nats", keys=keys).start()
    state = tmp_path / "state"
    keys, own = keys.with_person("me", DEFAULT_ORG, server.url)
    keys.save(state / "keys.json")
    write_secret(state / "me.json", own.encoded())
    yield server
    server.stop()


def bundle_of(text: str) -> Bundle:
    return msgspec.json.decode(text, type=Bundle)


def keys_of(state: Path) -> LabKeys:
    return load_lab(state / "keys.json")


def test_an_agent_of_a_plain_lab_gets_seals_and_no_right(state: Path) -> None:
    done = run_cli("agent", "enroll", "rack-7", "--address", "nats://lab:4222", state=state)
    bundle = bundle_of(done.stdout)
    assert (bundle.kind, bundle.name, bundle.url, bundle.creds) == (
        "agent", "rack-7", "nats://lab:4222", "",
    )  # fmt: skip
    assert bundle.controller_key == keys_of(state).controller_key
    assert "carries no right of its own" in done.stderr


def test_a_file_is_written_so_that_nobody_else_can_read_it(state: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "rack-7.json"
    done = run_cli("agent", "enroll", "rack-7", "--out", str(out), state=state)
    assert done.stdout == ""
    assert out.stat().st_mode & 0o777 == 0o600
    assert "--address says how another one reaches it" in done.stderr


def test_a_name_that_could_be_a_subject_is_refused(state: Path) -> None:
    for name in ("a.b", "*", "a b", "../x", "A"):
        done = run_cli("agent", "enroll", name, state=state)
        assert done.returncode == 2
        assert "is no name" in done.stderr
        assert done.stdout == ""


def test_where_no_lab_is_nobody_can_be_enrolled(tmp_path: Path) -> None:
    done = run_cli("agent", "enroll", "a1", state=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("no_keys: ")


def test_a_plain_bus_cannot_shut_anybody_out_and_says_so(state: Path) -> None:
    keys = keys_of(state).with_agent(msgspec.convert("a1", str), "nats://x:1")[0]  # type: ignore[arg-type]  # an AgentId
    keys.save(state / "keys.json")
    done = run_cli("agent", "revoke", "a1", state=state)
    assert done.returncode == 2
    assert done.stderr.startswith("plain: a bus without accounts cannot shut anybody out")


def test_revoking_somebody_unknown_names_the_nearest(state: Path) -> None:
    keys = keys_of(state).with_agent(msgspec.convert("rack-7", str), "nats://x:1")[0]  # type: ignore[arg-type]  # an AgentId
    keys.save(state / "keys.json")
    done = run_cli("agent", "revoke", "rack-8", state=state)
    assert "unknown_agent: 'rack-8' is not known; nearest: rack-7" in done.stderr


def test_nobody_is_called_as_the_lab_calls_itself(server: NatsServer, tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = run_cli("user", "add", "lab", "--org", "radio", state=state)
    assert done.returncode == 2
    assert done.stderr.startswith("reserved_name: name: 'lab' is what the lab calls itself")
    assert "radio" not in keys_of(state).orgs


def test_two_at_a_time_forget_nobody(server: NatsServer, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with keyring(state) as ring:
        ring.enroll("a1")
    with keyring(state) as ring:
        ring.enroll("a2")
    assert set(keys_of(state).agents) == {"a1", "a2"}


@pytest.fixture
async def radio(server: NatsServer, tmp_path: Path) -> AsyncIterator[Bundle]:
    """Give the file of jo, the first person of the new org radio."""
    words = ("user", "add", "jo", "--org", "radio")
    done = await asyncio.to_thread(run_cli, *words, state=tmp_path / "state")
    assert done.returncode == 0, done.stderr
    yield bundle_of(done.stdout)


async def test_a_new_org_reaches_the_running_server(radio: Bundle) -> None:
    bus = await connect(radio.url, name="jo", credentials=radio.creds, within_s=5)
    assert bus.is_connected
    await bus.close()


async def test_who_is_revoked_is_cut_off_and_stays_out(radio: Bundle, tmp_path: Path) -> None:
    bus = await connect(radio.url, name="jo", credentials=radio.creds, within_s=5)
    words = ("user", "revoke", "jo", "--org", "radio")
    done = await asyncio.to_thread(run_cli, *words, state=tmp_path / "state")
    assert done.returncode == 0, done.stderr
    await wait_until(lambda: not bus.is_connected)
    await bus.close()
    with pytest.raises(Exception, match=r"(?i)authorization|cannot reach"):
        await connect(radio.url, name="jo", credentials=radio.creds, within_s=1)
    again = await asyncio.to_thread(
        run_cli, "user", "add", "jo", "--org", "radio", state=tmp_path / "state"
    )
    fresh = bundle_of(again.stdout)
    assert claims_of(parse_creds(fresh.creds).jwt)["sub"] != claims_of(
        parse_creds(radio.creds).jwt
    )["sub"]  # fmt: skip
    bus = await connect(fresh.url, name="jo", credentials=fresh.creds, within_s=5)
    await bus.close()


def test_a_server_that_is_away_is_told_and_the_keys_are_kept(
    server: NatsServer, tmp_path: Path
) -> None:
    server.stop()
    done = run_cli("user", "add", "jo", "--org", "radio", state=tmp_path / "state")
    assert done.returncode == 3
    assert done.stderr.startswith("not_pushed: the server has not taken the accounts")
    assert "radio" in keys_of(tmp_path / "state").orgs


def test_an_agents_file_never_holds_the_keys_of_the_lab(server: NatsServer, tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = run_cli("agent", "enroll", "a1", state=state)
    keys = json.loads((state / "keys.json").read_text())
    secrets = [keys[name] for name in ("operator", "sys", "ctl", "agents_account", "secret")]
    assert not [secret for secret in secrets if secret in done.stdout]
    with pytest.raises(Refused):
        parse_creds("")
