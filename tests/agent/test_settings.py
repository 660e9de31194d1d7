import re
from pathlib import Path

import pytest

from tshrag_agent.settings import read_settings
from tshrag_agent.transport.power_ways import WAYS, acts_of
from tshrag_common.errors import Invalid, NotFound, Refused
from tshrag_common.ids import AgentId
from tshrag_common.keys import write_secret
from tshrag_common.labkeys import new_lab

EXAMPLE = Path(__file__).parents[2] / "configs" / "agent.toml"


def written(folder: Path, text: str) -> Path:
    path = folder / "agent.toml"
    path.write_text(text)
    return path


def test_the_example_is_valid() -> None:
    settings = read_settings(EXAMPLE, {})
    assert {way for dut in settings.dut for way in dut.transports} == {"ssh", "serial", "local"}
    assert settings.agent.name == "bench-3"


@pytest.mark.parametrize("way", sorted(WAYS))
def test_each_way_to_switch_the_power_is_valid_in_the_example(tmp_path: Path, way: str) -> None:
    found = re.search(rf"^# \[dut\.power\.{way}\](?s:.*?)\n\n", EXAMPLE.read_text(), re.MULTILINE)
    assert found is not None
    table = re.sub("^# ", "", found[0], flags=re.MULTILINE)
    text = f'[[dut]]\nid = "b"\nkind = "pi"\n[dut.local]\n{table}'
    (dut,) = read_settings(written(tmp_path, text), {}).dut
    assert dut.power is not None
    assert acts_of(dut.power).on is not None


def test_two_ways_to_switch_one_outlet_are_refused(tmp_path: Path) -> None:
    ways = '[dut.power.tasmota]\nurl = "http://a"\n[dut.power.shelly]\nurl = "http://b"\n'
    path = written(tmp_path, f'[[dut]]\nid = "b"\nkind = "pi"\n[dut.local]\n{ways}')
    with pytest.raises(Invalid, match=r"power_twice: .*not by shelly and tasmota; leave one"):
        read_settings(path, {})


def test_all_problems_are_named_at_once_with_their_lines(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[agent]\nname = "Bad Name"\nslotz = 3\n[[dut]]\nid = "b"\nkind = "pi"\n'
        '[[dut]]\nid = "b"\nkind = "pi"\n[dut.local]\n',
    )
    with pytest.raises(Invalid) as caught:
        read_settings(path, {})
    said = str(caught.value)
    assert [problem.line for problem in caught.value.problems if problem.line]
    for part in ("agent.name", "slotz", "slots", "no way to this DUT", "stands here twice"):
        assert part in said


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, '[agent]\nname = "a1"\nstore = "/one"\n')
    environ = {"TSHRAG_STORE": "/two", "TSHRAG_CACHE": "/three", "TSHRAG_NATS_URL": "nats://n:1"}
    settings = read_settings(path, environ)
    assert (str(settings.store), str(settings.cache)) == ("/two", "/three")
    assert settings.nats.url == "nats://n:1"


def test_a_bundle_stands_beside_the_file_and_must_be_of_this_agent(tmp_path: Path) -> None:
    bundle = new_lab().plain_agent(AgentId("a1"), "nats://127.0.0.1:1")
    write_secret(tmp_path / "b.json", bundle.encoded())
    path = written(tmp_path, '[nats]\nbundle = "b.json"\n')
    assert read_settings(path, {}).bundle() == bundle
    path = written(tmp_path, '[agent]\nname = "a2"\n[nats]\nbundle = "b.json"\n')
    with pytest.raises(Refused, match="belong to a1, the agent is called a2"):
        read_settings(path, {}).bundle()


def test_without_a_file_or_a_bundle_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_settings(tmp_path / "none.toml", {})
    with pytest.raises(Refused, match="tshrag agent enroll"):
        read_settings(written(tmp_path, "[agent]\n"), {}).bundle()
