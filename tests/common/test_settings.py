from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from tshrag_common.errors import Invalid, Refused
from tshrag_common.settings import (
    LogSettings,
    NatsSettings,
    load_settings,
    read_settings,
    variables,
)


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    nats: NatsSettings = NatsSettings()
    log: LogSettings = LogSettings()
    slots: Annotated[int, Meta(ge=1, le=64)] = 1
    drains: bool = False


def refusal(text: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(Invalid) as refused:
        read_settings(AgentSettings, text.encode(), "agent.toml", environment)
    return [str(problem) for problem in refused.value.problems]


def test_a_file_is_read_into_its_struct() -> None:
    text = b'name = "lab1"\nslots = 4\n[nats]\nurl = "tls://a:4222,nats://[::1]:4223"\n'
    found = read_settings(AgentSettings, text, "agent.toml")
    assert (found.name, found.slots, found.log.level) == ("lab1", 4, "info")


def test_the_environment_goes_before_the_file() -> None:
    environment = {
        "TSHRAG_NATS_URL": "nats://other:4222", "TSHRAG_SLOTS": "8", "TSHRAG_DRAINS": "true",
        "TSHRAG_HOST": "not ours",
    }  # fmt: skip
    found = read_settings(AgentSettings, b'name = "lab1"\nslots = 4\n', "agent.toml", environment)
    assert (found.nats.url, found.slots, found.drains) == ("nats://other:4222", 8, True)


def test_every_scalar_field_has_its_variable() -> None:
    assert variables(AgentSettings) == {
        "TSHRAG_NAME": ("name",),
        "TSHRAG_NATS_URL": ("nats", "url"),
        "TSHRAG_NATS_CREDS": ("nats", "creds"),
        "TSHRAG_LOG_LEVEL": ("log", "level"),
        "TSHRAG_LOG_FORMAT": ("log", "format"),
        "TSHRAG_SLOTS": ("slots",),
        "TSHRAG_DRAINS": ("drains",),
    }


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("host:4222", "'host:4222' has no scheme; write nats://HOST:4222"),
        ("nats://host:99999", "port 99999 is not in 1..65535"),
        ("nats://host:0", "port 0 is not in 1..65535"),
        ("http://host", "scheme 'http' is none of nats, tls, ws, wss"),
        ("nats://", "'nats://' is no address; write nats://HOST:4222"),
        ("nats://a b", "'nats://a b' is no address; write nats://HOST:4222"),
    ],
)
def test_row_30_an_address_of_nats_that_cannot_be_is_refused(url: str, what: str) -> None:
    said = refusal(f'name = "a"\n[nats]\nurl = "{url}"\n')
    assert said == [f"config: agent.toml:3: nats.url: {what}"]


def test_a_problem_of_a_variable_names_the_variable() -> None:
    found = refusal('name = "a"\nslots = 0\n', {"TSHRAG_NATS_URL": "x:1", "TSHRAG_SLOTS": "many"})
    assert found == [
        "type: TSHRAG_SLOTS: expected a whole number, got 'many'",
        "config: TSHRAG_NATS_URL: 'x:1' has no scheme; write nats://HOST:4222",
    ]


def test_all_problems_of_a_file_are_named() -> None:
    assert refusal('slot = 1\n[log]\nlevel = "inf"\n[nats]\nurl = 3\n') == [
        "unknown_field: agent.toml:1: slot; did you mean 'slots'?",
        "choice: agent.toml:3: log.level: expected one of 'debug', 'error', 'info', 'warning', "
        "got 'inf'; did you mean 'info'?",
        "type: agent.toml:5: nats.url: expected text, got 3; write '3' in quotes",
        "missing: agent.toml:1: Missing required field(s): name",
    ]
    assert refusal('name = "a"\nnats = 3\n', {"TSHRAG_NATS_URL": "nats://a:1"}) == [
        "type: agent.toml:2: nats: expected a mapping, got 3"
    ]


def test_without_a_file_there_are_defaults_and_the_environment(tmp_path: Path) -> None:
    found = load_settings(AgentSettings, None, {"TSHRAG_NAME": "lab1"})
    assert found == AgentSettings(name="lab1")
    with pytest.raises(Refused, match="no such file"):
        load_settings(AgentSettings, tmp_path / "agent.toml")
    path = tmp_path / "agent.toml"
    path.write_text('name = "lab2"\n')
    assert load_settings(AgentSettings, path).name == "lab2"
