from pathlib import Path

import pytest

from tshrag_common.errors import Invalid, Refused
from tshrag_common.manifest import implied_manifest, read_manifest

EXAMPLE = Path(__file__).parents[2] / "configs" / "loads" / "load.toml"
SMALL = 'name = "x"\nversion = "1"\n[[platforms]]\nentry = "run"\n'


def refusal(text: str) -> list[str]:
    with pytest.raises(Invalid) as refused:
        read_manifest(text.encode())
    return [str(problem) for problem in refused.value.problems]


def test_the_example_is_read_in_its_canonical_form() -> None:
    manifest = read_manifest(EXAMPLE.read_bytes())
    assert manifest.runs == "dut"
    assert manifest.namespace == "network"
    assert [info.key for info in manifest.metrics] == ["network.latency", "network.rate"]
    assert manifest.params["duration"].default == 60


def test_an_entry_for_this_architecture_goes_before_one_for_any() -> None:
    manifest = read_manifest(EXAMPLE.read_bytes())
    native, other = manifest.entry("linux", "x86_64"), manifest.entry("linux", "aarch64")
    assert native is not None and other is not None
    assert (native.entry, other.entry) == ("bin/iperf", "iperf.sh")
    assert manifest.entry("darwin", "x86_64") is None
    assert ("linux", "aarch64") in manifest.pairs


def test_the_command_line_is_interpreter_entry_and_arguments() -> None:
    text = 'interpreter = ["python3", "-u"]\nargs = ["--json"]\n' + SMALL
    manifest = read_manifest(text.encode())
    assert manifest.argv(manifest.platforms[0]) == ("python3", "-u", "run", "--json")


def test_names_of_architectures_are_those_of_uname() -> None:
    manifest = read_manifest((SMALL + 'arch = "arm64"\n').encode())
    assert manifest.pairs == (("linux", "aarch64"),)


@pytest.mark.parametrize("entry", ["/bin/sh", "../x", "a/../../x", "a\\\\b"])
def test_row_24_an_entry_outside_the_load_is_refused(entry: str) -> None:
    said = refusal(SMALL.replace('"run"', f'"{entry}"'))
    assert said == ["path: load.toml:4: platforms[0].entry: outside the load"]


def test_every_problem_has_its_line() -> None:
    text = (
        SMALL
        + """[params.a]
type = "integer"
default = "many"
max = 3
[params.b]
tipe = "text"
[params.c]
type = "number"
min = 2
max = 1
[[metrics]]
key = "host::cpu"
[[metrics]]
key = "a b"
unit = "parsec"
"""
    )
    assert [problem.split(": ", 3)[:3] for problem in refusal(text)] == [
        ["unknown_field", "load.toml:10", "params.b.tipe; did you mean 'type'?"],
        ["metric_key", "load.toml:16", "metrics[0].key"],
        ["metric_key", "load.toml:18", "metrics[1].key"],
        ["unit", "load.toml:19", "metrics[1].unit"],
        ["type", "load.toml:7", "params.a.default"],
        ["range", "load.toml:11", "params.c"],
    ]


def test_metrics_live_below_the_namespace_of_the_load() -> None:
    text = 'namespace = "net"\n' + SMALL + '[[metrics]]\nkey = "disk::io"\n'
    assert refusal(text) == [
        "metric_key: load.toml:7: metrics[0].key: 'disk.io' is not below 'net'"
    ]
    assert refusal('namespace = "host"\n' + SMALL)[0].endswith("'host' belongs to the agent")


def test_a_metric_is_declared_once() -> None:
    text = SMALL + '[[metrics]]\nkey = "a::b"\n[[metrics]]\nkey = "a.b"\n'
    assert refusal(text) == ["duplicate_key: load.toml:7: metrics[1]: 'a.b' is declared twice"]


def test_a_tree_without_a_manifest_needs_an_executable_that_says_what_to_start() -> None:
    assert implied_manifest("iperf", ["README", "iperf"]).platforms[0].entry == "iperf"
    assert implied_manifest("iperf", ["run.sh", "load_bin"]).platforms[0].entry == "load_bin"
    with pytest.raises(Refused) as refused:
        implied_manifest("iperf", ["README"])
    assert refused.value.line == (
        "manifest_missing: a tree without load.toml is no load; "
        "add load.toml, or an executable named load_bin, run, run.sh or 'iperf'"
    )


def scrape(line: str) -> str:
    return SMALL + "[[scrape]]\n" + line


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("port = 9100\nkeys = []", "scrape[0].keys"),
        ('keys = ["a"]', "port"),
        ('port = 0\nkeys = ["a"]', "scrape[0].port"),
        ('port = 1\nkeys = ["a b"]', "is no name of a sample"),
        ('port = 1\nkeys = ["a"]\nlabels = ["x-y"]', "is no name of a label"),
        ('port = 1\nkeys = ["a"]\npath = "http://169.254.169.254/"', "must begin with '/'"),
        ('port = 1\nkeys = ["a"]\npath = "/ HTTP/1.0\\r\\nHost: x"', "must begin with '/'"),
        ('port = 1\nkeys = ["a"]\nhost = "169.254.169.254"', "host"),
        ('port = 1\nkeys = ["a"]\nprefix = "host.cpu"', "is of the agent"),
        ('port = 1\nkeys = ["a"]\nevery_s = 0.01', "scrape[0].every_s"),
    ],
)
def test_a_scrape_names_a_port_and_what_is_taken(line: str, why: str) -> None:
    (said,) = refusal(scrape(line))
    assert why in said
    assert read_manifest(scrape('port = 9100\nkeys = ["a"]').encode()).scrape[0].path == "/metrics"
