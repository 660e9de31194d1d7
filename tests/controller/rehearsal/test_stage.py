"""The real scheduler by virtual time: what comes out is counted by hand, or holds for any work."""

import json
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from tshrag_common.errors import Refused
from tshrag_controller.core.policy import Policy
from tshrag_controller.rehearsal.files import hosts_of, read_lab, read_work
from tshrag_controller.rehearsal.measures import Figures, figures, jain
from tshrag_controller.rehearsal.stage import Outcome, Stage
from tshrag_controller.rehearsal.variants import variant_of

LAB = """
[[host]]
name = "rack"
slots = 2
[[host.dut]]
name = "rpi"
kind = "rpi4"
count = {boards}
"""


def rehearsed(
    lines: Iterable[dict[str, object]], boards: int = 1, policy: str = "lab"
) -> tuple[Outcome, Figures]:
    lab = read_lab(LAB.format(boards=boards).encode(), "lab.toml")
    work = read_work("".join(json.dumps(line) + "\n" for line in lines).encode(), "work.jsonl")
    hosts = list(hosts_of(lab))
    outcome = Stage(hosts, work, variant_of(policy, lab.scheduler)).play()
    return outcome, figures(policy, hosts, outcome)


def board_job(at: float, seconds: float, **more: object) -> dict[str, object]:
    return {"at": at, "seconds": seconds, "kind": "rpi4", **more}


def test_one_board_serves_one_after_the_other() -> None:
    outcome, found = rehearsed([board_job(0, 10), board_job(0, 20), board_job(50, 10)])
    assert [round(each.began_s, 3) for each in outcome.played] == [0, 10, 50]
    assert round(found.makespan_s, 3) == 60
    assert round(found.waits.max_s, 3) == 10
    assert found.boards_busy == pytest.approx(40 / 60, abs=1e-4)


def test_a_group_makes_its_setup_once_and_fifo_each_time() -> None:
    work = [board_job(0, 10, group=f"v{n % 2}", setup_s=60) for n in range(6)]
    _, grouped = rehearsed(work)
    _, plain = rehearsed(work, policy="fifo")
    assert (grouped.setups, grouped.setups_avoided, grouped.setup_saved_s) == (2, 4, 240)
    assert plain.setups == 6
    assert round(grouped.makespan_s) == 6 * 10 + 2 * 60
    assert round(plain.makespan_s) == 6 * 70


def test_priority_counts_but_not_for_fifo() -> None:
    work = [board_job(0, 10), board_job(1, 10, name="low", priority=25)]
    work += [board_job(2, 10, name="urgent", priority=100)]
    for policy, second in (("lab", "urgent"), ("fifo", "low")):
        outcome, _ = rehearsed(work, policy=policy)
        assert outcome.played[1].line.name == second


def test_what_may_gives_way_and_begins_anew_under_each_policy() -> None:
    work = [board_job(0, 500, name="low", priority=0, preemptible=True)]
    work += [board_job(100, 10, name="urgent", priority=100)]
    for policy, began, preempted in (
        ("lab", 100, 1), ("preempt_gap=100", 100, 1), ("preempt_most=0", 500, 0),
        ("preempt_after_s=200", 200, 1), ("fifo", 500, 0),
    ):  # fmt: skip
        outcome, found = rehearsed(work, policy=policy)
        starts = {each.line.name: round(each.began_s) for each in outcome.played}
        assert starts["urgent"] == began, policy
        assert found.preempted == preempted
        assert len(outcome.played) == 2, "both come to their end"


def test_jobs_of_a_run_keep_their_order_and_gangs_start_together() -> None:
    work: list[dict[str, object]] = [
        board_job(0, 5, run="r", serial=1),
        {"at": 0, "seconds": 30, "run": "r", "serial": 2, "after": [1], "what": "sleep"},
        board_job(0, 5, run="r", serial=3, after=[2], gang=3),
        board_job(0, 7, run="r", serial=4, after=[2], gang=3),
    ]
    outcome, _ = rehearsed(work, boards=2)
    began = {each.line.serial: round(each.began_s) for each in outcome.played}
    assert began == {1: 0, 3: 35, 4: 35}


def test_a_failure_in_the_past_stops_nothing_that_ran_then() -> None:
    work = [board_job(0, 5, run="r", serial=1, outcome="failed")]
    work += [board_job(0, 5, run="r", serial=2, after=[1])]
    outcome, _ = rehearsed(work)
    assert len(outcome.played) == 2


def test_what_fits_no_place_is_named_and_the_rest_is_played() -> None:
    outcome, found = rehearsed([board_job(0, 5), {"at": 0, "seconds": 5, "kind": "rpi5"}])
    assert len(outcome.played) == 1
    assert sum(found.unfit.values()) == 1
    assert "rpi5" in next(iter(found.unfit))


