"""Results of real tools (recorded by them), and what a hostile one cannot do."""

import math
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from tshrag_agent.attempts.metric_gate import MetricGate
from tshrag_agent.results.forms import PREFIXES, BadResult, parse, word
from tshrag_agent.results.read import read_results
from tshrag_common.clock import SystemClock
from tshrag_common.jobs import JobSpec
from tshrag_common.metrics import metric_key
from tshrag_common.results import ResultFile, ResultForm

DATA = Path(__file__).parent.parent / "data" / "results"


def numbers(form: ResultForm, name: str) -> dict[str, tuple[float, str]]:
    return {each.key: (each.value, each.unit) for each in parse(form, (DATA / name).read_bytes())}


def test_what_pytest_writes() -> None:
    found = numbers("pytest-junit", "pytest.xml")
    counts = {key: found[key][0] for key in ("passed", "failed", "errors", "skipped", "total")}
    assert counts == {"passed": 1, "failed": 1, "errors": 0, "skipped": 1, "total": 3}
    assert found["time"][1] == "s"


def test_what_fio_writes() -> None:
    found = numbers("fio-json", "fio.json")
    assert found["seq.write.io_bytes"] == (2 << 20, "B")
    assert found["seq.write.iops"][0] > 0
    assert found["seq.write.clat_p99"][1] == "ns"
    assert found["seq.write.clat_p99_9"][0] >= found["seq.write.clat_p50"][0]
    assert not any(key.startswith("seq.read") for key in found), "it has read nothing"


def test_what_iperf3_writes() -> None:
    found = numbers("iperf3-json", "iperf3.json")
    assert found["sum_received.bits_per_second"][0] > 1e6
    assert found["sum_received.bits_per_second"][1] == "bps"
    with pytest.raises(BadResult, match="iperf3 says: unable to connect"):
        parse("iperf3-json", b'{"error": "unable to connect to server"}')


def test_what_sysbench_and_hyperfine_write() -> None:
    found = numbers("sysbench", "sysbench.txt")
    assert found["events_per_second"][0] > 0
    assert found["latency_avg"][1] == "ms" and "latency_p95" in found
    found = numbers("hyperfine-json", "hyperfine.json")
    assert 0 < found["command_1.min"][0] <= found["command_1.mean"][0]


def test_what_k6_and_test_definitions_write() -> None:
    found = numbers("k6-json", "k6.json")
    assert found["http_req_duration.p95"] == (31.5, "ms")
    assert found["http_req_duration.p99_9"] == (79, "ms")
    assert found["http_reqs.count"] == (1200, "") and found["checks.fails"] == (10, "")
    found = numbers("linaro-test-definitions", "lava.txt")
    assert found == {
        "boot_time.passed": (1, ""), "boot_time.measured": (12.7, "s"), "ssh_login.passed": (1, ""),
        "audio_loopback.passed": (0, ""), "memcpy.passed": (1, ""),
        "memcpy.measured": (5123.4, "MiB/s"),
    }  # fmt: skip


@pytest.mark.parametrize("form", PREFIXES)
@pytest.mark.parametrize("name", sorted(path.name for path in DATA.iterdir()))
@given(cut=st.integers(0, 7000), junk=st.binary(max_size=8))
def test_whatever_is_cut_or_broken_gives_numbers_or_one_error(
    form: ResultForm, name: str, cut: int, junk: bytes
) -> None:
    data = (DATA / name).read_bytes()
    at = cut % (len(data) + 1)
    try:
        found = parse(form, data[:at] + junk + data[at + len(junk) :])
    except BadResult:
        return
    assert found
    for each in found:
        assert metric_key(f"{PREFIXES[form]}.{each.key}")
        assert math.isfinite(each.value)


@pytest.mark.parametrize(
    ("form", "data", "why"),
    [
        ("pytest-junit", b'<!DOCTYPE a [<!ENTITY b "c">]><testsuite/>', "document type"),
        ("pytest-junit", b"<html/>", "begins with <html>"),
        ("k6-json", b"[" * 100_000, "no JSON"),
        ("k6-json", b'{"metrics": {"a": {"avg": NaN, "max": 1e999}}}', "no numbers"),
        ("fio-json", b"{}", "no numbers"),
        ("sysbench", b"hello", "no output of sysbench"),
    ],
)
def test_what_is_no_result_is_one_line(form: ResultForm, data: bytes, why: str) -> None:
    with pytest.raises(BadResult, match=why):
        parse(form, data)


@given(st.text(max_size=300))
def test_any_name_becomes_a_segment(text: str) -> None:
    assert metric_key(f"a.{word(text)}")


async def read(folder: Path, *results: ResultFile, namespace: str = "") -> MetricGate:
    taken: list[str] = []
    gate = MetricGate(lambda info, *_: taken.append(info.key), namespace=namespace)
    spec = JobSpec(kind="load", results=results, namespace=namespace)
    await read_results(spec, folder, folder / "stdout.log", gate, SystemClock())
    return gate


async def test_results_of_a_job_become_samples_and_what_is_missing_is_told(tmp_path: Path) -> None:
    (tmp_path / "stdout.log").write_bytes((DATA / "sysbench.txt").read_bytes())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "k6.json").write_bytes((DATA / "k6.json").read_bytes())
    gate = await read(
        tmp_path,
        ResultFile(parse="sysbench"),
        ResultFile(parse="k6-json", file="out/k6.json", prefix="web"),
        ResultFile(parse="fio-json", file="gone.json"),
    )
    keys = {info.key for info in gate.infos()}
    assert {"sysbench.events_per_second", "web.http_req_duration.p95"} <= keys
    (notice,) = gate.notices()
    assert notice.key == "fio"
    assert notice.reason.startswith("bad_result: gone.json: no such file or directory")


async def test_a_link_leads_nowhere(tmp_path: Path) -> None:
    job, secret = tmp_path / "job", tmp_path / "secret"
    job.mkdir()
    secret.mkdir()
    (secret / "k6.json").write_bytes((DATA / "k6.json").read_bytes())
    (job / "file.json").symlink_to(secret / "k6.json")
    (job / "folder").symlink_to(secret)
    gate = await read(
        job,
        ResultFile(parse="k6-json", file="file.json"),
        ResultFile(parse="k6-json", file="folder/k6.json", prefix="other"),
        namespace="",
    )
    assert not gate.infos()
    reasons = {notice.key: notice.reason for notice in gate.notices()}
    assert "lies outside the job directory" in reasons["other"]
    assert "k6" in reasons


async def test_below_a_namespace_the_tool_comes_second(tmp_path: Path) -> None:
    (tmp_path / "stdout.log").write_bytes((DATA / "sysbench.txt").read_bytes())
    gate = await read(tmp_path, ResultFile(parse="sysbench"), namespace="cpu")
    assert "cpu.sysbench.events_per_second" in {info.key for info in gate.infos()}
