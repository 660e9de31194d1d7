"""What a running nats-server says of its own settings and health, and whether that will do.

Two ways lead there: its monitoring port (``[nats] monitor``), and the system account where the
operator of the server is that of the lab. On a plain server without a monitoring port nobody
can tell.
"""

import asyncio
import urllib.error
import urllib.request
from typing import TypeVar

import msgspec

from tshrag_common import subjects
from tshrag_common.bus.connection import Bus, connect
from tshrag_common.errors import LabError, Refused, Unreachable
from tshrag_common.labkeys import LabKeys

_WITHIN_S = 3.0

T = TypeVar("T")


class Config(msgspec.Struct, frozen=True):
    """The settings of JetStream; without ``sync_always`` the LOG may be lost in a power cut."""

    store_dir: str = ""
    sync_interval: int = 0
    sync_always: bool = False


class _Server(msgspec.Struct, frozen=True):
    name: str = ""
    feature_flags: dict[str, bool] = {}


class _JetStream(msgspec.Struct, frozen=True):
    config: Config = Config()


class _Varz(msgspec.Struct, frozen=True):
    server_name: str = ""
    jetstream: _JetStream = _JetStream()
    feature_flags: dict[str, bool] = {}


class _Health(msgspec.Struct, frozen=True):
    status: str = "ok"
    error: str = ""


class _Told(msgspec.Struct, frozen=True):
    server: _Server = _Server()
    data: msgspec.Raw = msgspec.Raw(b"{}")


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One server. ``sickness`` is empty where it is well; without ``answers`` nothing is known."""

    name: str
    config: Config
    flags: dict[str, bool]
    sickness: str = ""
    answers: bool = True


async def by_monitor(urls: str) -> tuple[Facts, ...]:
    """Ask the monitoring ports in `urls`, a list with commas; one that is away is a sick server.

    Raises:
        Unreachable: none answers.

    """
    places = [url.strip().rstrip("/") for url in urls.split(",") if url.strip()]
    looking = [asyncio.to_thread(_looked, place) for place in places]
    found = await asyncio.gather(*looking)
    away = [each for each in found if isinstance(each, Unreachable)]
    if away and len(away) == len(found):
        raise away[0]
    return tuple(
        _away(place) if isinstance(each, Unreachable) else each
        for place, each in zip(places, found, strict=True)
    )


async def by_system(url: str, keys: LabKeys, node: str) -> tuple[Facts, ...]:
    """Ask as a user of the system account; empty where that is not our lab's."""
    credentials = keys.system_creds(node).text
    try:
        system = await connect(url, name=node, credentials=credentials, within_s=_WITHIN_S)
    except LabError:
        return ()
    try:
        server, told = await _ask(system, "JSZ", _JetStream)
        _, health = await _ask(system, "HEALTHZ", _Health)
    except (LabError, msgspec.DecodeError):
        return ()
    finally:
        await system.close()
    sickness = "" if health.status == "ok" else health.error or health.status
    flags = server.feature_flags
    return (Facts(name=server.name, config=told.config, flags=flags, sickness=sickness),)


def check(found: tuple[Facts, ...], *, unsafe_sync: bool, replicas: int) -> bool:
    """Tell whether what such servers acknowledge is on their disks.

    Raises:
        Refused: it is not, there is no second copy and nobody has said that this is meant
            (``nats_unsafe_sync``); or they acknowledge in a way that we do not read.

    """
    for each in found:
        if each.flags.get("js_ack_fc_v2"):
            fix = 'set "feature_flags": {"js_ack_fc_v2": false} in its configuration'
            raise Refused(each.name, "js_ack_fc_v2 is on", fix, code="nats_feature")
    lazy = [each for each in found if each.answers and not each.config.sync_always]
    if lazy and not unsafe_sync and replicas == 1:
        what = (
            f"sync_interval {lazy[0].config.sync_interval // 10**9}s loses the LOG in a power cut"
        )
        fix = "set jetstream.sync_interval to 'always' there, or [nats] unsafe_sync here"
        raise Refused(lazy[0].name, what, fix, code="nats_unsafe_sync")
    return not lazy


def _away(place: str) -> Facts:
    said = "its monitoring port does not answer"
    return Facts(name=place, config=Config(), flags={}, sickness=said, answers=False)


def _looked(place: str) -> Facts | Unreachable:
    try:
        return _look(place)
    except Unreachable as error:
        return error


def _look(place: str) -> Facts:
    try:
        told = msgspec.json.decode(_page(f"{place}/varz"), type=_Varz)
        config, flags = told.jetstream.config, told.feature_flags
        return Facts(name=told.server_name, config=config, flags=flags, sickness=_sickness(place))
    except (OSError, ValueError, msgspec.DecodeError) as error:
        fix = "see [nats] monitor"
        raise Unreachable(place, f"the monitoring port does not answer ({error})", fix) from None


def _sickness(place: str) -> str:
    try:
        _page(f"{place}/healthz")
    except urllib.error.HTTPError as error:
        with error:
            try:
                health = msgspec.json.decode(error.read(4000), type=_Health)
            except msgspec.DecodeError:
                return f"health {error.code}"
        return health.error or health.status
    return ""


def _page(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_WITHIN_S) as answer:
        data: bytes = answer.read(1 << 20)
    return data


async def _ask(system: Bus, kind: str, shape: type[T]) -> tuple[_Server, T]:
    answer = await system.request(subjects.server_ping(kind), b"{}", _WITHIN_S)
    told = msgspec.json.decode(answer.data, type=_Told)
    return told.server, msgspec.json.decode(told.data, type=shape)
