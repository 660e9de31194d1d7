"""Which lab is meant: flags, variables, files, and the lab of this machine."""

from pathlib import Path

import pytest

from tshrag_common.errors import LabError, Refused
from tshrag_common.ids import AgentId, OrgId
from tshrag_common.keys import Bundle, write_secret
from tshrag_common.labkeys import new_lab
from tshrag_controller.cli.context import Connection, find, state_folder

NONE: dict[str, str | None] = {"url": None, "creds": None, "org": None}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Give an environment in which nothing names a lab."""
    monkeypatch.chdir(tmp_path)
    return {"TSHRAG_STATE": str(tmp_path / "state"), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def a_person(url: str = "nats://lab:4222") -> Bundle:
    return new_lab(OrgId("radio")).with_person("jo", OrgId("radio"), url)[1]


def written(path: Path, bundle: Bundle) -> str:
    write_secret(path, bundle.encoded())
    return str(path)


def test_nothing_at_all_says_how_to_begin(here: dict[str, str]) -> None:
    with pytest.raises(
        Refused, match="no lab is known on this machine; start one with 'tshrag up'"
    ):
        find(NONE, here)


def test_the_lab_of_this_machine_just_works(here: dict[str, str]) -> None:
    bundle = a_person()
    written(state_folder(here) / "me.json", bundle)
    found = find(NONE, here)
    assert (found.url.value, found.credentials, found.org_id) == (bundle.url, bundle.creds, "radio")


def test_a_plain_lab_of_this_machine_needs_no_credentials(here: dict[str, str]) -> None:
    plain = Bundle(kind="person", name="jo", url="nats://127.0.0.1:4222")
    written(state_folder(here) / "me.json", plain)
    found = find(NONE, here)
    assert (found.url.value, found.credentials, found.org_id) == (plain.url, "", "default")


def test_another_url_takes_nothing_from_the_lab_of_this_machine(here: dict[str, str]) -> None:
    written(state_folder(here) / "me.json", a_person())
    found = find({**NONE, "url": "nats://other:4222"}, here)
    assert (found.url.value, found.url.origin, found.credentials) == (
        "nats://other:4222", "--url", "",
    )  # fmt: skip


def test_flags_go_before_variables_and_those_before_files(here: dict[str, str]) -> None:
    folder = Path(here["XDG_CONFIG_HOME"]) / "tshrag"
    folder.mkdir(parents=True)
    (folder / "tshrag.toml").write_text('url = "nats://user:1"\norg = "user"\n')
    assert find(NONE, here).url.value == "nats://user:1"
    Path(".tshrag.toml").write_text('url = "nats://folder:1"\n')
    found = find(NONE, here)
    assert (found.url.value, found.url.origin) == ("nats://folder:1", ".tshrag.toml")
    assert found.org.value == "user"
    env = {**here, "TSHRAG_NATS_URL": "nats://env:1"}
    assert find(NONE, env).url.origin == "TSHRAG_NATS_URL"
    assert find({**NONE, "url": "nats://flag:1"}, env).url.value == "nats://flag:1"


def test_a_bundle_brings_its_own_url_and_org(here: dict[str, str], tmp_path: Path) -> None:
    bundle = a_person()
    path = written(tmp_path / "jo.json", bundle)
    found = find(NONE, {**here, "TSHRAG_CREDS": path})
    assert (found.url.value, found.org_id, found.creds.value) == (bundle.url, "radio", path)
    assert find({**NONE, "creds": path, "url": "nats://x:1"}, here).url.value == "nats://x:1"


def test_a_creds_file_of_nats_is_read_too(here: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "jo.creds"
    write_secret(path, a_person().creds.encode())
    found = find({**NONE, "creds": str(path)}, here)
    assert found.url.value == "nats://127.0.0.1:4222"
    assert "BEGIN USER NKEY SEED" in found.credentials


def refused(env: dict[str, str], creds: Path) -> str:
    with pytest.raises(LabError) as caught:
        find({**NONE, "creds": str(creds)}, env)
    return caught.value.line


def test_credentials_that_others_can_read_are_refused(here: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "jo.json"
    path.write_bytes(a_person().encoded())
    path.chmod(0o644)
    assert refused(here, path).startswith("creds: mode 0644, need 0600; chmod 600")


def test_an_agents_file_is_not_taken_for_a_persons(here: dict[str, str], tmp_path: Path) -> None:
    agent = new_lab(OrgId("default")).with_agent(AgentId("a1"), "nats://x:1")[1]
    path = Path(written(tmp_path / "a1.json", agent))
    assert "credentials of agent a1" in refused(here, path)


def test_a_file_that_is_something_else_is_refused(here: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_secret(path, b"hello")
    assert refused(here, path).startswith("creds: no JWT and seed")
    write_secret(path, b'{"kind":')
    assert refused(here, path).startswith("creds: ")


def test_a_settings_file_that_is_wrong_is_named_with_its_line(here: dict[str, str]) -> None:
    Path(".tshrag.toml").write_text('urll = "nats://x:1"\n')
    with pytest.raises(Refused, match=r"\.tshrag\.toml:1.*urll.*did you mean 'url'"):
        find(NONE, here)


def test_an_org_that_is_no_name_is_refused(here: dict[str, str]) -> None:
    made: Connection = find({"url": "nats://x:1", "creds": None, "org": "a.b"}, here)
    with pytest.raises(Refused, match=r"'a\.b' is no name"):
        assert made.org_id
