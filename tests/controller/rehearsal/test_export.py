"""What a lab did, as files: they are read again by their reader, and mean the same."""

import json

from hypothesis import given, strategies as st

from tests.support.builders import a_dut
from tshrag_common.ids import AgentId
from tshrag_common.inventory import AgentFacts
from tshrag_common.lease_requests import EndedLease
from tshrag_common.work import WorkLine
from tshrag_common.work_requests import WorkRow
from tshrag_controller.core.policy import Policy, Quota
from tshrag_controller.rehearsal.export import compacted, lab_text, lease_line, policy_of, work_text
from tshrag_controller.rehearsal.files import hosts_of, read_lab, read_work


def row(serial: int, *after: int, ran: bool = True, run: str = "r", gang: int = 0) -> WorkRow:
    line = WorkLine(at=7.0, seconds=1.0, run=run, serial=serial, after=after, gang=gang)
    return WorkRow(line=line, ran=ran)


def test_what_came_after_a_job_that_never_ran_comes_after_what_was_before_it() -> None:
    lines = compacted([row(1), row(2, 1, ran=False), row(3, 2), row(4, 2, 3)])
    assert [(line.serial, line.after) for line in lines] == [(1, ()), (2, (1,)), (3, (1, 2))]
    assert {line.at for line in lines} == {0.0}


def test_a_gang_of_which_one_ran_is_a_job() -> None:
    lines = compacted([row(1, ran=False, gang=1), row(2, gang=1), row(3, gang=3), row(4, gang=3)])
    assert [(line.serial, line.gang) for line in lines] == [(1, 0), (2, 2), (3, 2)]


def test_leases_of_people_are_exported_with_the_jobs_and_read_again() -> None:
    since = 1_000_000_000
    had = EndedLease(
        lease="l1", dut="pi-7", agent="a1", fence=9, owner="radio/jo", since=since + 3_000_000,
        ended_at=since + 63_000_000, cause="released",
    )  # fmt: skip
    lines = compacted([row(1)], [lease_line(had, since)])
    assert [(line.what, line.at) for line in lines] == [("job", 4.0), ("lease", 0.0)]
    found = read_work(work_text(lines).encode(), "work.jsonl")[0].lines[0]
    assert (found.dut, found.seconds, found.org, found.name) == ("pi-7", 60.0, "radio", "jo")


def test_a_run_that_only_slept_is_no_work() -> None:
    slept = WorkRow(line=WorkLine(at=0, seconds=3, run="s", serial=1, what="sleep"))
    assert compacted([slept]) == []


@given(
    st.lists(
        st.tuples(st.booleans(), st.lists(st.integers(1, 9), max_size=3), st.integers(0, 9)),
        min_size=1,
        max_size=9,
    )
)
def test_what_is_exported_can_be_read(jobs: list[tuple[bool, list[int], int]]) -> None:
    rows = [
        row(serial, *{each for each in after if each < serial}, ran=ran, gang=min(gang, serial))
        for serial, (ran, after, gang) in enumerate(jobs, 1)
    ]
    lines = compacted(rows)
    text = work_text(lines).encode()
    if lines:
        assert list(read_work(text, "work.jsonl")[0].lines) == lines


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
"""What can come over a wire."""


@given(TEXT, TEXT)
def test_a_lab_is_read_as_it_was_written(label: str, value: str) -> None:
    board = a_dut("rpi-1", kind="rpi4", labels={label: value})
    facts = AgentFacts(
        agent=AgentId("rack-1"), boot="b", version="0", slots=3, labels={value: label},
        duts=(board,), tools=("git",), resources={"usb-hub": 2.0}, memory_bytes=1 << 33,
    )  # fmt: skip
    policy = Policy(share_points=7.0, weights={"a-b": 2.0}, quotas={"*": Quota(running_duts=3)})
    text = lab_text([facts], policy).encode()
    lab = read_lab(text, "lab.toml")
    [host] = hosts_of(lab)
    assert lab.scheduler == policy
    assert (host.labels, host.slots, host.tools) == (facts.labels, 3, ("git",))
    assert (host.resources, host.memory_bytes) == (facts.resources, facts.memory_bytes)
    [dut] = host.duts
    assert (dut.id, dut.kind, dut.labels) == (board.id, board.kind, board.labels)


def test_a_policy_comes_as_json() -> None:
    assert policy_of(json.dumps({"ageing_s": 60, "of_a_newer_one": 1}).encode()).ageing_s == 60
