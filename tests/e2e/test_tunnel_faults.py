"""A tunnel and the death of what is under it: broker, agent; OpenSSH with real processes."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import psutil
import pytest

from tests.support.command_line import TSHRAG
from tests.support.ssh_server import SshServer
from tests.support.tunnel_lab import AGENT, Lab, tunnel_lab
from tests.support.waiting import wait_for
from tshrag_common.board_client import boards_of
from tshrag_common.client import open_client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.xdist_group("people")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> SshServer:
    return SshServer("openssh", tmp_path_factory.mktemp("faults") / "openssh")


@pytest.fixture(scope="module")
def lab(server: SshServer) -> Iterator[Lab]:
    with tunnel_lab(server.folder.parent, [server], key_in_file=True) as made:
        yield made


def broker_pid(lab: Lab) -> int:
    try:
        return int((lab.state / "nats/run/nats.pid").read_text())
    except (OSError, ValueError):
        return 0


def echoed(session: "subprocess.Popen[bytes]", line: bytes) -> bytes:
    assert session.stdin is not None and session.stdout is not None
    session.stdin.write(line)
    session.stdin.flush()
    return session.stdout.readline()


def closed(lab: Lab) -> list[str]:
    done = lab.tshrag("audit", "openssh", "--what", "forward", "--json")
    entries = json.loads(done.stdout).get("entries", [])
    return [each["reason"] for each in entries if each["phase"] == "closed"]


def test_an_ssh_session_goes_on_over_the_death_of_the_broker(lab: Lab) -> None:
    with lab.piped("ssh", "-F", lab.ssh_config(), "openssh", "cat") as session:
        assert session.stdin is not None
        assert echoed(session, b"before\n") == b"before\n"
        before = broker_pid(lab)
        os.kill(before, signal.SIGKILL)
        assert echoed(session, b"behind\n") == b"behind\n"
        assert broker_pid(lab) not in (0, before)
        session.stdin.close()
        wait_for(lambda: session.poll() is not None, 40)
        assert session.returncode == 0


def flash(server: SshServer) -> None:
    """Let the board come up with another host key; nobody is logged in any more."""
    for session in psutil.Process(server.pid).children(recursive=True):
        session.kill()
    server.stop()
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(server.folder / "host_key"))
    server.start_again()


def test_a_changed_host_key_stops_everybody_until_it_is_enrolled(
    lab: Lab, server: SshServer, tmp_path: Path
) -> None:
    config = lab.ssh_config()
    flash(server)
    done = lab.command("ssh", "-F", config, "openssh", "true")
    assert done.returncode == 255
    assert b"HOST IDENTIFICATION HAS CHANGED" in done.stderr
    done = lab.command(*TSHRAG, "ssh", "openssh", "true")
    assert done.returncode == 255
    copied = lab.tshrag("put", "openssh", __file__, str(tmp_path / "there"))
    assert copied.returncode == 3
    assert copied.stderr.startswith("host_key_changed: openssh (root@127.0.0.1:"), copied.stderr
    assert "tshrag-agent host-key DUT --pin" in copied.stderr
    toml = str(lab.state / "agents" / AGENT / "agent.toml")
    enrol = (sys.executable, "-m", "tshrag_agent", "host-key", "openssh", "--config", toml)
    shown = lab.command(*enrol)
    assert (shown.returncode, b"NOT the same" in shown.stdout) == (2, True), shown
    assert lab.command(*enrol, "--pin").returncode == 0
    done = lab.command("ssh", "-F", lab.ssh_config(), "openssh", "echo again")
    assert done.stdout == b"again\n", done.stderr
    copied = lab.tshrag("put", "openssh", __file__, str(tmp_path / "there"))
    assert copied.returncode == 0, copied.stderr


def test_a_killed_client_is_noticed_by_the_agent(lab: Lab) -> None:
    before = len(closed(lab))
    with lab.piped(*TSHRAG, "forward", "openssh", "22", "--stdio") as client:
        assert client.stdout is not None
        assert client.stdout.read(4) == b"SSH-"
        client.kill()
    wait_for(lambda: len(closed(lab)) > before, 40)


def test_a_process_of_a_host_outlives_client_and_agent_and_leaves_nothing(lab: Lab) -> None:
    with lab.piped(*TSHRAG, "exec", AGENT, "--", "sh", "-c", "echo up; exec sleep 600") as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        client.kill()
    lab.processes.kill(AGENT)
    lab.processes.run_agent(AGENT)
    listed = json.loads(lab.tshrag("process", "list", AGENT, "--json").stdout)
    (found,) = listed["processes"]
    name = found["id"]
    assert found["state"] == "running"
    assert lab.tshrag("process", "remove", AGENT, name).returncode == 2
    assert lab.tshrag("process", "signal", AGENT, name, "KILL").returncode == 0
    assert lab.tshrag("process", "wait", AGENT, name).returncode == 128 + signal.SIGKILL
    assert lab.tshrag("process", "output", AGENT, name).stdout == "up\n"
    assert lab.tshrag("process", "remove", AGENT, name).returncode == 0
    assert not psutil.pid_exists(found["pid"])
    wait_for(lambda: not any(name in " ".join(each) for each in command_lines()), 30)


def command_lines() -> list[list[str]]:
    return [each.info["cmdline"] or [] for each in psutil.process_iter(["cmdline"])]


@pytest.mark.parametrize("way", ["put", "get"])
def test_a_copy_goes_on_where_the_death_of_the_agent_has_cut_it(
    lab: Lab, tmp_path: Path, way: str
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(secrets.token_bytes(24 << 20))
    steps: list[tuple[str, int]] = []

    def show(what: str, done: int, total: int) -> None:
        if done > total // 2 and not any(said == "killed" for said, _ in steps):
            lab.processes.kill(AGENT)
            lab.processes.run_agent(AGENT)
            steps.append(("killed", done))
        steps.append((what, done))

    async def copied() -> None:
        bundle = lab.processes.bundle
        async with (
            open_client(bundle.url, name="me", credentials=bundle.creds) as client,
            boards_of(client) as boards,
        ):
            if way == "put":
                await boards.put("openssh", source, str(target), show)
            else:
                await boards.get("openssh", str(source), target, show)

    asyncio.run(copied())
    assert target.read_bytes() == source.read_bytes()
    behind = steps[[what for what, _ in steps].index("the way was lost; trying again") :]
    first = next(done for _, done in behind if done)
    assert first > 8 << 20, behind[:5]  # it did not begin anew
    done = lab.tshrag("put", "openssh", str(source), str(tmp_path / "again"))  # the same lease
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("again", [True, False], ids=["comes back", "stays away"])
def test_a_killed_agent_ends_a_session_soon_and_says_so(lab: Lab, again: bool) -> None:
    with lab.piped("ssh", "-F", lab.ssh_config(), "openssh", "cat") as session:
        assert session.stderr is not None
        assert echoed(session, b"hello\n") == b"hello\n"
        lab.processes.kill(AGENT)
        if again:
            lab.processes.run_agent(AGENT)
        wait_for(lambda: session.poll() is not None, 40)  # silence alone takes 45 s
        said = session.stderr.read().decode()
    if not again:
        lab.processes.run_agent(AGENT)  # for whatever test comes next
    assert session.returncode == 255
    assert "channel_lost: " in said, said
    assert ("begun anew" if again else "agent rack: it has left the bus") in said, said
