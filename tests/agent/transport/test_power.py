import asyncio
import contextlib
import http.server
import json
import os
import pty
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.support.debian import need_program
from tests.support.process_trees import living
from tests.support.transport_contract import new_tag
from tests.support.waiting import wait_for, wait_until
from tshrag_agent.boards.switch import CountedSwitch, Mains
from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.power import ActSwitch, power_switch
from tshrag_agent.transport.power_plugs import (
    HomeAssistantPower,
    LabgridPower,
    ShellyPower,
    TasmotaPower,
)
from tshrag_agent.transport.power_ways import (
    HttpPower,
    IpmiPower,
    PdudaemonPower,
    PowerWay,
    RelayPower,
    SnmpPower,
    UhubctlPower,
    acts_of,
)
from tshrag_common.ids import DutId

DUT = DutId("rpi4")


def a_switch_that_notes(notes: Path) -> PowerWay:
    return PowerWay(
        on=("sh", "-c", f"echo on >>{notes}"), off=("sh", "-c", f"echo off >>{notes}"), off_s=0.01
    )


async def test_a_cycle_is_off_and_on_where_no_command_does_it(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    await power_switch(DUT, a_switch_that_notes(notes)).cycle()
    assert notes.read_text() == "off\non\n"


async def test_a_switch_that_cannot_be_given_back_is_not_cut(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    way = PowerWay(off=("sh", "-c", f"echo off >>{notes}"))
    with pytest.raises(TransportFailed, match=r"set power.cycle, or on and off"):
        await power_switch(DUT, way).cycle()
    assert not notes.exists()


@pytest.mark.parametrize(
    ("said", "state"), [("ON since", "on"), ("off", "off"), ("", "unknown"), ("onward", "unknown")]
)
async def test_the_first_word_of_the_status_counts(said: str, state: str) -> None:
    assert await power_switch(DUT, PowerWay(status=("echo", said))).status() == state


async def test_without_a_switch_nothing_is_switched_and_it_is_said() -> None:
    switch = power_switch(DUT, None)
    assert await switch.status() == "unknown"
    with pytest.raises(TransportFailed) as failure:
        await switch.on()
    assert failure.value.line == (
        "power_failed: power on of rpi4: it is not set up; set power.on in agent.toml"
    )


async def test_a_command_that_fails_says_what_it_said() -> None:
    way = PowerWay(on=("sh", "-c", "echo outlet 9: no; exit 4"))
    with pytest.raises(TransportFailed, match=r"'sh' ended with 4: 'outlet 9: no'"):
        await power_switch(DUT, way).on()


async def test_a_command_that_is_not_there_is_told() -> None:
    with pytest.raises(TransportFailed, match=r"'/no/pdu' does not start"):
        await power_switch(DUT, PowerWay(on=("/no/pdu",))).on()


async def test_a_command_that_hangs_is_ended_with_its_children() -> None:
    tag = new_tag()
    way = PowerWay(on=("sh", "-c", f"sleep 300.{tag} & sleep 301.{tag}"), timeout_s=0.3)
    with pytest.raises(TransportFailed, match=r"took longer than 0.3 s"):
        await power_switch(DUT, way).on()
    await wait_until(lambda: not living(f".{tag}"))


async def test_a_relay_that_sticks_is_told() -> None:
    way = PowerWay(on=("true",), status=("echo", "off"), confirm_s=0.0)
    with pytest.raises(TransportFailed, match="it still says off after 0 s; see the switch"):
        await power_switch(DUT, way).on()


class Plug(http.server.BaseHTTPRequestHandler):
    """A smart plug: two pages that switch and one that tells."""

    state = "off"
    heard: tuple[str, ...] = ()

    def do_GET(self) -> None:
        Plug.heard += (f"{self.path} {self.headers.get('Authorization', '-')}",)
        if self.path.startswith("/secret") and not self.headers.get("Authorization"):
            self.send_error(401)
            return
        for word in ("on", "off"):
            if self.path.endswith(word):
                Plug.state = word
        body = f'{{"output": "{Plug.state}"}}'.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def plug() -> Iterator[str]:
    Plug.state, Plug.heard = "off", ()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Plug) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        serving.join()


async def test_a_plug_is_switched_and_asked_over_http(plug: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("Authorization: Bearer abc\n")
    http_way = HttpPower(
        on=f"{plug}/secret/on",
        off=f"{plug}/secret/off",
        status=f"{plug}/status",
        headers_file=str(token),
    )
    switch = power_switch(DUT, PowerWay(http=http_way, off_s=0.0))
    assert await switch.status() == "off"
    await switch.cycle()
    assert await switch.status() == "on"
    assert "/secret/off Bearer abc" in Plug.heard
    bare = HttpPower(on=f"{plug}/secret/on", off=f"{plug}/secret/off")
    with pytest.raises(TransportFailed, match="answers 401"):
        await power_switch(DUT, PowerWay(http=bare)).on()


class Plugs(http.server.BaseHTTPRequestHandler):
    """The HTTP forms of plugs: Home Assistant, Shelly of both generations, Tasmota."""

    is_on = False
    TURNS: ClassVar[dict[str, bool]] = {
        "/api/services/homeassistant/turn_on": True, "/api/services/homeassistant/turn_off": False,
        "/relay/1?turn=on": True, "/relay/1?turn=off": False,
        "/rpc/Switch.Set?id=2&on=true": True, "/rpc/Switch.Set?id=2&on=false": False,
        "/cm?cmnd=Power1+On": True, "/cm?cmnd=Power1+Off": False,
    }  # fmt: skip
    ASKED: ClassVar[dict[str, tuple[str, str]]] = {
        "/api/states/switch.bench_3": ('{"state": "on"}', '{"state": "off"}'),
        "/relay/1": ('{"ison":true}', '{"ison":false}'),
        "/rpc/Switch.GetStatus?id=2": (
            '{"id":2, "output":true, "apower":4.5}',
            '{"id":2, "output":false}',
        ),
        "/cm?cmnd=Power1": ('{"POWER":"ON"}', '{"POWER":"OFF"}'),
        "/api/states/sensor.bench_3_power": ('{"state": "4.5"}', '{"state": "unavailable"}'),
        "/meter/1": ('{"power":4.5,"is_valid":true}', '{"is_valid":false}'),
        "/cm?cmnd=Status+8": ('{"StatusSNS":{"ENERGY":{"Power":4.5}}}', '{"StatusSNS":{}}'),
    }

    def do_GET(self) -> None:
        if self.path.startswith("/api") and self.headers["Authorization"] != "Bearer abc":
            self.send_error(401)
            return
        if self.path in self.TURNS:
            Plugs.is_on = self.TURNS[self.path]
        self.send_response(200 if self.path in self.TURNS.keys() | self.ASKED.keys() else 404)
        self.end_headers()
        on, off = self.ASKED.get(self.path, ("", ""))
        self.wfile.write((on if Plugs.is_on else off).encode())

    def do_POST(self) -> None:
        said = self.rfile.read(int(self.headers["Content-Length"]))
        assert json.loads(said) == {"entity_id": "switch.bench_3"}
        assert self.headers["Content-Type"] == "application/json"
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("kind", ["home_assistant", "shelly", "shelly-1", "tasmota"])
async def test_plugs_are_switched_and_asked_in_their_own_words(kind: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("Authorization: Bearer abc\n")
    Plugs.is_on = False
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Plugs) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        way = {
            "home_assistant": PowerWay(
                home_assistant=HomeAssistantPower(
                    url=url,
                    entity="switch.bench_3",
                    headers_file=str(token),
                    sensor="sensor.bench_3_power",
                )
            ),
            "shelly": PowerWay(shelly=ShellyPower(url=url, relay=2)),
            "shelly-1": PowerWay(shelly=ShellyPower(url=url, relay=1, generation=1)),
            "tasmota": PowerWay(tasmota=TasmotaPower(url=url)),
        }[kind]
        switch = power_switch(DUT, way)
        try:
            assert await switch.status() == "off"
            await switch.on()
            assert (await switch.status(), Plugs.is_on) == ("on", True)
            assert await switch.read() == 4.5
            await switch.off()
            with pytest.raises(TransportFailed, match=r"power read of .*there are no watts in"):
                await switch.read()
            assert (await switch.status(), Plugs.is_on) == ("off", False)
            assert way.can_cut
        finally:
            server.shutdown()
            serving.join()


OUTLET = """
PORT = 23
def power_set(host, port, index, value):
    open(host, "w").write(f"{port} {index!r} {value}")
def power_get(host, port, index):
    return "True" in open(host).read()
"""


async def test_a_module_of_labgrid_is_called_in_a_process_of_its_own(tmp_path: Path) -> None:
    modules = tmp_path / "labgrid" / "driver" / "power"
    modules.mkdir(parents=True)
    (modules / "fake.py").write_text(OUTLET)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    state = tmp_path / "state"
    outlet = LabgridPower(model="fake", host=str(state), index="3", python=str(python))
    switch = power_switch(DUT, PowerWay(labgrid=outlet, off_s=0.0))
    await switch.cycle()
    assert (await switch.status(), state.read_text()) == ("on", "23 3 True")
    unknown = LabgridPower(model="nothing", host="x", index="3", python=str(python))
    with pytest.raises(TransportFailed, match=r"labgrid\.driver\.power\.nothing"):
        await power_switch(DUT, PowerWay(labgrid=unknown)).on()


async def test_a_relay_gets_its_bytes() -> None:
    outer, inner = pty.openpty()
    tty.setraw(inner)
    relay = RelayPower(device=os.ttyname(inner), on="a0 01 01 a2", off="A00100A1")
    try:
        await power_switch(DUT, PowerWay(relay=relay, off_s=0.0)).cycle()
        heard = b""
        while len(heard) < 8:
            heard += os.read(outer, 64)
        assert heard == bytes.fromhex("a00100a1a00101a2")
    finally:
        os.close(outer)
        os.close(inner)


def test_known_ways_are_the_words_that_their_tools_take() -> None:
    daemon = PdudaemonPower(url="http://pdu:16421/", pdu="apc-1", outlet="3")
    on = acts_of(PowerWay(pdudaemon=daemon)).on
    assert getattr(on, "url", "") == "http://pdu:16421/power/control/on?hostname=apc-1&port=3"
    hub = acts_of(PowerWay(uhubctl=UhubctlPower(location="1-1", port="3")))
    assert getattr(hub.off, "argv", ()) == ("uhubctl", "-l", "1-1", "-p", "3", "-a", "off")
    bmc = acts_of(PowerWay(ipmi=IpmiPower(host="bmc", user="lab", password_file="/x")))
    assert getattr(bmc.status, "argv", ())[-3:] == ("chassis", "power", "status")
    assert not PowerWay(on=("true",)).can_cut
    assert PowerWay(pdudaemon=daemon).can_cut


OID = ".1.3.6.1.4.1.54321.1"
PASS = """#!/bin/sh
case "$1" in
-s) echo "$4" >"$0.state"; exit 0;;
esac
[ "$2" = %s ] || exit 0
echo %s; echo integer; cat "$0.state"
"""


@pytest.fixture
def agent_with_an_outlet(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Start a real snmpd with one outlet; give its address and the folder of the clients."""
    snmpd = need_program("snmpd", "snmpd")
    need_program("snmpset", "snmp")
    script = tmp_path / "outlet"
    script.write_text(PASS % (OID, OID))
    script.chmod(0o755)
    Path(f"{script}.state").write_text("2\n")
    conf = tmp_path / "snmpd.conf"
    conf.write_text(f"rwcommunity private 127.0.0.1\npass {OID} {script}\n")
    clients = tmp_path / "clients"
    clients.mkdir()
    (clients / "snmp.conf").write_text("defVersion 2c\ndefCommunity private\n")
    address = tmp_path / "address"
    command = [snmpd, "-f", "-Lf", str(tmp_path / "log"), "-C", "-c", str(conf), "-I", "-smux"]
    with subprocess.Popen(
        [*command, "-p", str(address), "udp:127.0.0.1:0"],
        env={**os.environ, "SNMP_PERSISTENT_DIR": str(tmp_path / "kept")},
        start_new_session=True,
    ) as process:
        try:
            yield f"127.0.0.1:{udp_port(process.pid)}", clients
        finally:
            process.kill()


def opened_by(pid: int) -> list[str]:
    """Return what the descriptors of a process lead to; it opens and closes while we look."""
    found: list[str] = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(each.readlink()))
    return found


def udp_port(pid: int) -> int:
    """Return the port that a process listens on, as soon as there is one."""
    found: list[int] = []

    def look() -> bool:
        links = opened_by(pid)
        inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
        for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
            words = line.split()
            if words[9] in inodes and words[1].startswith("0100007F:"):
                found.append(int(words[1].partition(":")[2], 16))
        return bool(found)

    wait_for(look, 20)
    return found[0]


async def test_an_outlet_is_switched_by_snmp_and_confirmed(
    agent_with_an_outlet: tuple[str, Path],
) -> None:
    host, clients = agent_with_an_outlet
    snmp = SnmpPower(host=host, oid=OID, config=str(clients))
    switch = power_switch(DUT, PowerWay(snmp=snmp, off_s=0.0))
    assert await switch.status() == "off"
    await switch.on()
    assert await switch.status() == "on"
    await switch.cycle()
    assert await switch.status() == "on"
    silent = SnmpPower(host="127.0.0.1:9", oid=OID, config=str(clients), args=("-r0", "-t1"))
    with pytest.raises(TransportFailed, match="'snmpset' ended with 1: 'Timeout"):
        await power_switch(DUT, PowerWay(snmp=silent, timeout_s=20.0)).on()


@pytest.mark.parametrize(
    ("said", "regex", "watts"),
    [("12.25", "", 12.25), ("load: 3 W of 16 A", "", 3.0), ("A 16 W 7", "W ([0-9]+)", 7.0)],
)
async def test_what_a_meter_says_is_read_as_watts(said: str, regex: str, watts: float) -> None:
    switch = power_switch(DUT, PowerWay(read=("echo", said), read_watts=regex))
    assert await switch.read() == watts


async def test_an_outlet_without_a_meter_says_so() -> None:
    with pytest.raises(TransportFailed, match=r"not set up; set power\.read in agent.toml"):
        await power_switch(DUT, PowerWay(on=("true",), off=("true",))).read()


class Clocked(ActSwitch):
    """Notes when it is switched on."""

    at: ClassVar[list[float]] = []

    async def on(self) -> None:
        Clocked.at.append(asyncio.get_running_loop().time())


async def test_boards_of_a_host_are_switched_on_one_after_the_other_and_counted(
    tmp_path: Path,
) -> None:
    """An inrush at a time; the count of each outlet is kept over a restart."""
    mains = Mains(tmp_path / "switched.json", 0.1)
    Clocked.at.clear()
    begin = asyncio.get_running_loop().time()
    names = [DutId(name) for name in ("a", "b", "a")]
    await asyncio.gather(
        *(CountedSwitch(name, Clocked(name, PowerWay()), mains).on() for name in names)
    )
    assert [at - begin >= 0.1 * turn - 0.01 for turn, at in enumerate(Clocked.at)] == [True] * 3
    assert Mains(tmp_path / "switched.json", 0.0).counts == {"a": 2, "b": 1}
