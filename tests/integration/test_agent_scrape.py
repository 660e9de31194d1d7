"""An agent asks the endpoints that its jobs declare, on the host and beside a DUT."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, start_http_server

from tests.support.agent_process import an_agent
from tests.support.leader import Leader
from tests.support.nats_server import NatsServer
from tests.support.ssh_server import free_port
from tshrag_agent.settings import DutTable
from tshrag_agent.transport.ways import Guard, LocalWay
from tshrag_common.jobs import JobSpec, Need, Target
from tshrag_common.scrapes import Scrape

KEY = "scrape.hits_total.code_200"


@pytest.fixture
def port() -> Iterator[int]:
    registry = CollectorRegistry()
    Counter("hits", "of the page", ["code"], registry=registry).labels("200").inc(3)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def until_there(path: Path, *scrape: Scrape, need: Need | None = None) -> JobSpec:
    text = f"while [ ! -e {path} ]; do sleep 0.1; done"
    argv = ("/bin/sh", "-c", text)
    return JobSpec(kind="command", argv=argv, scrape=scrape, need=need or Need())


@pytest.mark.parametrize("dut", ["", "board"])
async def test_an_endpoint_is_asked_while_the_job_runs(
    tmp_path: Path, port: int, leader: Leader, server: NatsServer, dut: str
) -> None:
    way = LocalWay(guard=Guard(run_dir=str(tmp_path / "r")))
    board = DutTable(id="board", kind="pc", local=way)
    need = Need(target=Target(runtime="local", kind="pc")) if dut else None
    good = Scrape(port=port, keys=("hits_total",), labels=("code",), every_s=0.2)
    gone = Scrape(port=free_port(), keys=("a",), every_s=0.2, prefix="gone")
    over = tmp_path / "over"
    async with an_agent(tmp_path, leader, server.url, duts=(board,)):
        spec = until_there(over, good, gone, need=need)
        start = await (leader.start(spec, dut=dut) if dut else leader.start(spec))
        await leader.until(lambda: len(leader.values(KEY)) >= 2, 30.0)
        over.touch()
        (ended,) = await leader.until_ended(start)
    assert ended.outcome == "passed"
    assert set(leader.values(KEY)) == {3.0}
    (notice,) = [one for one in ended.notices if one.key == "gone"]
    assert notice.reason.startswith("metric_stale: never answered: port_closed: ")
