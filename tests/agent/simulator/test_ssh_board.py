import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncssh
import msgspec
import pytest

from tests.support.waiting import wait_for
from tshrag_agent.simulator.ssh_board import Ready

BOARD = (sys.executable, "-m", "tshrag_agent.simulator.ssh_board", "--dir")


def started(folder: Path, *options: str) -> tuple[subprocess.Popen[bytes], Ready]:
    process = subprocess.Popen([*BOARD, str(folder), *options], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        return process, msgspec.json.decode(process.stdout.readline(), type=Ready)


async def connect(ready: Ready, user: str = "") -> asyncssh.SSHClientConnection:
    pinned = asyncssh.import_public_key(ready.host_key)
    return await asyncssh.connect(
        ready.host,
        ready.port,
        config=None,
        username=user or ready.user,
        known_hosts=([pinned], [], []),
        client_keys=[ready.key_file],
        agent_path=None,
    )


async def test_a_board_is_reached_by_what_it_says(tmp_path: Path) -> None:
    process, ready = started(tmp_path / "board", "--hostname", "rpi")
    async with await connect(ready) as link:
        done = await link.run("pwd; echo $HOSTNAME; echo err >&2; exit 3")
        assert (done.stdout, done.stderr) == (f"{ready.home}\nrpi\n", "err\n")
        assert done.exit_status == 3
        assert (await link.run("kill -TERM $$")).exit_signal is not None
    process.terminate()
    assert process.wait(10) == 0


async def test_a_board_keeps_its_keys_and_lets_in_one_user(tmp_path: Path) -> None:
    process, first = started(tmp_path / "board", "--user", "demo")
    with pytest.raises(asyncssh.PermissionDenied):
        await connect(first, "root")
    process.terminate()
    process.wait(10)
    process, again = started(tmp_path / "board", "--user", "demo")
    assert again.host_key == first.host_key
    assert os.stat(again.key_file).st_mode & 0o777 == 0o600  # noqa: PTH116 - no path in async code
    (await connect(again)).abort()
    process.terminate()
    assert process.wait(10) == 0


def test_a_board_ends_with_its_parent_when_that_is_asked_for(tmp_path: Path) -> None:
    script = '"$@" & read -r _'
    parent = subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", *BOARD, str(tmp_path / "board"), "--with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    ready = msgspec.json.decode(parent.stdout.readline(), type=Ready)
    assert Path(f"/proc/{ready.pid}").exists()
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    wait_for(lambda: not _is_alive(ready.pid), 10)


def _is_alive(pid: int) -> bool:
    try:
        return b"ssh_board" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_a_board_without_sftp_is_like_one_with_dropbear(tmp_path: Path) -> None:
    process, ready = started(tmp_path / "board", "--no-sftp")
    os.kill(ready.pid, signal.SIGTERM)
    assert process.wait(10) == 0
