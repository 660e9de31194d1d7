"""PURE: the configuration of the embedded nats-server, as the JSON that it reads.

Sizes are integers and durations strings: the server takes "10GB" in quotes for an error.
"""

import msgspec

from tshrag_common.errors import Refused
from tshrag_common.streams import GIB

ANY_PORT = -1
MAX_PAYLOAD_BYTES = 1 << 20
MAX_CONSUMERS = 20_000


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two servers. `state` is the folder that all its files live in."""

    state: str
    name: str = "tshrag-0"
    host: str = "127.0.0.1"
    port: int = ANY_PORT
    monitor_port: int = ANY_PORT
    max_file_store: int = 100 * GIB
    sync_interval: str = "always"
    unsafe_sync: bool = False  # said on purpose: a power cut may take the whole stream
    tls_cert: str = ""
    tls_key: str = ""


def check(config: ServerConfig) -> None:
    """Refuse (``nats_unsafe_sync``) a server that may lose what it has acknowledged."""
    if config.sync_interval != "always" and not config.unsafe_sync:
        what = f"sync_interval {config.sync_interval} loses the LOG in a power cut"
        fix = "leave it at 'always', or set unsafe_sync"
        raise Refused("nats.sync_interval", what, fix, code="nats_unsafe_sync")


def server_config(config: ServerConfig, accounts: dict[str, object] | None) -> dict[str, object]:
    """Return the configuration; `accounts` is the part with operator and JWTs, None for none."""
    state = config.state
    jetstream: dict[str, object] = {
        "store_dir": f"{state}/js",
        "sync_interval": config.sync_interval,
        "max_file_store": config.max_file_store,
        "max_memory_store": 256 << 20,
        "limits": {"default_max_consumers": MAX_CONSUMERS},
    }
    body: dict[str, object] = {
        "server_name": config.name,
        "host": config.host,
        "port": config.port,
        "http": f"127.0.0.1:{config.monitor_port}",
        "pid_file": f"{state}/run/nats.pid",
        "ports_file_dir": f"{state}/run",
        "log_file": f"{state}/log/nats.log",
        "log_size_limit": 64 << 20,
        "ping_interval": "10s",
        "ping_max": 2,
        "write_deadline": "10s",
        "max_payload": MAX_PAYLOAD_BYTES,
        "max_connections": 20_000,
        "lame_duck_duration": "30s",
        "lame_duck_grace_period": "2s",
        "jetstream": jetstream,
        "feature_flags": {"js_ack_fc_v2": False},  # with v2 acks the puller reads no delivery
    }
    if config.tls_cert:
        body["tls"] = {"cert_file": config.tls_cert, "key_file": config.tls_key}
    if accounts is not None:
        body |= {**accounts, "resolver": {"type": "full", "dir": f"{state}/jwt"}}
    return body
