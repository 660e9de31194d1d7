"""PURE: smart plugs by their HTTP forms, and the PDUs that labgrid knows."""

from typing import Annotated, Literal
from urllib.parse import urlencode

import msgspec
from msgspec import Meta

from tshrag_agent.transport.power_acts import Execute, PlainWord, PowerActs, Request, Url


class HomeAssistantPower(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A switch of Home Assistant; the headers hold its long-lived token."""

    url: Url
    entity: Annotated[str, Meta(pattern=r"^[a-z0-9_]+\.[a-z0-9_]+$", max_length=200)]
    headers_file: str


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
    """The part of ``[dut.power]`` that names one of these; one at most."""

    home_assistant: HomeAssistantPower | None = None
    shelly: ShellyPower | None = None
    tasmota: TasmotaPower | None = None
    labgrid: LabgridPower | None = None


def plug_acts(way: Plugs) -> PowerActs:
    if way.home_assistant is not None:
        return _home_assistant(way.home_assistant)
    if way.shelly is not None:
        return _shelly(way.shelly)
    if way.tasmota is not None:
        return _tasmota(way.tasmota)
    if way.labgrid is not None:
        return _labgrid(way.labgrid)
    return PowerActs()


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
    )


def _shelly(way: ShellyPower) -> PowerActs:
    base = way.url.rstrip("/")
    if way.generation == 1:
        asked = f"{base}/relay/{way.relay}"
        turns, word = [f"{asked}?turn={what}" for what in ("on", "off")], "ison"
    else:
        asked = f"{base}/rpc/Switch.GetStatus?id={way.relay}"
        turns = [f"{base}/rpc/Switch.Set?id={way.relay}&on={what}" for what in ("true", "false")]
        word = "output"
    return PowerActs(
        on=Request(url=turns[0]),
        off=Request(url=turns[1]),
        status=Request(url=asked),
        status_on=rf'"{word}":\s*true',
        status_off=rf'"{word}":\s*false',
    )


def _tasmota(way: TasmotaPower) -> PowerActs:
    def command(what: str = "") -> Request:
        words = urlencode({"cmnd": f"Power{way.relay} {what}".strip()})
        return Request(url=f"{way.url.rstrip('/')}/cm?{words}")

    return PowerActs(
        on=command("On"),
        off=command("Off"),
        status=command(),
        status_on=r'"POWER\d*":\s*"ON"',
        status_off=r'"POWER\d*":\s*"OFF"',
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
