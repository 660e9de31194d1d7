"""The checker sees: a good history passes, and each of hand-made corrupt ones is found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checker import check
from tests.chaos.recorded import Reader, Recorded

Lines = list[dict[str, Any]]
RUN, OTHER = "run-0a", "run-0b"
ONE, TWO = "job-0a-001", "job-0a-002"


def line(at_s: float, ev: str, actor: str = "controller c1", **facts: Any) -> dict[str, Any]:
    return {"mono_ns": round(at_s * 1e9), "host": "h", "boot": actor, "actor": actor, "ev": ev,
            **facts}  # fmt: skip


def attempt(at_s: float, job: str, number: int, fence: int, dut: str, outcome: str) -> Lines:
    """Return one attempt of 5 s, from its assignment to its end."""
    facts: dict[str, Any] = {"job": job, "attempt": number, "dut": dut}
    first, last = round((at_s + 0.2) * 1e9), round((at_s + 5.2) * 1e9)
    return [
        line(at_s, "assigned", fence=fence, epoch=7, seq=fence // 10, agent="a1", **facts),
        line(at_s + 0.1, "taken", "agent a1", fence=fence, epoch=7, **facts),
        line(at_s + 0.15, "fence_taken", "wrapper", dut=dut, fence=f"{fence:021d}"),
        line(at_s + 0.2, "born", "sampler", agent="a1", **facts),
        line(at_s + 5.3, "dead", "sampler", agent="a1", first_ns=first, last_ns=last, **facts),
        line(at_s + 5.4, "gone", "agent a1", fence=fence, outcome=outcome, **facts),
        line(at_s + 5.6, "ended", fence=fence, outcome=outcome, epoch=7, seq=fence // 10 + 1),
    ]


def good() -> Lines:
    """Return a run of two jobs on one DUT, the first of which is tried twice."""
    return [
        line(0.0, "leads", chosen=7, node="c1", epoch=7, seq=1),
        line(0.5, "submits", "client", job=RUN, key="k"),
        line(0.6, "admitted", job=RUN, jobs=2, key="k", epoch=7, seq=2),
        line(0.7, "accepted", "client", job=RUN, key="k"),
        *attempt(1.0, ONE, 1, 100, "rpi4", "error"),
        line(7.0, "moved", job=ONE, cause="requeue", epoch=7, seq=12),
        *attempt(8.0, ONE, 2, 200, "rpi4", "passed"),
        line(14.0, "moved", job=ONE, cause="pass", epoch=7, seq=22),
        *attempt(15.0, TWO, 1, 300, "rpi4", "failed"),
        line(21.0, "moved", job=TWO, cause="fail", epoch=7, seq=32),
        line(21.1, "judged", job=RUN, cause="fail", epoch=7, seq=32),
        line(2.0, "spooled", "agent a1", spool="s", kind="samples", seq=1, sha=["a", "b"]),
        line(2.1, "spooled", "agent a1", spool="s", kind="samples", seq=3, sha=["c"]),
        line(2.5, "stored", spool="s", kind="samples", agent="a1", seq=1, upto=2),
        line(2.6, "stored", spool="s", kind="samples", agent="a1", seq=3, upto=3),
        line(3.0, "trimmed", "agent a1", spool="s", kind="samples", seq=3),
    ]


def test_a_good_history_passes() -> None:
    assert check(Recorded(good())) == []


def drop(lines: Lines, ev: str, number: int = -1) -> None:
    lines.remove([each for each in lines if each["ev"] == ev][number])


def pick(lines: Lines, ev: str, number: int = -1) -> dict[str, Any]:
    return [each for each in lines if each["ev"] == ev][number]


def lost_run(lines: Lines) -> None:
    drop(lines, "judged")


def lost_job(lines: Lines) -> None:
    drop(lines, "moved")


def unadmitted(lines: Lines) -> None:
    lines.append(line(0.8, "accepted", "client", job=OTHER, key=""))


def second_verdict(lines: Lines) -> None:
    lines.append(line(22.0, "moved", job=ONE, cause="cancel", epoch=7, seq=40))


def two_on_a_dut(lines: Lines) -> None:
    pick(lines, "dead", 1)["last_ns"] = round(16.0 * 1e9)


def older_fence_on_the_board(lines: Lines) -> None:
    pick(lines, "fence_taken")["fence"] = f"{150:021d}"


def equal_fence(lines: Lines) -> None:
    pick(lines, "assigned")["fence"] = 200


def survivor(lines: Lines) -> None:
    pick(lines, "dead")["last_ns"] = round(40.0 * 1e9)
    pick(lines, "dead")["mono_ns"] = round(40.1 * 1e9)


def cancelled_and_alive(lines: Lines) -> None:
    lines.append(line(1.5, "cancelled", "client", job=ONE, pending=0))
    pick(lines, "dead", 0)["last_ns"] = round(12.5 * 1e9)
    pick(lines, "dead", 0)["mono_ns"] = round(12.6 * 1e9)


def outlived_its_run(lines: Lines) -> None:
    drop(lines, "ended")
    survivor(lines)


def no_end(lines: Lines) -> None:
    drop(lines, "ended")


def trimmed_too_early(lines: Lines) -> None:
    pick(lines, "trimmed")["mono_ns"] = round(2.55 * 1e9)


def lost_record(lines: Lines) -> None:
    drop(lines, "stored")
    drop(lines, "trimmed")


def number_used_again(lines: Lines) -> None:
    lines.append(line(2.2, "spooled", "agent a1", spool="s", kind="samples", seq=3, sha=["d"]))


def invented_record(lines: Lines) -> None:
    pick(lines, "stored")["upto"] = 4


def gap_in_the_spool(lines: Lines) -> None:
    pick(lines, "spooled")["seq"] = 4
    pick(lines, "stored")["upto"] = 4


def order_lost(lines: Lines) -> None:
    lines.append(line(2.8, "stored", spool="s", kind="samples", agent="a1", seq=1, upto=2))


def two_leaders(lines: Lines) -> None:
    lines.append(line(9.0, "leads", "controller c2", chosen=7, node="c2", epoch=7, seq=13))


def old_epoch_obeyed(lines: Lines) -> None:
    pick(lines, "taken")["epoch"] = 6


def deposed_leader_wrote(lines: Lines) -> None:
    pick(lines, "moved")["epoch"] = 6


def run_twice(lines: Lines) -> None:
    again = {**pick(lines, "taken"), "mono_ns": round(15.3 * 1e9)}
    lines.append(again)


def alive_again(lines: Lines) -> None:
    last = pick(lines, "dead")
    lines.append({**pick(lines, "born"), "mono_ns": round(21.5 * 1e9)})
    lines.append({**last, "mono_ns": round(22 * 1e9), "first_ns": round(21.5 * 1e9),
                  "last_ns": round(21.9 * 1e9)})  # fmt: skip


def key_twice(lines: Lines) -> None:
    lines += [
        line(0.9, "admitted", job=OTHER, jobs=0, key="k", epoch=7, seq=3),
        line(0.95, "accepted", "client", job=OTHER, key="k"),
        line(0.96, "judged", job=OTHER, cause="pass", epoch=7, seq=3),
    ]


def poison(lines: Lines) -> None:
    job = ONE
    for number in (3, 4, 5):
        lines += attempt(30.0 + 10 * number, job, number, 1000 + number, "rpi5", "error")


CORRUPT: dict[str, tuple[Callable[[Lines], None], str]] = {
    "a run without an end": (lost_run, "I1"),
    "a job without an end": (lost_job, "I1"),
    "a run that is in no frame": (unadmitted, "I1"),
    "two final states": (second_verdict, "I2"),
    "two attempts on one DUT": (two_on_a_dut, "I3"),
    "an older fence on the board": (older_fence_on_the_board, "I4"),
    "a fence that is given twice": (equal_fence, "I4"),
    "a process that outlives its end": (survivor, "I5"),
    "a process that outlives its cancel": (cancelled_and_alive, "I7"),
    "a process that outlives its run": (outlived_its_run, "I26"),
    "an attempt without an end": (no_end, "I8"),
    "a record that is trimmed before it is committed": (trimmed_too_early, "I9"),
    "a record that is lost": (lost_record, "I10"),
    "a number that is used again": (number_used_again, "I11"),
    "a record that nobody sent": (invented_record, "I11"),
    "a gap in a spool": (gap_in_the_spool, "I12"),
    "a store that falls back": (order_lost, "I12"),
    "an attempt that runs twice": (run_twice, "I14"),
    "an attempt that lives again": (alive_again, "I14"),
    "two leaders of one epoch": (two_leaders, "I15"),
    "an old epoch that is obeyed": (old_epoch_obeyed, "I15"),
    "a deposed leader that writes": (deposed_leader_wrote, "I15"),
    "a key that makes two runs": (key_twice, "I16"),
    "a poison job that is tried for ever": (poison, "I18"),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_a_corrupt_history_is_found(name: str) -> None:
    corrupt, rule = CORRUPT[name]
    lines = good()
    corrupt(lines)
    assert rule in {broken.rule for broken in check(Recorded(lines))}


def test_a_standby_stores_the_same_later(tmp_path: Path) -> None:
    behind = line(2.8, "stored", "controller c2", spool="s", kind="samples", seq=1, upto=2)
    assert check(Recorded([*good(), behind])) == []


def test_lines_of_processes_that_died_in_the_middle_are_left_out(tmp_path: Path) -> None:
    texts = [json.dumps(each) for each in good()]
    (tmp_path / "a.jsonl").write_text("\n".join(texts[::2]) + '\n{"mono_ns": 12')
    (tmp_path / "b.jsonl").write_text("\n".join(texts[1::2]) + "\n")
    recorded = Recorded.read(tmp_path)
    assert (recorded.cut, len(recorded.lines)) == (1, len(texts))
    assert check(recorded) == []


def other(lines: Lines) -> Lines:
    """Return the history of another lab: its frames have the same numbers, its runs do not."""
    return [
        json.loads(json.dumps(each).replace("-0a", "-0c").replace('"k"', '"q"')) for each in lines
    ]


def test_each_lab_of_a_history_is_judged_by_itself(tmp_path: Path) -> None:
    """A second lab's agents once counted as places of the first, and its frames as told before."""
    outside = ("client", "sampler")
    theirs = other(good())
    (tmp_path / "small").mkdir()
    write(tmp_path / "all.jsonl", [*good(), *(each for each in theirs if each["actor"] in outside)])
    inside = [each for each in theirs if each["actor"] not in outside]
    write(tmp_path / "small" / "all.jsonl", inside)
    labs = Reader(tmp_path).labs()
    assert [len(each.lines) for each in labs] == [len(good())] * 2
    assert [check(each) for each in labs] == [[], []]
    write(tmp_path / "small" / "all.jsonl", inside[:-20])
    assert [bool(check(each)) for each in Reader(tmp_path).labs()] == [False, True]


def write(path: Path, lines: Lines) -> None:
    path.write_text("".join(f"{json.dumps(each)}\n" for each in lines))
