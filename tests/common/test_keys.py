import base64
import time
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from tshrag_common.errors import LabError, NotFound, Refused
from tshrag_common.ids import AgentId, OrgId
from tshrag_common.keys import (
    Bundle,
    Key,
    KeyKind,
    claims_of,
    new_key,
    parse_creds,
    read_bundle,
    read_secret,
    verify,
    write_secret,
)
from tshrag_common.labkeys import LabKeys, load_lab, new_lab

ACME, A1 = OrgId("acme"), AgentId("a1")


@pytest.fixture
def lab() -> LabKeys:
    return new_lab(ACME)


@pytest.mark.parametrize(("kind", "letter"), [("operator", "O"), ("account", "A"), ("user", "U")])
def test_a_key_says_by_its_letter_whose_it_is(kind: KeyKind, letter: str) -> None:
    key = new_key(kind)
    assert key.public.startswith(letter)
    assert key.seed.startswith("S" + letter)
    assert Key(key.seed).public == key.public


@given(st.binary(max_size=200))
def test_only_the_owner_of_a_key_signs_for_it(data: bytes) -> None:
    key, other = new_key("user"), new_key("user")
    assert verify(key.public, data, key.sign(data))
    assert not verify(other.public, data, key.sign(data))
    assert not verify(key.public, data + b"x", key.sign(data))
    assert not verify(key.public, data, b"short")


@given(st.integers(0, 57), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_a_mistyped_seed_is_refused(place: int, letter: str) -> None:
    seed = new_key("user").seed
    wrong = seed[:place] + letter + seed[place + 1 :]
    if wrong != seed:
        with pytest.raises(Refused):
            Key(wrong)


@given(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_the_last_letter_counts_too(letter: str) -> None:
    seed = new_key("user").seed
    if letter != seed[-1]:
        with pytest.raises(Refused):
            Key(seed[:-1] + letter)


@given(st.text(max_size=100))
def test_text_that_is_no_seed_is_refused_without_a_traceback(text: str) -> None:
    with pytest.raises(Refused):
        Key(text)


def test_a_jwt_is_signed_by_its_issuer(lab: LabKeys) -> None:
    creds = lab.controller_creds("ctl-0")
    signed, _, signature = creds.jwt.rpartition(".")
    claims = claims_of(creds.jwt)
    assert claims["name"] == "ctl-0"
    assert claims["sub"] == Key(creds.seed).public
    raw = base64.urlsafe_b64decode(signature + "==")
    assert verify(str(claims["iss"]), signed.encode(), raw)


def test_credentials_come_back_from_their_text(lab: LabKeys) -> None:
    creds = lab.controller_creds("ctl-0")
    assert parse_creds(creds.text) == creds
    assert parse_creds(creds.text.replace("\n", "\r\n")) == creds


def test_the_keys_of_a_lab_come_back_from_their_file(tmp_path: Path, lab: LabKeys) -> None:
    path = tmp_path / "deep" / "keys.json"
    lab, _ = lab.with_agent(A1, "nats://h:1")
    lab = lab.without_agent(A1)
    lab.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_lab(path) == lab


def test_a_file_that_others_may_read_is_refused(tmp_path: Path, lab: LabKeys) -> None:
    path = tmp_path / "keys.json"
    lab.save(path)
    path.chmod(0o644)
    with pytest.raises(Refused) as caught:
        load_lab(path)
    assert caught.value.line == f"creds: mode 0644, need 0600; chmod 600 {path}"


def test_a_missing_or_damaged_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_secret(tmp_path / "none")
    path = tmp_path / "x"
    for text in (b"", b"{}", b'{"kind":"agent"}', b"\xff\xfe", b"[1"):
        write_secret(path, text)
        for read in (read_bundle, load_lab):
            with pytest.raises(LabError) as caught:
                read(path)
            assert caught.value.code == "creds"
            assert "\n" not in caught.value.line


def test_a_secret_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_secret(path, b"1")
    path.chmod(0o644)
    write_secret(path, b"2")
    assert (read_secret(path), path.stat().st_mode & 0o777) == (b"2", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_the_bundle_of_an_agent_is_all_it_needs(tmp_path: Path, lab: LabKeys) -> None:
    lab, bundle = lab.with_agent(A1, "nats://h:1")
    write_secret(tmp_path / "a1.json", bundle.encoded())
    again = read_bundle(tmp_path / "a1.json")
    assert again == bundle
    assert again.mac == lab.mac_key(A1)
    assert again.controller_key == lab.controller_key
    assert parse_creds(again.creds).name == "a1"
    assert lab.agents[A1] == claims_of(parse_creds(again.creds).jwt)["sub"]


def test_on_a_plain_server_an_agent_has_its_seals_and_no_credentials(lab: LabKeys) -> None:
    bundle = lab.plain_agent(A1, "nats://h:1")
    assert bundle.creds == ""
    assert bundle.mac == lab.mac_key(A1)


def test_mac_keys_differ_by_agent_and_by_lab(lab: LabKeys) -> None:
    keys = {lab.mac_key(A1), lab.mac_key(AgentId("a2")), new_lab().mac_key(A1)}
    assert len(keys) == 3


def test_a_person_needs_an_org_that_is_there(lab: LabKeys) -> None:
    with pytest.raises(NotFound) as caught:
        lab.with_person("jo", OrgId("acmee"), "nats://h:1")
    assert caught.value.line == "unknown_org: 'acmee' is not known; nearest: acme"
    _, bundle = lab.with_person("jo", ACME, "nats://h:1")
    assert (bundle.kind, bundle.org, bundle.name) == ("person", "acme", "jo")


def test_a_revocation_covers_what_was_issued_until_now(lab: LabKeys) -> None:
    lab, bundle = lab.with_agent(A1, "nats://h:1")
    key = lab.agents[A1]
    revoked = lab.without_agent(A1).revoked[Key(lab.agents_account).public]
    issued = claims_of(parse_creds(bundle.creds).jwt)["iat"]
    assert isinstance(issued, int)
    assert issued < revoked[key] <= time.time() + 1
    with pytest.raises(NotFound):
        lab.without_agent(AgentId("a9"))


def test_an_org_gets_its_account_once(lab: LabKeys) -> None:
    assert lab.with_org(ACME) is lab
    more = lab.with_org(OrgId("bolt"))
    assert more.account_of(ACME) == lab.account_of(ACME) != more.account_of(OrgId("bolt"))


def test_hostile_names_are_no_names(lab: LabKeys) -> None:
    for name in ("a.b", "*", ">", "", "a b", "x" * 64, "../x"):
        with pytest.raises(Refused):
            lab.with_agent(AgentId(name), "nats://h:1")
        with pytest.raises(Refused):
            lab.with_org(OrgId(name))


def test_a_bundle_of_another_version_is_refused(tmp_path: Path) -> None:
    bundle = Bundle(kind="agent", name="a1", url="nats://h:1", version=2)
    write_secret(tmp_path / "b", bundle.encoded())
    with pytest.raises(Refused, match="version 2, supported 1"):
        read_bundle(tmp_path / "b")
