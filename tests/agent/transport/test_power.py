import http.server
import os
import pty
import subprocess
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.debian import need_program
from tests.support.process_trees import living
from tests.support.transport_contract import new_tag
from tests.support.waiting import wait_for, wait_until
from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.power import power_switch
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


def udp_port(pid: int) -> int:
    """Return the port that a process listens on, as soon as there is one."""
    found: list[int] = []

    def look() -> bool:
        opened = [each for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()]
        links = [str(each.readlink()) for each in opened]
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
