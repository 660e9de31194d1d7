"""What an operator says of the switch of a DUT: ``[dut.power]`` of ``agent.toml``.

PURE but for reading nothing: a way becomes four acts, each a command, a request or some bytes.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import msgspec
from msgspec import Meta

from tshrag_agent.transport.boot_way import Pattern
from tshrag_agent.transport.power_acts import (
    Argv,
    Execute,
    Hex,
    PlainWord,
    PowerActs,
    Request,
    Url,
    Write,
)
from tshrag_agent.transport.power_plugs import PLUGS, Plugs
from tshrag_agent.transport.ways import HostName, Seconds


class HttpPower(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests that switch: a smart plug, Home Assistant, a PDU with a web page."""

    on: Url
    off: Url
    status: Url | Literal[""] = ""
    read: Url | Literal[""] = ""
    method: Literal["GET", "POST", "PUT"] = "GET"
    body_on: str = ""
    body_off: str = ""
    headers_file: str = ""


class PdudaemonPower(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An outlet of pdudaemon, by its HTTP form."""

    url: Url
    pdu: PlainWord
    outlet: PlainWord


class SnmpPower(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An outlet by SNMP, with the programs of net-snmp; ``config`` is their SNMPCONFPATH."""

    host: HostName
    oid: Annotated[str, Meta(pattern=r"^[A-Za-z0-9.:_-]+$", max_length=200)]
    on: int = 1
    off: int = 2
    config: str = ""
    args: Argv = ()


class UhubctlPower(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A port of a USB hub that can switch its ports."""

    location: PlainWord
    port: PlainWord


class IpmiPower(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server's management controller, by ipmitool."""

    host: HostName
    user: PlainWord
    password_file: str


class RelayPower(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A relay that takes bytes on a serial line: in hexadecimal digits."""

    device: str
    on: Hex
    off: Hex
    baud: int = 9600


class PowerWay(Plugs, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the power of a DUT is switched: by commands, or by one of the ways that are known.

    A command is an argv, no shell. ``status`` prints ``on`` or ``off`` in its first word, or what
    ``status_on`` and ``status_off`` find. ``cycle`` may be left out: then it is off, ``off_s`` of
    waiting, on. Where the state can be asked for it must be right within ``confirm_s``.
    """

    on: Argv = ()
    off: Argv = ()
    cycle: Argv = ()
    status: Argv = ()
    read: Argv = ()
    http: HttpPower | None = None
    pdudaemon: PdudaemonPower | None = None
    snmp: SnmpPower | None = None
    uhubctl: UhubctlPower | None = None
    ipmi: IpmiPower | None = None
    relay: RelayPower | None = None
    status_on: Pattern = ""
    status_off: Pattern = ""
    read_watts: Pattern = ""
    off_s: Annotated[float, Meta(ge=0, le=600)] = 2.0
    timeout_s: Seconds = 30.0
    confirm_s: Annotated[float, Meta(ge=0, le=600)] = 10.0

    @property
    def can_cut(self) -> bool:
        """Tell whether it can cut the power and give it back."""
        acts = acts_of(self)
        return acts.on is not None and acts.off is not None


def acts_of(way: PowerWay) -> PowerActs:
    """Return what a way means: its commands go before one of the known ways."""
    known = _known(way)
    return PowerActs(
        on=Execute(way.on) if way.on else known.on,
        off=Execute(way.off) if way.off else known.off,
        cycle=Execute(way.cycle) if way.cycle else known.cycle,
        status=Execute(way.status) if way.status else known.status,
        status_on=way.status_on or known.status_on,
        status_off=way.status_off or known.status_off,
        read=Execute(way.read) if way.read else known.read,
        watts=way.read_watts or known.watts,
    )


def _known(way: PowerWay) -> PowerActs:
    for name, make in WAYS.items():
        said = getattr(way, name)
        if said is not None:
            return make(said)
    return PowerActs()


def _http(way: HttpPower) -> PowerActs:
    def request(url: str, method: str, body: str = "") -> Request:
        return Request(url=url, method=method, body=body, headers_file=way.headers_file)

    return PowerActs(
        on=request(way.on, way.method, way.body_on),
        off=request(way.off, way.method, way.body_off),
        status=request(way.status, "GET") if way.status else None,
        read=request(way.read, "GET") if way.read else None,
        status_on=r"(?i)\b(on|true|1)\b",
        status_off=r"(?i)\b(off|false|0)\b",
    )


def _pdudaemon(way: PdudaemonPower) -> PowerActs:
    def control(what: str) -> Request:
        words = urlencode({"hostname": way.pdu, "port": way.outlet})
        return Request(url=f"{way.url.rstrip('/')}/power/control/{what}?{words}")

    return PowerActs(on=control("on"), off=control("off"), cycle=control("reboot"))


def _snmp(way: SnmpPower) -> PowerActs:
    env = {"MIBS": ""}  # numbers only: what MIBs lack would be said before the answer
    env |= {"SNMPCONFPATH": way.config} if way.config else {}

    def program(name: str, *words: str) -> Execute:
        return Execute((name, "-Oqv", *way.args, way.host, way.oid, *words), env)

    return PowerActs(
        on=program("snmpset", "i", str(way.on)),
        off=program("snmpset", "i", str(way.off)),
        status=program("snmpget"),
        status_on=rf"^{way.on}\s*$",
        status_off=rf"^{way.off}\s*$",
    )


def _uhubctl(way: UhubctlPower) -> PowerActs:
    words = ("uhubctl", "-l", way.location, "-p", way.port)
    return PowerActs(
        on=Execute((*words, "-a", "on")),
        off=Execute((*words, "-a", "off")),
        status=Execute(words),
        status_on=r"Port \d+: \d{4} power",
        status_off=r"Port \d+: \d{4} off",
    )


def _ipmi(way: IpmiPower) -> PowerActs:
    words = ("ipmitool", "-I", "lanplus", "-H", way.host, "-U", way.user, "-f", way.password_file)

    def power(what: str) -> Execute:
        return Execute((*words, "chassis", "power", what))

    return PowerActs(
        on=power("on"),
        off=power("off"),
        cycle=power("cycle"),
        status=power("status"),
        status_on=r"(?i)power is on",
        status_off=r"(?i)power is off",
        read=Execute((*words, "dcmi", "power", "reading")),
        watts=r"Instantaneous power reading:\s+(\d+)",
    )


def _relay(way: RelayPower) -> PowerActs:
    def write(digits: str) -> Write:
        return Write(device=way.device, data=bytes.fromhex(digits), baud=way.baud)

    return PowerActs(on=write(way.on), off=write(way.off))


WAYS: dict[str, Callable[[Any], PowerActs]] = {
    "http": _http,
    "pdudaemon": _pdudaemon,
    "snmp": _snmp,
    "uhubctl": _uhubctl,
    "ipmi": _ipmi,
    "relay": _relay,
    **PLUGS,
}
"""The ways that are known, by their tables; the settings of a DUT have one of them at most."""
