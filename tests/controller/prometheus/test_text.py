import asyncio
import math
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.support.s3 import a_free_port
from tests.support.waiting import wait_until
from tshrag_common.errors import Unavailable
from tshrag_common.metrics import MetricInfo, SampleBatch, pack
from tshrag_controller.prometheus import lab
from tshrag_controller.prometheus.http import CannotListen, Listener
from tshrag_controller.prometheus.text import Family, by, exposition, metric_name, one

HOSTILE = st.text(max_size=30)


@given(st.dictionaries(HOSTILE, st.floats(allow_nan=False), max_size=8), HOSTILE)
def test_a_strict_parser_reads_back_what_was_written(values: dict[str, float], said: str) -> None:
    text = exposition([by("name", "tshrag_x", said, values), one("tshrag_y", said, 1.5)])
    families = {each.name: each for each in text_string_to_metric_families(text)}
    read = {s.labels["name"]: s.value for s in families["tshrag_x"].samples} if values else {}
    assert read == values
    assert families["tshrag_y"].samples[0].value == 1.5


def test_numbers_that_are_none_are_spelled_as_prometheus_does() -> None:
    text = exposition([by("n", "x", "", {"a": math.inf, "b": -math.inf, "c": math.nan})])
    (family,) = text_string_to_metric_families(text)
    assert [sample.value for sample in family.samples][:2] == [math.inf, -math.inf]
    assert math.isnan(family.samples[2].value)


def test_a_family_without_values_is_left_out() -> None:
    assert exposition([Family("x", "gauge", "", ())]) == "\n"


@pytest.mark.parametrize(
    ("key", "name"), [("a.b_c", "tshrag_a_b_c"), ("host.x.0", "tshrag_host_x_0")]
)
def test_keys_become_names(key: str, name: str) -> None:
    assert metric_name(key) == name


def test_a_million_series_cost_no_more_than_ten_thousand() -> None:
    latest = lab.Latest()
    for number in range(0, 20_000, 1000):
        series = tuple(
            pack(MetricInfo(key=f"host.x{at}"), [10**15], [1.0])
            for at in range(number, number + 1000)
        )
        latest.hear("a1", (SampleBatch(series=series),))
    assert len(latest.family().values) == lab.MOST_LATEST
    assert latest.overflow == 10_000


def test_samples_of_jobs_are_no_labels() -> None:
    latest = lab.Latest()
    series = pack(MetricInfo(key="x"), [10**15, 10**15 - 1], [1.0, 2.0])
    latest.hear("a1", (SampleBatch(run="r", job="j", attempt=1, series=(series,)),))
    assert not latest.family().values
    latest.hear("a1", (SampleBatch(dut="board", series=(series,)),))
    assert latest.family().values == (((("key", "x"), ("agent", "a1"), ("dut", "board")), 1.0),)


async def served(text: Callable[[], Awaitable[str]], request: bytes) -> bytes:
    listener = Listener("127.0.0.1:0", text)
    task = asyncio.get_running_loop().create_task(listener.serve())
    await wait_until(lambda: listener.port, within_s=30)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(request)
    if request:
        await writer.drain()
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    task.cancel()
    await asyncio.wait([task])
    return answer


async def page() -> str:
    return "tshrag_up 1\n"


async def broken() -> str:
    raise Unavailable("store", "away")


@pytest.mark.parametrize(
    ("request_", "begins", "ends"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200", b"tshrag_up 1\n"),
        (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", b"HTTP/1.1 200", b"tshrag_up 1\n"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 200", b"\r\n\r\n"),
        (b"GET /-/healthy HTTP/1.1\r\n\r\n", b"HTTP/1.1 200", b"ok\n"),
        (b"GET /keys.json HTTP/1.1\r\n\r\n", b"HTTP/1.1 404", b"\n"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 405", b"\n"),
        (b"nonsense\r\n\r\n", b"HTTP/1.1 405", b"\n"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", b"", b""),
        (b"GET /metrics", b"", b""),
        (b"", b"", b""),
    ],
)
async def test_the_listener_serves_two_pages_and_nothing_else(
    request_: bytes, begins: bytes, ends: bytes
) -> None:
    answer = await served(page, request_)
    assert answer.startswith(begins)
    assert answer.endswith(ends)


async def test_a_scrape_of_a_store_that_is_away_says_so() -> None:
    answer = await served(broken, b"GET /metrics HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"away" in answer


async def test_a_port_that_is_taken_is_an_error_of_the_lab() -> None:
    server = await asyncio.start_server(lambda _, __: None, "127.0.0.1", port := a_free_port())
    with pytest.raises(CannotListen):
        await Listener(f"127.0.0.1:{port}", page).serve()
    server.close()
    await server.wait_closed()
