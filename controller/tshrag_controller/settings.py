"""``controller.toml``: where the controller keeps things, which bus it leads on, what it allows.

Every scalar can be overridden by a variable named like its path: ``TSHRAG_NATS_URL`` is ``url``
of ``[nats]``. Without a URL the controller runs a nats-server of its own.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from tshrag_common.ids import TOKEN
from tshrag_common.settings import LogSettings, load_settings, nats_url_fault
from tshrag_common.sources.policy import SourceLimits, SourcePolicy
from tshrag_common.streams import StreamSizes
from tshrag_controller.core import policy

DEFAULT_STATE = "~/.local/share/tshrag/lab"
Token = Annotated[str, msgspec.Meta(pattern=TOKEN)]


def _url_fault(url: str) -> str:
    return nats_url_fault(url) if url else ""


class ControllerTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[controller]``. ``state`` is the folder of keys, projection, samples, output."""

    node: Token = "ctl-0"
    state: str = DEFAULT_STATE
    checkpoint_frames: Annotated[int, msgspec.Meta(ge=10)] = 20_000
    drills: bool = False  # may an operator have this controller restart


class NatsTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[nats]``: an external bus by ``url``; empty: one of our own, on ``port`` (-1: any)."""

    url: Annotated[str, msgspec.Meta(extra={"code": "config", "check": _url_fault})] = ""
    creds: str = ""  # file of a controller's credentials; empty: a server without accounts
    monitor: str = ""  # http://host:8222 of that server, or several: its settings are checked
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=-1, le=65535)] = -1
    sync_interval: str = "always"
    unsafe_sync: bool = False
    max_file_store: Annotated[int, msgspec.Meta(ge=64 << 20)] = 100 << 30
    replicas: Literal[1, 3, 5] = 1


class LoadsTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[loads]``: what sources may be; ``rewrite`` maps prefixes, as git's insteadOf does."""

    schemes: tuple[str, ...] = ("https", "ssh")
    hosts: tuple[str, ...] = ()
    rewrite: dict[str, str] = msgspec.field(default_factory=dict[str, str])


class StoreTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[store]``: where samples rest, and for how long.

    ``cold`` is the URL of the cold store (``file:///folder``, ``s3://bucket/prefix``; empty: the
    folder ``cold`` of the state), ``cold_options`` are those of obstore; never a secret, these
    stand in the environment.
    """

    hot_days: Annotated[int, msgspec.Meta(ge=0, le=3650)] = 7
    cold: str = ""
    cold_options: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    cold_days: Annotated[int, msgspec.Meta(ge=0, le=36500)] = 0
    cache_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 10 << 30
    run_series: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 20_000


class SchedulerTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[scheduler]``: weights of the order in which jobs go; recorded when a controller leads."""

    ageing_s: policy.Span = policy.AGEING_S
    share_points: policy.Points = policy.SHARE_POINTS
    half_life_s: policy.Span = policy.HALF_LIFE_S
    weights: dict[str, Annotated[float, msgspec.Meta(gt=0, le=1e6)]] = {}
    quotas: dict[str, policy.Quota] = {}
    consumables: dict[Token, policy.Consumable] = {}
    setup_points: policy.Points = policy.SETUP_POINTS
    setup_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = policy.SETUP_S
    preempt_gap: policy.Gap = policy.PREEMPT_GAP
    preempt_after_s: policy.After = policy.PREEMPT_AFTER_S
    preempt_most: policy.Most = policy.PREEMPT_MOST
    linger_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = policy.LINGER_S
    teardown_s: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = policy.TEARDOWN_S
    teardown_failed: Literal["next", "quarantine"] = "next"


class HealthTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[health]``: which profile checks which hosts and DUTs, and when.

    ``profiles`` maps the value of a label ``health``, a kind of DUTs or ``*`` for all of them, or
    ``host`` for all hosts, to the file of a profile on this machine; without one nothing is
    checked.
    """

    every_s: Annotated[float, msgspec.Meta(ge=0, le=366 * 86_400)] = 0.0
    after_errors: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 3
    after_crashes: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    recheck_s: Annotated[float, msgspec.Meta(ge=1, le=366 * 86_400)] = 600.0
    profiles: dict[str, str] = msgspec.field(default_factory=dict[str, str])


class ConsolesTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[consoles]``: for how long the record of a console is kept, and how much of each."""

    keep_days: Annotated[float, msgspec.Meta(gt=0, le=36500)] = 30.0
    keep_bytes: Annotated[int, msgspec.Meta(ge=16 << 20)] = 1 << 30


