"""What all tests share: one real nats-server a test process, and no blocking call in a loop."""

import os
import signal
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings

from tests.support.nats_server import NatsServer
from tshrag_common.bus.connection import connect

# CI says the same of the same commit; whoever works on it looks for new examples each time.
# A busy machine is no reason to fail: examples have no time limit, and may be slow to make.
settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("work", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "work")

# A shell that starts us in the background has all that we start ignore these; tests send them.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) == signal.SIG_IGN:
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, usual)

_MAY_NOT_BLOCK = ("tshrag_common", "tshrag_agent", "tshrag_controller")
_BLOCKS = ("time.sleep", "socket.", "ssl.", "sqlite3.Connection.commit", "os.wait")
"""What holds up a loop for as long as another likes. Short writes to a local disk may."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take the group off the name of a test: `--last-failed` would not find it without xdist."""
    name, _, group = report.nodeid.rpartition("@")
    if name and "]" not in group and "PYTEST_XDIST_WORKER" not in os.environ:
        report.nodeid = name


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a pytest whose tests xdist cannot group: each worker would make each lab anew."""
    if not getattr(config.option, "loadgroup", False):
        return
    alone = [item for item in items if item.get_closest_marker("xdist_group")]
    if any("@" not in item.nodeid for item in alone):
        raise pytest.UsageError("xdist does not group tests of this pytest; see pyproject.toml")


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """Fail a test in which our own code blocks the event loop."""
    guard = BlockBuster(list(_MAY_NOT_BLOCK))
    watched = [call for name, call in guard.functions.items() if name.startswith(_BLOCKS)]
    for call in watched:
        call.can_block_in("tests/support/nats_server.py", {"start", "restart", "kill9", "_end"})
        call.activate()
    yield
    for call in watched:
        call.deactivate()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Give the plain server that all tests of this process share; take `nats_url` instead."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def nats_url(nats_server: NatsServer) -> AsyncIterator[str]:
    """Give the URL of a plain server that holds no stream."""
    bus = await connect(nats_server.url, name="wiper", within_s=10)
    answer = await bus.request("$JS.API.STREAM.NAMES", b"", 5)
    names = msgspec.json.decode(answer.data).get("streams") or []
    for name in names:
        await bus.request(f"$JS.API.STREAM.DELETE.{name}", b"", 5)
    await bus.close()
    yield nats_server.url
