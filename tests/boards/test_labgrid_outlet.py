"""A module of the real labgrid, in a virtual environment of its own, switches an HTTP relay."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tshrag_agent.transport.power import power_switch
from tshrag_agent.transport.power_plugs import LabgridPower
from tshrag_agent.transport.power_ways import PowerWay
from tshrag_common.ids import DutId

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Relay(http.server.BaseHTTPRequestHandler):
    state = "0"

    def do_GET(self) -> None:
        index, *value = self.path.strip("/").split("/")
        assert index == "3"
        Relay.state = value[0] if value else Relay.state
        self.send_response(200)
        self.end_headers()
        self.wfile.write(Relay.state.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def python(tmp_path: Path) -> str:
    home = tmp_path / "labgrid"
    subprocess.run((sys.executable, "-m", "venv", str(home)), check=True)
    uv = Path(sys.executable).with_name("uv")
    install = (
        str(uv),
        "pip",
        "install",
        "--quiet",
        "--python",
        str(home / "bin/python"),
        "labgrid",
    )
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"LOUD: labgrid cannot be installed here: {done.stderr[-500:]}")
    return str(home / "bin/python")


@pytest.fixture
def relay() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Relay) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{{index}}/{{value}}"
        server.shutdown()
        serving.join()


async def test_simplerest_of_labgrid_switches_and_tells(python: str, relay: str) -> None:
    outlet = LabgridPower(model="simplerest", host=relay, index="3", python=python)
    switch = power_switch(DutId("pi"), PowerWay(labgrid=outlet, off_s=0.0))
    await switch.on()
    assert (await switch.status(), Relay.state) == ("on", "1")
    await switch.cycle()
    await switch.off()
    assert (await switch.status(), Relay.state) == ("off", "0")