def test_jain_is_one_for_alike_and_a_share_for_one_who_has_all() -> None:
    assert jain([0.3, 0.3, 0.3]) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == pytest.approx(1 / 4)
    assert jain([]) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fif", "did you mean 'fifo'?"),
        ("ageing=2", "did you mean 'ageing_s'?"),
        ("ageing_s=soon", "no number"),
        ("lab,ageing_s=-1", ">= 1.0"),
        ("weights=2", "no weight 'weights'"),
        ("share_points=nan", "share_points"),
        ("", "no policy ''"),
    ],
)
def test_a_policy_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(Refused, match=r".*") as found:
        variant_of(text, Policy())
    assert said in found.value.line


LINE = st.fixed_dictionaries(
    {"at": st.integers(0, 50), "seconds": st.integers(0, 30)},
    optional={
        "priority": st.integers(0, 100),
        "org": st.sampled_from(["a", "b"]),
        "setup_s": st.integers(0, 20),
        "group": st.sampled_from(["v1", "v2"]),
        "count": st.integers(1, 3),
        "preemptible": st.booleans(),
    },
)


@settings(max_examples=60, deadline=None)
@given(st.lists(LINE, min_size=1, max_size=20), st.sampled_from(["lab", "fifo", "no-groups"]))
def test_every_job_is_played_once_and_no_board_is_shared(
    lines: list[dict[str, object]], policy: str
) -> None:
    outcome, found = rehearsed([line | {"kind": "rpi4"} for line in lines], 2, policy)
    wanted = sum(int(str(line.get("count", 1))) for line in lines)
    assert len(outcome.played) == wanted
    assert outcome.left == 0
    assert found.setups + found.setups_avoided == sum(
        int(str(line.get("count", 1))) for line in lines if "group" in line
    )
    by_place: dict[str, list[tuple[float, float]]] = {}
    for each in outcome.played:
        assert each.began_s >= each.ready_s
        by_place.setdefault(each.place, []).append((each.began_s, each.ended_s))
    for spans in by_place.values():
        spans.sort()
        assert all(a[1] <= b[0] for a, b in pairwise(spans))


def rehearsed_with(lines: Iterable[dict[str, object]], lab_text: str) -> tuple[Outcome, Figures]:
    lab = read_lab(lab_text.encode(), "lab.toml")
    work = read_work("".join(json.dumps(line) + "\n" for line in lines).encode(), "work.jsonl")
    hosts = list(hosts_of(lab))
    outcome = Stage(hosts, work, variant_of("lab", lab.scheduler), lab.faults).play()
    return outcome, figures("lab", hosts, outcome)


def test_a_board_that_always_fails_is_left_for_another_and_all_are_played() -> None:
    text = LAB.format(boards=2) + '[faults]\nat = { "rpi-1" = 1.0 }\n'
    outcome, found = rehearsed_with([board_job(0, 10) for _ in range(6)], text)
    assert len(outcome.played) == 6
    assert {each.place for each in outcome.played} == {"rpi-2"}
    assert found.faults > 0
    assert (found.given_up, found.left) == (0, 0)


def test_a_lab_that_always_fails_gives_every_job_up_after_its_attempts() -> None:
    text = LAB.format(boards=1) + "[faults]\nratio = 1.0\n"
    outcome, found = rehearsed_with([board_job(0, 10), board_job(0, 10)], text)
    assert not outcome.played
    assert (found.given_up, found.faults, found.left) == (2, 6, 0)


def test_faults_are_the_same_for_a_seed_and_others_for_another() -> None:
    work = [board_job(0, 10) for _ in range(60)]
    text = LAB.format(boards=3) + "[faults]\nratio = 0.2\nseed = {seed}\n"
    one, two, other = (
        rehearsed_with(work, text.replace("{seed}", seed))[0] for seed in ("5", "5", "6")
    )
    assert one == two
    assert one.played != other.played
    assert 0 < one.faults < 40


def test_a_person_who_leases_a_board_waits_in_line_and_keeps_jobs_off() -> None:
    lease = {"at": 5, "seconds": 100, "what": "lease", "kind": "rpi4", "name": "jo"}
    outcome, found = rehearsed([board_job(0, 10), lease, board_job(6, 10)])
    assert [round(each.began_s) for each in outcome.played] == [0, 110]
    assert (found.leases, round(found.lease_p95_s), found.unleased) == (1, 5, 0)


def test_no_job_starts_that_could_run_into_a_reservation() -> None:
    reserved = {
        "at": 100, "seconds": 50, "what": "lease", "dut": "rpi", "reserved": True, "name": "jo",
    }  # fmt: skip
    outcome, found = rehearsed([reserved, board_job(0, 10)])
    assert [round(each.began_s) for each in outcome.played] == [150], "its limit is over an hour"
    assert (found.leases, found.unleased) == (1, 0)
    _, refused = rehearsed([{**reserved, "dut": "nowhere"}, board_job(0, 10)])
    assert refused.unleased == 1
