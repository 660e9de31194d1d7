"""People share boards by the command line: real processes, accounts, one person against another."""

import asyncio
import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command_line import TSHRAG, environment_of, run_cli
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.xdist_group("people")]

BOARD = '[[dut]]\nid = "{id}"\nkind = "pi"\nlabels = {{ rack = "1" }}\n[dut.local]\n'
BOARDS = tuple(f"{name}-{secrets.token_hex(3)}" for name in ("alpha", "beta"))
ALPHA, BETA = BOARDS
PEOPLE = {"jo": "radio", "al": "radio", "bo": "video", "op": "radio"}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the state folder of a lab with two boards, and the files of four people."""
    state = tmp_path_factory.mktemp("people")
    lab = LabProcesses(state, {"TSHRAG_STATE": str(state)})
    try:
        lab.start_controller()
        asyncio.run(lab.wait_ready())
        lab.start_agent("rack", "".join(BOARD.format(id=name) for name in BOARDS), slots=2)
        asyncio.run(lab.wait_agents(1))
        for name, org in PEOPLE.items():
            words = ("--role", "operator") if name == "op" else ()
            out = str(state / f"{name}.json")
            done = run_cli("user", "add", name, "--org", org, *words, "--out", out, state=state)
            assert done.returncode == 0, done.stderr
        yield state
    finally:
        lab.stop()


Tshrag = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def tshrag(state: Path) -> Iterator[Tshrag]:
    """Give a command line: who, then the words. Leases that are left are ended."""

    def run(who: str, *words: str) -> "subprocess.CompletedProcess[str]":
        creds = str(state / f"{who}.json")
        return run_cli(*words, state=state, environment={"TSHRAG_CREDS": creds})

    yield run
    held = json.loads(run("op", "lease", "list", "--json").stdout).get("leases", [])
    for each in held:
        done = run(each["owner"].partition("/")[2], "lease", "release", each["lease"])
        assert done.returncode == 0, done.stderr


def said(done: "subprocess.CompletedProcess[str]") -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def until(so: Callable[[], bool], within_s: float = 40.0) -> None:
    ends = time.monotonic() + within_s
    while not so():
        assert time.monotonic() < ends, "it did not become so"
        time.sleep(0.2)


def test_a_board_is_taken_shared_handed_over_and_given_back(tshrag: Tshrag) -> None:
    taken = said(tshrag("jo", "lease", ALPHA, "--for", "1h", "--reason", "bring-up", "--json"))
    assert (taken["dut"], taken["owner"]) == (ALPHA, "radio/jo")
    refused = tshrag("bo", "lease", "take", ALPHA)
    assert refused.returncode == 2
    assert f"DUT {ALPHA} is leased by radio/jo (bring-up)" in refused.stderr
    assert "radio/jo until" in tshrag("bo", "dut", "list").stdout
    shared = said(tshrag("jo", "lease", "share", ALPHA, "video/bo", "--json"))
    assert shared["shared"] == ["video/bo"]
    assert tshrag("al", "lease", "renew", ALPHA).returncode == 2
    handed = said(tshrag("jo", "lease", "transfer", ALPHA, "al", "--json"))
    assert (handed["owner"], handed.get("shared", [])) == ("radio/al", [])
    assert int(str(handed["fence"])) > int(str(taken["fence"]))
    assert tshrag("jo", "lease", "release", ALPHA).returncode == 2
    assert tshrag("al", "lease", "release", ALPHA).returncode == 0
    ended = said(tshrag("al", "lease", "list", "--ended", "--dut", ALPHA, "--json"))["ended"]
    assert isinstance(ended, list)
    assert [(each["owner"], each["cause"]) for each in ended[:2]] == [
        ("radio/al", "released"), ("radio/jo", "handed"),
    ]  # fmt: skip


def test_a_takeover_needs_a_reason_and_a_right_and_is_on_record(tshrag: Tshrag) -> None:
    assert tshrag("bo", "lease", BETA, "--for", "1h").returncode == 0
    assert "needs one" in tshrag("op", "lease", BETA, "--takeover").stderr
    why = ("--takeover", "--reason", "the fire drill")
    refused = tshrag("jo", "lease", BETA, *why)
    assert refused.returncode == 2
    assert "policy_denied" in refused.stderr
    assert said(tshrag("op", "lease", BETA, *why, "--json"))["owner"] == "radio/op"
    assert said(tshrag("al", "lease", BETA, *why, "--json"))["owner"] == "radio/al", "of his org"
    table = tshrag("jo", "lease", "list", "--ended", "--dut", BETA).stdout
    assert "handed by radio/op" in table
    assert "the fire drill" in table
    entries = json.loads(tshrag("op", "audit", BETA, "--json").stdout)["entries"]
    taken = [(each["by"], each["reason"]) for each in entries if each["what"] == "taken_over"]
    assert taken[:2] == [("radio/al", "the fire drill"), ("radio/op", "the fire drill")]


def test_who_waits_has_it_when_it_is_given_back(state: Path, tshrag: Tshrag) -> None:
    said(tshrag("jo", "lease", ALPHA, "--json"))
    said(tshrag("jo", "lease", BETA, "--json"))
    environment = environment_of(state, {"TSHRAG_CREDS": str(state / "al.json")})
    waiting = subprocess.Popen(
        (*TSHRAG, "lease", "kind=pi,rack=1", "--wait", "--json"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True,
    )  # fmt: skip
    until(lambda: "radio/al" in tshrag("jo", "lease", "list").stdout)
    assert tshrag("jo", "lease", "release", BETA).returncode == 0
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert json.loads(out)["dut"] == BETA
    assert "waiting for kind=pi, rack=1: you are the next" in err


def test_a_command_holds_a_board_while_it_works(tshrag: Tshrag) -> None:
    done = tshrag("jo", "lease", "take", ALPHA, "--", "sh", "-c", "echo $TSHRAG_DUT; exit 7")
    assert (done.returncode, done.stdout.strip()) == (7, ALPHA), done.stderr
    assert "nobody holds" in tshrag("jo", "lease", "list").stdout
    refused = tshrag("jo", "lease", "take", ALPHA, "--", "/no/such/program")
    assert refused.returncode == 2
    assert "command: /no/such/program" in refused.stderr


def test_a_job_that_waits_says_for_whom_until_when_and_what_would_help(
    tshrag: Tshrag, tmp_path: Path
) -> None:
    target = {"runtime": "dut", "kind": "pi", "duts": [ALPHA]}
    profile = {
        "name": "measure",
        "targets": {"dut": target},
        "schedule": {"sequence": [{"command": "true", "target": "dut"}]},
    }
    path = tmp_path / "measure.json"
    path.write_text(json.dumps(profile))
    assert tshrag("bo", "lease", ALPHA, "--for", "1h", "--reason", "bring-up").returncode == 0
    told = said(tshrag("jo", "submit", str(path), "--json"))
    look = told["outlook"]
    assert isinstance(look, dict)
    assert (look["reason"], look["start"]["low"] <= look["start"]["mid"]) == ("capacity", True)
    assert f"DUT {ALPHA} is leased by video/bo" in look["sentence"]
    assert tshrag("jo", "cancel", str(told["run"])).returncode == 0
    accepted = tshrag("jo", "submit", str(path))
    assert f"waits: DUT {ALPHA} is leased by video/bo (bring-up)" in accepted.stderr
    why = said(tshrag("jo", "why", "last", "--json"))
    looks = why["outlook"]
    assert isinstance(looks, dict)
    assert {each["what"] for each in looks["changes"]} == {
        f"on another DUT than {ALPHA}", f"if video/bo gives {ALPHA} back",
    }  # fmt: skip
    assert [each["until"] > 0 for each in looks["holders"]] == [True]
    assert "1 radio" in tshrag("al", "queue").stdout
    assert "video/bo until" in tshrag("al", "dut", "show", ALPHA).stdout
    assert tshrag("bo", "lease", "release", ALPHA).returncode == 0
    assert tshrag("jo", "wait", "last").returncode == 0
    placed = said(tshrag("jo", "explain", "placement", "last:1", "--json"))["places"]
    assert isinstance(placed, list)
    assert [each["dut"] for each in placed if each.get("chosen")] == [ALPHA]


def test_a_board_is_reserved_and_nobody_gets_in_the_way(tshrag: Tshrag) -> None:
    words = ("lease", "reserve", ALPHA, "--at", "+1h", "--for", "30m", "--json")
    promised = said(tshrag("jo", *words))
    assert (promised["state"], promised["owner"]) == ("reserved", "radio/jo")
    assert "is reserved for radio/jo in" in tshrag("al", "lease", ALPHA, "--for", "2h").stderr
    assert said(tshrag("al", "lease", ALPHA, "--for", "20m", "--json"))["owner"] == "radio/al"
    assert "reserved for radio/jo then" in tshrag("bo", *words).stderr
    table = tshrag("bo", "lease", "list").stdout
    assert "reserved" in table
    assert tshrag("jo", "lease", "release", str(promised["lease"])).returncode == 0


def test_a_rack_is_taken_out_of_service_and_back_by_an_operator(tshrag: Tshrag) -> None:
    refused = tshrag("jo", "dut", "quarantine", ALPHA)
    assert refused.returncode == 2
    assert "radio/jo is no operator of this lab" in refused.stderr
    words = ("--label", "rack=1", "--reason", "new cables", "--for", "1h")
    changed = said(tshrag("op", "dut", "maintenance", *words, "--json"))["things"]
    assert isinstance(changed, list)
    assert {each["name"] for each in changed} == set(BOARDS)
    table = tshrag("jo", "dut", "list").stdout
    assert table.count("maintenance by radio/op: new cables") == 2
    assert "available" in table, "what is observed stays what it is"
    assert "maintenance by radio/op" in tshrag("jo", "lease", ALPHA).stderr
    assert tshrag("op", "lease", ALPHA).returncode == 0, "somebody has to mend it"
    assert tshrag("op", "dut", "return", *BOARDS).returncode == 0
    assert tshrag("jo", "lease", BETA).returncode == 0
    assert "unknown_agent: 'rack-9'" in tshrag("op", "agent", "drain", "rack-9").stderr


def test_the_store_is_tended_by_operators_on_the_record(tshrag: Tshrag) -> None:
    for what in ("seal", "gc", "verify", "import"):
        refused = tshrag("jo", "store", what)
        assert refused.returncode == 2
        assert f"store {what}: radio/jo is no operator of this lab" in refused.stderr
    assert tshrag("op", "store", "seal").returncode == 0
    deeds = said(tshrag("jo", "store", "status", "--json"))["deeds"]
    assert isinstance(deeds, list)
    assert [(each["by"], each["what"]) for each in deeds] == [("radio/op", "seal")]
    assert "radio/op: seal: " in tshrag("jo", "store", "status").stdout


def test_what_is_wrong_is_said_in_one_line(tshrag: Tshrag) -> None:
    for words, expected in (
        (("lease", "take"), "dut: which board?"),
        (("lease", "alpha-"), "unknown_dut"),
        (("lease", "kind=rpi9"), "unsatisfiable: no DUT is like that; nearest is"),
        (("lease", "release"), "lease: which one?"),
        (("lease", "renew", "lease-9"), "unknown_lease"),
    ):
        done = tshrag("jo", *words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert expected in done.stderr
