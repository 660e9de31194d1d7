"""Files of a profile to and from a board by SFTP, on a real OpenSSH server, from the submit on."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.support.command_line import run_cli
from tests.support.ssh_server import SshServer
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.xdist_group("e2e")]

DUT = """
[[dut]]
id = "b1"
kind = "ssh"
[dut.ssh]
host = "127.0.0.1"
port = {port}
host_key = "{host_key}"
key_file = "{key_file}"
"""

PROFILE = """
name: files
tolerant: true
limits: {{ attempts: 1 }}
loads: {{ files: {{ path: ./files }} }}
schedule:
  sequence:
    - {{ upload: {{ load: files, path: image.bin, to: {there}/image.bin }} }}
    - {{ upload: {{ load: files, path: tree, to: {there}/tree }} }}
    - {{ shell: "test -x {there}/tree/deep/tool && {there}/tree/deep/tool > {there}/said" }}
    - {{ download: {{ path: {there}/said, to: said.txt }} }}
    - {{ download: {{ path: {there}/tree, to: back }} }}
    - {{ download: {{ path: {there}/nothing, to: nothing }} }}
    - {{ upload: {{ load: files, path: image.bin, to: /proc/nowhere/image.bin }} }}
"""


def a_load(folder: Path, image: bytes) -> None:
    deep = folder / "tree" / "deep"
    deep.mkdir(parents=True)
    (folder / "load.toml").write_text(
        'name = "files"\nversion = "1"\n[[platforms]]\nentry = "image.bin"\n'
    )
    (folder / "image.bin").write_bytes(image)
    (deep / "tool").write_text("#!/bin/sh\necho tool of the load\n")
    (deep / "tool").chmod(0o755)
    (folder / "tree" / "a name, with spaces").write_text("kept\n")


async def test_files_go_to_a_board_by_sftp_and_come_back(lab: LabProcesses, tmp_path: Path) -> None:
    server = SshServer("openssh", tmp_path / "sshd")
    server.start()
    try:
        way = server.way()
        lab.start_controller("")
        await lab.wait_ready()
        toml = DUT.format(port=way.port, host_key=way.host_key.strip(), key_file=way.key_file)
        lab.start_agent("rack", toml, slots=1)
        await lab.wait_agents(1)
        await asyncio.to_thread(look, lab, tmp_path)
    finally:
        server.stop()


def look(lab: LabProcesses, tmp_path: Path) -> None:
    image, there = os.urandom(300_000), tmp_path / "board"
    there.mkdir()
    folder = tmp_path / "profiles"
    a_load(folder / "files", image)
    (folder / "files.yaml").write_text(PROFILE.format(there=there))
    run_cli("submit", str(folder / "files.yaml"), "--wait", state=lab.state)
    shown = json.loads(run_cli("status", "last", "-o", "json", state=lab.state).stdout)
    states = [each["state"] for each in shown["jobs"]]
    assert states[:5] == ["passed"] * 5, shown
    assert (there / "image.bin").read_bytes() == image
    assert (there / "tree" / "a name, with spaces").read_text() == "kept\n"
    (job,) = lab.state.rglob("JID_004/artifacts/said.txt")
    assert job.read_text() == "tool of the load\n"
    (back,) = lab.state.rglob("JID_005/artifacts/back")
    assert os.access(back / "deep" / "tool", os.X_OK)
    assert (back / "a name, with spaces").read_text() == "kept\n"
    assert [each["error"]["code"] for each in shown["jobs"][5:]] == ["transfer_failed"] * 2
    assert "/board/nothing' cannot be read" in shown["jobs"][5]["error"]["message"]
