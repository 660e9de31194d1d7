"""``agent.toml``: who the agent is, where it keeps things, which DUTs it reaches and how.

Environment: ``TSHRAG_AGENT_CONFIG`` names the file, ``TSHRAG_STORE`` and ``TSHRAG_CACHE``
override its folders, ``TSHRAG_NATS_URL`` the address of the bus, ``TSHRAG_AGENT_BUNDLE`` the file
with the credentials.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import msgspec

from tshrag_agent.boards.qemu_way import QemuWay
from tshrag_agent.transport.boot_way import BootWay
from tshrag_agent.transport.power_ways import WAYS, PowerWay
from tshrag_agent.transport.serial_way import SerialWay
from tshrag_agent.transport.ways import FlashWay, LocalWay, SshWay
from tshrag_common import strict
from tshrag_common.documents import read_document
from tshrag_common.errors import NotFound, Refused
from tshrag_common.fields import Amount
from tshrag_common.findings import Findings
from tshrag_common.ids import TOKEN, AgentId, DutId
from tshrag_common.inventory import Dut, Runtime
from tshrag_common.keys import Bundle, read_bundle

Token = Annotated[str, msgspec.Meta(pattern=TOKEN)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]

DEFAULT_STORE = "~/.local/share/tshrag/agent"
DEFAULT_CACHE = "~/.cache/tshrag"
QEMU_URL = "qemu:"
"""Stands for the console of a virtual board until it is known where that is."""


class AgentTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[agent]``. Without slots: the cores of the host, or none where it has only DUTs."""

    name: Token = ""
    slots: Annotated[int, msgspec.Meta(ge=0, le=100_000)] | None = None
    store: str = DEFAULT_STORE
    cache: str = DEFAULT_CACHE
    cache_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 10 << 30
    labels: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    tools: tuple[str, ...] = ()  # programs to look for beside the usual ones
    http: str = ""  # host:port of the controller's HTTP side, for TSHRAG_HOST
    beat_s: Seconds = 5.0
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 30.0
    keep_s: Annotated[float, msgspec.Meta(ge=0)] = 7 * 86_400.0  # job directories
    sample_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 1.0  # 0: no samplers
    clock_s: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 10.0  # reads of a DUT's clock
    ahead_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 5.0  # of a sample that is taken
    inrush_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.2  # between two boards switched on
    exec: bool = True  # may operators, who can submit jobs for it, use `tshrag exec` on this host
    drills: bool = False  # may an operator kill this agent, or cut it off, on purpose


class NatsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[nats]``: the file that ``tshrag agent enroll`` printed; ``url`` overrides its address."""

    bundle: str = ""
    url: str = ""


class DutTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[dut]]``: a board, and at least one way to it."""

    id: Token
    kind: Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
    labels: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    os: str = "linux"
    arch: str = ""
    shared: bool = False
    ssh: SshWay | None = None
    serial: SerialWay | None = None
    local: LocalWay | None = None
    power: PowerWay | None = None
    boot: BootWay = BootWay()
    qemu: QemuWay | None = None
    flash: FlashWay | None = None

    @property
    def can(self) -> tuple[str, ...]:
        """Return what steps may ask of the board."""
        power = self.qemu is not None or (self.power is not None and self.power.can_cut)
        loader = self.serial is not None and self.boot.bootloader is not None
        has = {
            "power": power,
            "console": self.serial is not None,
            "bootloader": loader,
            "flash": self.flash is not None,
        }
        return tuple(name for name, there in has.items() if there)

    @property
    def transports(self) -> tuple[Runtime, ...]:
        ways: dict[Runtime, object] = {"ssh": self.ssh, "serial": self.serial, "local": self.local}
        return tuple(runtime for runtime, way in ways.items() if way is not None)

    @property
    def described(self) -> Dut:
        return Dut(
            id=DutId(self.id),
            kind=self.kind,
            transports=self.transports,
            labels=self.labels,
            os=self.os,
            arch=self.arch,
            shared=self.shared,
            can=self.can,
        )


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    agent: AgentTable = AgentTable()
    nats: NatsTable = NatsTable()
    dut: tuple[DutTable, ...] = ()
    resources: dict[Token, Amount] = msgspec.field(default_factory=dict[str, float])

    @property
    def slots(self) -> int:
        if self.agent.slots is not None:
            return self.agent.slots
        return 0 if self.dut else os.cpu_count() or 1

    @property
    def store(self) -> Path:
        return Path(self.agent.store).expanduser().absolute()

    @property
    def cache(self) -> Path:
        return Path(self.agent.cache).expanduser().absolute()

    @property
    def state(self) -> Path:
        """Return where the agent keeps its own records: no job is told of it."""
        return self.store / "agent"

    @property
    def boards(self) -> Path:
        """Return where virtual boards have their sockets and disks."""
        return self.state / "boards"

    def bundle(self) -> Bundle:
        """Read the credentials.

        Raises:
            Refused: there are none, or they belong to another name.

        """
        if not self.nats.bundle:
            fix = "set [nats] bundle to the file that `tshrag agent enroll` printed"
            raise Refused("nats.bundle", "no credentials", fix, code="creds")
        bundle = read_bundle(Path(self.nats.bundle).expanduser())
        if bundle.kind != "agent" or not bundle.controller_key or not bundle.mac_key:
            raise Refused(self.nats.bundle, "these are no credentials of an agent", code="creds")
        if self.agent.name and self.agent.name != bundle.name:
            what = f"they belong to {bundle.name}, the agent is called {self.agent.name}"
            raise Refused(self.nats.bundle, what, code="creds")
        if self.nats.url:
            return msgspec.structs.replace(bundle, url=self.nats.url)
        return bundle