def _http_fault(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return "" if not url or (scheme in ("http", "https") and rest) else "it is no http(s) URL"


def _listen_fault(address: str) -> str:
    host, _, port = address.rpartition(":")
    fine = bool(host) and port.isdecimal() and int(port[:6]) <= 65535
    return "" if not address or fine else "it is no HOST:PORT"


class PrometheusTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[prometheus]``: the lab's own numbers on ``listen``, its samples to ``remote_write``.

    A token for the latter stands in the environment: TSHRAG_REMOTE_WRITE_TOKEN.
    """

    listen: Annotated[str, msgspec.Meta(extra={"code": "config", "check": _listen_fault})] = ""
    remote_write: Annotated[str, msgspec.Meta(extra={"code": "config", "check": _http_fault})] = ""
    max_age_s: Annotated[int, msgspec.Meta(ge=60, le=86_400)] = 3600


def _regex_fault(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        return f"no regular expression: {error}"
    return ""


Regex = Annotated[str, msgspec.Meta(min_length=1, extra={"code": "config", "check": _regex_fault})]
Argv = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class OutletTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[outlet.DUT]``: how the controller's host switches a board whose agent is away.

    Commands without a shell. ``status`` prints how it is: `status_off` and `status_on` are searched
    in it, in this order.
    """

    on: Argv
    off: Argv
    status: Argv
    status_on: Regex = "(?i)\\bon\\b"
    status_off: Regex = "(?i)\\boff\\b"
    off_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 5.0
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 20.0
    confirm_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 10.0


class LimitsTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[limits]``: what one org may ask, so that none is kept waiting by another.

    Connections and subscriptions are limits of the bus; they hold where it has accounts.
    """

    submits_per_s: Annotated[float, msgspec.Meta(ge=0, le=100_000)] = 20.0
    submit_burst: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 200


class ControllerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    controller: ControllerTable = ControllerTable()
    nats: NatsTable = NatsTable()
    loads: LoadsTable = LoadsTable()
    log: LogSettings = LogSettings()
    store: StoreTable = StoreTable()
    consoles: ConsolesTable = ConsolesTable()
    health: HealthTable = HealthTable()
    prometheus: PrometheusTable = PrometheusTable()

    @property
    def cold_url(self) -> str:
        """Return the URL of the cold store; controllers share no folder of it."""
        own = f"file://{self.state / 'cold'}"
        return f"{self.store.cold.rstrip('/')}/{self.controller.node}" if self.store.cold else own

    scheduler: SchedulerTable = SchedulerTable()
    limits: LimitsTable = LimitsTable()
    outlet: dict[Token, OutletTable] = msgspec.field(default_factory=dict[str, OutletTable])

    @property
    def scheduling(self) -> policy.Policy:
        """Return what the lab wants of its scheduler, as it is recorded."""
        table = self.scheduler
        return policy.Policy(
            ageing_s=table.ageing_s,
            share_points=table.share_points,
            half_life_s=table.half_life_s,
            weights=table.weights,
            quotas=table.quotas,
            consumables=table.consumables,
            setup_points=table.setup_points,
            setup_s=table.setup_s,
            preempt_gap=table.preempt_gap,
            preempt_after_s=table.preempt_after_s,
            preempt_most=table.preempt_most,
            linger_s=table.linger_s,
            teardown_s=table.teardown_s,
            teardown_failed=table.teardown_failed,
        )

    @property
    def state(self) -> Path:
        return Path(self.controller.state).expanduser().absolute()

    @property
    def policy(self) -> SourcePolicy:
        return SourcePolicy(schemes=self.loads.schemes, hosts=self.loads.hosts)

    @property
    def source_limits(self) -> SourceLimits:
        return SourceLimits()

    @property
    def sizes(self) -> StreamSizes:
        """Return the bounds of the streams: together at most what the store may take."""
        return StreamSizes().within(round(self.nats.max_file_store * 0.9))


def read(path: Path | None, environment: Mapping[str, str] = os.environ) -> ControllerSettings:
    """Read the file, then the variables; raise Invalid with every problem."""
    return load_settings(ControllerSettings, path, environment)
