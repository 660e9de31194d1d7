import asyncio
import json
import time
import urllib.request
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.prometheus import PrometheusServer
from tests.support.s3 import a_free_port
from tests.support.served_lab import ServedLab, served, until
from tshrag_common import store_requests as sr
from tshrag_common.errors import Refused
from tshrag_common.reports import SamplesMessage
from tshrag_common.wire import SAMPLES

WITHOUT_VALUES = {"tshrag_agents", "tshrag_duts", "tshrag_jobs_ended_total"}
ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
async def test_a_lab_is_scraped_and_queried_while_it_runs(tmp_path: Path, nats_url: str) -> None:
    lab_port = a_free_port()
    server = PrometheusServer(tmp_path / "prometheus")
    async with served(tmp_path, nats_url) as lab:
        prometheus = msgspec.structs.replace(
            lab.settings.prometheus,
            listen=f"127.0.0.1:{lab_port}",
            remote_write=f"{server.url}/api/v1/write",
        )
        lab.settings = msgspec.structs.replace(lab.settings, prometheus=prometheus)
        await lab.restart()
        await asyncio.to_thread(server.start)
        try:
            await lab.submit(park=True)
            await _a_host_tells(lab, 42.5)
            await until(lambda: _is_scraped(lab_port), 30)
            families = await asyncio.to_thread(_scraped, lab_port)
            assert families["tshrag_up"] == {(): 1}
            assert families["tshrag_jobs_open"] == {(): 1}
            place = (("key", "host.a9.load"), ("agent", "a9"), ("dut", ""))
            assert families["tshrag_sample"][place] == 42.5
            assert _dashboard_names() <= families.keys() | WITHOUT_VALUES
            answer = await lab.client.query(sr.Query(sql="SELECT key, value FROM samples"))
            assert [list(row) for row in answer.rows] == [["host.a9.load", 42.5]]
            with pytest.raises(Refused, match="no table"):
                await lab.client.query(sr.Query(sql="SELECT * FROM secrets"))
            status = await lab.client.store_status()
            assert {each.place: each.samples for each in status.places}["tail"] == 1
            done = await lab.client.store_do(sr.StoreDo(what="verify"))
            assert done.problems == ()
            (deed,) = (await lab.client.store_status()).deeds
            assert (deed.what, deed.by, deed.told) == ("verify", "default/anybody", "nothing to do")
            await until(lambda: _is_pushed(server), 30)
        finally:
            server.stop()


async def _a_host_tells(lab: ServedLab, value: float) -> None:
    from tests.support.stored import samples
    from tshrag_common import subjects
    from tshrag_common.ids import AgentId
    from tshrag_common.metrics import MetricInfo, SampleBatch, pack

    series = pack(MetricInfo(key="host.a9.load"), [time.time_ns() // 1000], [value])
    message: SamplesMessage = samples(SampleBatch(series=(series,)), agent="a9")
    subject = subjects.said(AgentId("a9"), "met")
    await lab.bus.publish(subject, SAMPLES.encode(message))


def _scraped(port: int) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.items())] = sample.value
    return found


async def _is_scraped(port: int) -> bool:
    try:
        return "tshrag_sample" in await asyncio.to_thread(_scraped, port)
    except OSError:
        return False


async def _is_pushed(server: PrometheusServer) -> bool:
    found = await asyncio.to_thread(server.query, "tshrag_host_a9_load[1h]")
    return [[value for _, value in values] for values in found.values()] == [[42.5]]


def _dashboard_names() -> set[str]:
    """Return the names that the panels of the dashboard ask for."""
    import re

    board = json.loads((ROOT / "configs/grafana/tshrag-lab.json").read_text())
    asked = " ".join(each["expr"] for panel in board["panels"] for each in panel["targets"])
    return set(re.findall(r"tshrag_\w+", asked))