def agent_name(bundle: Bundle) -> AgentId:
    return AgentId(bundle.name)


def read_settings(path: Path, environ: Mapping[str, str] = os.environ) -> AgentSettings:
    """Read ``agent.toml``.

    Raises:
        NotFound: there is no such file.
        Invalid: with every problem of it.

    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise NotFound("config", str(path)) from None
    except OSError as error:
        raise Refused(str(path), str(error.strerror).lower(), code="config") from None
    document = read_document(raw, str(path), kind="config")
    findings = Findings(document)
    data = document.data
    _examine(data, findings)
    settings = strict.convert(data, AgentSettings, findings)
    return _overridden(settings, environ, path.parent)


def _examine(data: object, findings: Findings) -> None:
    """Note what the types cannot say: one DUT an id, at least one way to each."""
    tables = data.get("dut", []) if isinstance(data, dict) else []
    seen: set[object] = set()
    for number, table in enumerate(tables if isinstance(tables, list) else []):
        if not isinstance(table, dict):
            continue
        name = table.get("id")
        if isinstance(name, str) and name in seen:
            findings.add("duplicate", ("dut", number, "id"), f"DUT {name} stands here twice")
        seen.add(name if isinstance(name, str) else None)
        if "qemu" in table and isinstance(table.setdefault("serial", {}), dict):
            table["serial"].setdefault("url", QEMU_URL)
        if not {"ssh", "serial", "local"} & table.keys():
            fix = "add [dut.ssh], [dut.serial] or [dut.local]"
            findings.add("no_transport", ("dut", number), "there is no way to this DUT", fix)
        if table.get("shared") is True and {"serial", "local"} & table.keys():
            what = "a DUT that several agents reach has no console and is no host of its own"
            fix = "leave out shared, or the serial way: a console has one owner"
            findings.add("not_shareable", ("dut", number, "shared"), what, fix)
        power = table.get("power")
        named = [name for name in WAYS if isinstance(power, dict) and name in power]
        if len(named) > 1:
            what = f"one outlet is switched in one way, not by {' and '.join(named)}"
            findings.add("power_twice", ("dut", number, "power"), what, "leave one of them")


def _overridden(settings: AgentSettings, environ: Mapping[str, str], folder: Path) -> AgentSettings:
    bundle = environ.get("TSHRAG_AGENT_BUNDLE", settings.nats.bundle)
    if bundle and not Path(bundle).expanduser().is_absolute():
        bundle = str(folder / bundle)  # beside the file that names it
    agent = msgspec.structs.replace(
        settings.agent,
        store=environ.get("TSHRAG_STORE", settings.agent.store),
        cache=environ.get("TSHRAG_CACHE", settings.agent.cache),
    )
    url = environ.get("TSHRAG_NATS_URL", settings.nats.url)
    made = msgspec.structs.replace(settings, agent=agent, nats=NatsTable(bundle=bundle, url=url))
    return msgspec.structs.replace(made, dut=tuple(_placed(table, made) for table in made.dut))


def _placed(table: DutTable, settings: AgentSettings) -> DutTable:
    """Return a DUT with the console of a virtual board where its QEMU will have it."""
    if table.serial is None or table.serial.url != QEMU_URL:
        return table
    url = f"unix://{quote(str(settings.boards / table.id / 'serial'))}"
    return msgspec.structs.replace(table, serial=msgspec.structs.replace(table.serial, url=url))
