"""LAB.toml and WORK.jsonl: what they mean, and every way in which they can be wrong."""

import pytest

from tshrag_common.errors import Invalid
from tshrag_controller.rehearsal.files import LabFile, hosts_of, read_lab, read_work

LAB = b"""
[[host]]
name = "rack"
count = 2
slots = 3
[[host.dut]]
name = "rpi"
kind = "rpi4"
count = 2
[[host.dut]]
name = "nas"
kind = "box"
"""


def test_count_makes_hosts_and_boards_with_names_of_their_own() -> None:
    hosts = list(hosts_of(read_lab(LAB, "lab.toml")))
    assert {host.agent: [dut.id for dut in host.duts] for host in hosts} == {
        "rack-1": ["rpi-1-1", "rpi-1-2", "nas-1"],
        "rack-2": ["rpi-2-1", "rpi-2-2", "nas-2"],
    }


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "lab_empty: lab.toml: no content"),
        (b"[scheduler]\nageing_s = 60\n", "missing: lab.toml: host: no [[host]]"),
        (b"[[host]]\nname = 'a'\n[[host]]\nname = 'a'\n", "'a' is there twice"),
        (b"[[host]]\nname = 'a'\nslotz = 2\n", "lab.toml:3: host[0].slotz; did you mean 'slots'?"),
        (b"[[host]]\nname = 'a'\n[scheduler]\nageing_s = -1\n", "lab.toml:4: scheduler.ageing_s"),
        (b"[[host]\n", "lab.toml:1"),
        (b"[[host]]\nname = 'a'\n[faults]\nat = { b1 = 0.5 }\n", "no host or board 'b1'"),
        (b"[[host]]\nname = 'a'\n[faults]\nratio = 2\n", "faults.ratio"),
    ],
)
def test_a_lab_that_cannot_be_names_file_and_line(raw: bytes, said: str) -> None:
    with pytest.raises(Invalid) as found:
        read_lab(raw, "lab.toml")
    assert said in found.value.line


def test_lines_are_runs_in_the_order_of_their_submission() -> None:
    raw = (
        b'{"at": 9, "seconds": 1, "kind": "rpi4", "group": "v1", "setup_s": 5}\n\n'
        b'{"at": 3, "seconds": 1, "count": 2}\n'
        b'{"at": 4, "seconds": 2, "run": "r", "serial": 2, "after": [1]}\n'
        b'{"at": 4, "seconds": 1, "run": "r", "serial": 1}\n'
    )
    work = read_work(raw, "work.jsonl")
    assert [(run.at, len(run.lines)) for run in work] == [(3, 1), (3, 1), (4, 2), (9, 1)]
    assert [job.after for job in work[2].plan.jobs] == [(), (1,)]
    need = work[3].plan.specs[0].need
    assert (need.target.kind, need.wants_dut) == ("rpi4", True)
    assert need.group is not None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"at": 1}', "work.jsonl:1: Missing required field(s): seconds"),
        (b'{"at": 1, "secnds": 1, "seconds": 1}', "did you mean 'seconds'?"),
        (b'{"at": -1, "seconds": 1}', "work.jsonl:1: at"),
        (b'{"at": 1e999, "seconds": 1}', "work.jsonl:1"),
        (b"[]", "expected a mapping"),
        (b"\xff", "json_syntax: work.jsonl:1"),
        (b'{"at": 1, "seconds": 1, "kind": "x", "need": {"slots": 2}}', "keep one"),
        (b'{"at": 1, "seconds": 1, "group": "v1"}', "a setup is of a DUT"),
        (b'{"at": 1, "seconds": 1, "run": "a"}', "a job of a run has a number"),
        (b'{"at": 1, "seconds": 1, "run": "a", "serial": 2}', "run 'a' has no job 1"),
        (b'{"at": 1, "seconds": 1, "run": "a", "serial": 1, "after": [1]}', "smaller serials"),
        (b"", "no job"),
    ],
)
def test_a_line_that_is_no_job_is_named(line: bytes, said: str) -> None:
    with pytest.raises(Invalid) as found:
        read_work(line + b"\n", "work.jsonl")
    assert said in found.value.line


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(Invalid) as found:
        read_work(b'{"at": 1}\n{"at": 2, "seconds": 1}\nno\n', "work.jsonl")
    assert [problem.line for problem in found.value.problems] == [1, 3]


def test_the_weights_of_a_lab_are_those_of_the_settings() -> None:
    lab = read_lab(LAB + b"[scheduler]\nshare_points = 7\n", "lab.toml")
    assert isinstance(lab, LabFile)
    assert lab.scheduler.share_points == 7


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('"what": "lease"', "a lease is of a board; say dut, or kind"),
        ('"what": "lease", "dut": "b1", "run": "r", "serial": 1', "a lease belongs to no run"),
        ('"reserved": true', "is of a lease of one board"),
    ],
)
def test_a_lease_that_cannot_be_says_why(line: str, said: str) -> None:
    with pytest.raises(Invalid) as found:
        read_work(f'{{"at": 0, "seconds": 5, {line}}}\n'.encode(), "work.jsonl")
    assert said in found.value.line
