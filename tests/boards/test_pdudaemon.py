"""A real pdudaemon (Debian's) whose outlet is a command of this machine."""

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.debian import need_program
from tests.support.ssh_server import free_port
from tests.support.waiting import wait_for, wait_until
from tshrag_agent.transport.power import power_switch
from tshrag_agent.transport.power_ways import PdudaemonPower, PowerWay
from tshrag_common.ids import DutId

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[str]:
    program = need_program("pdudaemon", "pdudaemon")
    port = free_port()
    note = f"echo %s %s >>{tmp_path}/notes"
    conf = {
        "daemon": {
            "hostname": "127.0.0.1",
            "port": port,
            "listener": "http",
            "logging_level": "INFO",
        },
        "pdus": {
            "bench": {
                "driver": "localcmdline",
                "cmd_on": note % ("on", "%s"),
                "cmd_off": note % ("off", "%s"),
            }
        },
    }
    (tmp_path / "conf").write_text(json.dumps(conf))
    argv = [program, f"--conf={tmp_path / 'conf'}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)

    def answers() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(answers, 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def test_an_outlet_of_pdudaemon_is_switched(daemon: str, tmp_path: Path) -> None:
    outlet = PdudaemonPower(url=daemon, pdu="bench", outlet="3")
    switch = power_switch(DutId("pi"), PowerWay(pdudaemon=outlet))
    await switch.off()
    await switch.on()
    notes = tmp_path / "notes"
    await wait_until(lambda: notes.exists() and len(notes.read_text().split()) == 4, 60)
    assert notes.read_text() == "off 3\non 3\n"
    assert await switch.status() == "unknown"
