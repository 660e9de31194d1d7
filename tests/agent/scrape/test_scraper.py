"""Scraping of real endpoints: that of prometheus-client, and ones that misbehave."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from tests.support.ssh_server import SshServer, free_port
from tests.support.waiting import wait_until
from tshrag_agent.attempts.metric_gate import MetricGate
from tshrag_agent.scrape.dial import dut_dial, host_dial
from tshrag_agent.scrape.scraper import Dial, Scrapes
from tshrag_agent.transport.open import open_transport
from tshrag_common.clock import SystemClock
from tshrag_common.ids import DutId
from tshrag_common.jobs import JobSpec
from tshrag_common.metrics import MetricInfo
from tshrag_common.scrapes import Scrape

DUT = DutId("rpi4")


class Bench:
    """The scrapes of one attempt, and what they took."""

    def __init__(self, scrape: Scrape, dial: Dial = host_dial) -> None:
        self.values: dict[str, list[float]] = {}
        self.types: dict[str, str] = {}
        self.gate = MetricGate(self._take, namespace="app")
        spec = JobSpec(kind="load", namespace="app", scrape=(scrape,))
        self.scrapes = Scrapes(spec, dial, self.gate, SystemClock())

    def has(self, key: str, count: int = 1) -> Callable[[], bool]:
        return lambda: len(self.values.get(key, ())) >= count

    def reasons(self) -> dict[str, str]:
        return {one.key: one.reason for one in (*self.gate.notices(), *self.scrapes.notices())}

    def _take(self, info: MetricInfo, _at: int, value: float, _duration: int) -> None:
        self.values.setdefault(info.key, []).append(value)
        self.types[info.key] = info.type


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def port(registry: CollectorRegistry) -> Iterator[int]:
    server, thread = start_http_server(0, "127.0.0.1", registry)
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@asynccontextmanager
async def answering(
    answer: Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    served: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
            writer.close()
            await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
    await asyncio.gather(*(task for task in served if task is not None))


def with_bytes(data: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return answer


async def test_a_real_endpoint_becomes_samples_of_the_job(
    registry: CollectorRegistry, port: int
) -> None:
    hits = Counter("hits", "of the page", ["code"], registry=registry)
    hits.labels("200").inc(2)
    Gauge("secret", "not asked for", registry=registry).set(1)
    bench = Bench(Scrape(port=port, keys=("hits_total",), labels=("code",), every_s=0.2))
    key = "app.scrape.hits_total.code_200"
    async with bench.scrapes.running():
        await wait_until(bench.has(key))
        hits.labels("200").inc(5)
        await wait_until(lambda: bench.values[key][-1] == 7.0)
    assert bench.values[key][0] == 2.0
    assert bench.types == {key: "counter"}
    assert not any("metric_stale" in reason for reason in bench.reasons().values())


async def test_series_beyond_the_cap_are_counted(registry: CollectorRegistry, port: int) -> None:
    temp = Gauge("temp", "each", ["core"], registry=registry)
    for core in range(5):
        temp.labels(str(core)).set(core)
    scrape = Scrape(port=port, keys=("temp",), labels=("core",), every_s=0.2, most_series=2)
    bench = Bench(scrape)
    async with bench.scrapes.running():
        await wait_until(bench.has("app.scrape.overflow"))
    assert set(bench.values) == {
        "app.scrape.temp.core_0", "app.scrape.temp.core_1", "app.scrape.overflow",
    }  # fmt: skip
    assert bench.values["app.scrape.overflow"][0] == 3.0
    assert bench.reasons()["app.scrape.temp.core_4"] == "metric_series: beyond 2 series"


async def test_an_endpoint_that_never_answers_is_stale() -> None:
    bench = Bench(Scrape(port=free_port(), keys=("a",), every_s=0.2))
    async with bench.scrapes.running():
        (scraper,) = bench.scrapes.scrapers
        await wait_until(lambda: scraper.asked >= 3)
    assert bench.reasons()["app.scrape"].startswith("metric_stale: never answered: port_closed:")


async def test_a_prefix_is_told_as_criteria_know_it() -> None:
    bench = Bench(Scrape(port=free_port(), keys=("a",), every_s=0.2, prefix="App::Web"))
    async with bench.scrapes.running():
        (scraper,) = bench.scrapes.scrapers
        await wait_until(lambda: scraper.asked >= 2)
    assert "app.web" in bench.reasons()


async def test_an_endpoint_that_goes_away_is_stale_and_one_that_comes_late_is_not() -> None:
    port = free_port()
    bench = Bench(Scrape(port=port, keys=("a",), every_s=0.2))
    (scraper,) = bench.scrapes.scrapers
    async with bench.scrapes.running():
        await wait_until(lambda: scraper.asked >= 2)
        registry = CollectorRegistry()
        Gauge("a", "late", registry=registry).set(1)
        server, thread = start_http_server(port, "127.0.0.1", registry)
        await wait_until(bench.has("app.scrape.a"))
        assert "app.scrape" not in bench.reasons()
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()
        await wait_until(lambda: "metric_stale: no answer since" in str(bench.reasons()))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "answers nothing"),
        (b"SSH-2.0-OpenSSH\r\n", "answers no HTTP"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n", "status 302"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na 1\n", "the answer was cut"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\na 1\n\r\n", "encoded"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>\n", "bad_exposition: line 1"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"#\n" * (3 << 20), "answers more than 4194304 bytes"),
    ],
)
async def test_what_is_no_whole_answer_is_no_sample(answer: bytes, why: str) -> None:
    async with answering(with_bytes(answer)) as port:
        bench = Bench(Scrape(port=port, keys=("a",), every_s=0.2))
        (scraper,) = bench.scrapes.scrapers
        async with bench.scrapes.running():
            await wait_until(lambda: why in scraper.last)
    assert bench.values == {}
    assert bench.reasons()["app.scrape"].startswith("metric_stale: never answered")


async def test_an_endpoint_that_holds_the_line_costs_ticks_that_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tshrag_agent.scrape.scraper.TIMEOUT_S", 0.7)

    over = asyncio.Event()

    async def wait(_writer: asyncio.StreamWriter) -> None:
        await over.wait()

    async with answering(wait) as port:
        bench = Bench(Scrape(port=port, keys=("a",), every_s=0.2))
        (scraper,) = bench.scrapes.scrapers
        async with bench.scrapes.running():
            await wait_until(lambda: scraper.asked >= 2)
        over.set()
    assert scraper.skipped >= 2
    assert "no whole answer within 0.7 s" in bench.reasons()["app.scrape"]
    assert "skipped" in bench.reasons()["app.scrape.ticks"]


async def test_a_dut_is_asked_over_the_link_of_its_transport(
    tmp_path: Path, registry: CollectorRegistry, port: int
) -> None:
    Gauge("up", "is it", registry=registry).set(1)
    server = SshServer("openssh", tmp_path / "server")
    server.start()
    transport = open_transport(DUT, server.way())
    try:
        scrape = Scrape(port=port, keys=("up",), every_s=0.2)
        bench = Bench(scrape, dut_dial(DUT, transport))
        async with bench.scrapes.running():
            await wait_until(bench.has("app.scrape.up", 3))
        closed = Bench(Scrape(port=free_port(), keys=("up",)), dut_dial(DUT, transport))
        (scraper,) = closed.scrapes.scrapers
        async with closed.scrapes.running():
            await wait_until(lambda: bool(scraper.last))
        assert scraper.last.startswith("port_closed: rpi4 (")
    finally:
        await transport.close()
        server.stop()
