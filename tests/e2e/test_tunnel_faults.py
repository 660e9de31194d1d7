"""A tunnel and the death of what is under it: broker, agent; OpenSSH with real processes."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import TSHRAG
from tests.support.ssh_server import SshServer
from tests.support.tunnel_lab import AGENT, Lab, tunnel_lab
from tests.support.waiting import wait_for
from tshrag_common.board_client import boards_of
from tshrag_common.client import open_client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.xdist_group("people")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    state = tmp_path_factory.mktemp("faults")
    with tunnel_lab(state, [SshServer("openssh", state / "openssh")]) as made:
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
    entries = json.loads(done.stdout)["entries"]
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


def test_a_killed_client_is_noticed_by_the_agent(lab: Lab) -> None:
    before = len(closed(lab))
    with lab.piped(*TSHRAG, "forward", "openssh", "22", "--stdio") as client:
        assert client.stdout is not None
        assert client.stdout.read(4) == b"SSH-"
        client.kill()
    wait_for(lambda: len(closed(lab)) > before, 40)


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
    assert session.returncode == 255
    assert "channel_lost: " in said, said
    assert ("begun anew" if again else "agent rack: it has left the bus") in said, said
