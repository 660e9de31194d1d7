"""PURE: smart plugs by their HTTP forms, and the PDUs that labgrid knows."""

from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import msgspec
from msgspec import Meta

from tshrag_agent.transport.power_acts import Execute, PlainWord, PowerActs, Request, Url

_NUMBER = r"-?\d+(?:\.\d+)?"


class HomeAssistantPower(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A switch of Home Assistant; the headers hold its long-lived token."""

    url: Url
    entity: Annotated[str, Meta(pattern=r"^[a-z0-9_]+\.[a-z0-9_]+$", max_length=200)]
    headers_file: str
    sensor: Annotated[str, Meta(pattern=r"^([a-z0-9_]+\.[a-z0-9_]+)?$", max_length=200)] = ""


class ShellyPower(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A relay of a Shelly plug; its first generation has another API than all since."""

    url: Url
    relay: Annotated[int, Meta(ge=0, le=63)] = 0
    generation: Literal[1, 2] = 2


class TasmotaPower(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A relay of a plug with Tasmota, counted from 1."""

    url: Url
    relay: Annotated[int, Meta(ge=1, le=32)] = 1


class LabgridPower(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An outlet of a PDU that labgrid knows; ``python`` is one that has labgrid."""

    model: Annotated[str, Meta(pattern=r"^[a-z0-9_]+$", max_length=64)]
    host: Annotated[str, Meta(min_length=1, max_length=2048)]
    index: PlainWord
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    python: str = "python3"


class Plugs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of ``[dut.power]`` that names one of these."""

    home_assistant: HomeAssistantPower | None = None
    shelly: ShellyPower | None = None
    tasmota: TasmotaPower | None = None
    labgrid: LabgridPower | None = None


def _home_assistant(way: HomeAssistantPower) -> PowerActs:
    base, body = way.url.rstrip("/"), f'{{"entity_id": "{way.entity}"}}'

    def turn(what: str) -> Request:
        return Request(
            url=f"{base}/api/services/homeassistant/turn_{what}",
            method="POST",
            body=body,
            headers_file=way.headers_file,
            type="application/json",
        )

    return PowerActs(
        on=turn("on"),
        off=turn("off"),
        status=Request(url=f"{base}/api/states/{way.entity}", headers_file=way.headers_file),
        status_on=r'"state":\s*"on"',
        status_off=r'"state":\s*"off"',
        read=Request(url=f"{base}/api/states/{way.sensor}", headers_file=way.headers_file)
        if way.sensor
        else None,
        watts=rf'"state":\s*"({_NUMBER})"',
    )


def _shelly(way: ShellyPower) -> PowerActs:
    base = way.url.rstrip("/")
    if way.generation == 1:
        asked = f"{base}/relay/{way.relay}"
        turns, word = [f"{asked}?turn={what}" for what in ("on", "off")], "ison"
        meter, power = f"{base}/meter/{way.relay}", "power"
    else:
        asked = f"{base}/rpc/Switch.GetStatus?id={way.relay}"
        turns = [f"{base}/rpc/Switch.Set?id={way.relay}&on={what}" for what in ("true", "false")]
        word, meter, power = "output", asked, "apower"
    return PowerActs(
        on=Request(url=turns[0]),
        off=Request(url=turns[1]),
        status=Request(url=asked),
        status_on=rf'"{word}":\s*true',
        status_off=rf'"{word}":\s*false',
        read=Request(url=meter),
        watts=rf'"{power}":\s*({_NUMBER})',
    )


def _tasmota(way: TasmotaPower) -> PowerActs:
    def command(what: str) -> Request:
        words = urlencode({"cmnd": what})
        return Request(url=f"{way.url.rstrip('/')}/cm?{words}")

    return PowerActs(
        on=command(f"Power{way.relay} On"),
        off=command(f"Power{way.relay} Off"),
        status=command(f"Power{way.relay}"),
        status_on=r'"POWER\d*":\s*"ON"',
        status_off=r'"POWER\d*":\s*"OFF"',
        read=command("Status 8"),
        watts=rf'"Power":\s*\[?({_NUMBER})',
    )


_LABGRID = """
import importlib, sys
model, host, port, index, what = sys.argv[1:]
outlet = importlib.import_module(f"labgrid.driver.power.{model}")
port = int(port) or getattr(outlet, "PORT", None)
index = int(index) if index.isdecimal() else index
if what == "status":
    print("on" if outlet.power_get(host, port, index) else "off")
else:
    outlet.power_set(host, port, index, what == "on")
"""
"""labgrid's modules run beside the agent: they bring their own libraries, and may hang."""


def _labgrid(way: LabgridPower) -> PowerActs:
    def outlet(what: str) -> Execute:
        words = (way.model, way.host, str(way.port), way.index, what)
        return Execute((way.python, "-c", _LABGRID, *words))

    return PowerActs(on=outlet("on"), off=outlet("off"), status=outlet("status"))


PLUGS: dict[str, Callable[[Any], PowerActs]] = {
    "home_assistant": _home_assistant,
    "shelly": _shelly,
    "tasmota": _tasmota,
    "labgrid": _labgrid,
}
