"""The rules of grants, data and the world: each passes a good history and finds corrupt ones."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import test_checker
from tests.chaos.checker import RULES, check
from tests.chaos.recorded import Recorded
from tests.chaos.test_checker import Lines, drop, line, pick

ROOT = Path(__file__).parent.parent.parent
ALL = [f"I{number}" for number in range(1, 28)]

RUN, GANG, LATER = "run-0c", "run-0d", "run-0e"
SAMPLES, OUTPUT = "sp-s", "sp-o"
A, B = "agent a1", "agent a2"


def spec(**facts: Any) -> dict[str, Any]:
    known = {"need": "n", "slots": 1, "simple": True, "anywhere": True, "timeout_s": 20.0,
             "disconnect_s": 0.0, "output_bytes": 1000}  # fmt: skip
    return {**known, **facts}


def admitted(at_s: float, run: str, seq: int, plan: list[Any], **facts: Any) -> dict[str, Any]:
    specs = [spec(**facts)]
    return line(at_s, "admitted", job=run, jobs=len(plan), key="", epoch=7, seq=seq, org="o",
                priority=50, plan=plan, specs=specs)  # fmt: skip


def given(at_s: float, job: str, fence: int, agent: str, seq: int, dut: str = "") -> dict[str, Any]:
    return line(at_s, "assigned", job=job, attempt=1, fence=fence, agent=agent, dut=dut, epoch=7,
                seq=seq)  # fmt: skip


def over(at_s: float, fence: int, seq: int, agent: str, outcome: str = "passed",
         **upto: int) -> Lines:  # fmt: skip
    said = [(500, 0), (0, 0)]
    ended = line(at_s, "ended", fence=fence, outcome=outcome, epoch=7, seq=seq, said=said,
                 upto=upto)  # fmt: skip
    applied = line(at_s + 0.001, "applied", agent=agent, spool=f"r-{agent}", upto=seq, epoch=7,
                   seq=seq)  # fmt: skip
    bodies = [str(number) for number in range(seq)]
    spooled = line(at_s - 0.1, "spooled", f"agent {agent}", spool=f"r-{agent}", kind="reports",
                   seq=1, sha=bodies)  # fmt: skip
    return [spooled, ended, applied]


def moved(at_s: float, job: str, cause: str, seq: int) -> dict[str, Any]:
    return line(at_s, "moved", job=job, cause=cause, epoch=7, seq=seq)


def beats(agent: str, first: int, last: int) -> Lines:
    """Return the heartbeats of an agent, one a second."""
    facts: dict[str, Any] = {"agent": agent, "epoch": 7, "life": agent, "dropped": 0}
    return [
        line(at + offset, ev, draining=False, **facts)
        for at in range(first, last)
        for offset, ev in ((0.0, "renewed"), (0.01, "answered"))
    ]


def good() -> Lines:
    """Return jobs on hosts, a gang, a shared DUT whose agent vanishes, garbage, a full disk."""
    return [
        line(0.0, "leads", chosen=7, node="c1", epoch=7, seq=1),
        line(
            0.1, "agent_seen", agent="a1", life="a1", slots=2, duts=[("s1", True)], epoch=7, seq=2
        ),
        line(
            0.1,
            "agent_seen",
            agent="a2",
            life="a2",
            slots=2,
            duts=[("s1", True), ("o2", False)],
            epoch=7,
            seq=2,
        ),
        *beats("a1", 1, 30),
        *beats("a2", 1, 120),
        # two jobs for a host, the second behind the first
        admitted(1.0, RUN, 3, [(1, 0, 0, ()), (2, 0, 0, ())]),
        given(1.1, "job-0c-001", 31, "a1", 4),
        given(1.1, "job-0c-002", 32, "a1", 4),
        line(1.2, "taken", A, job="job-0c-001", attempt=1, dut="", fence=31, epoch=7),
        line(1.3, "offered", A, kind="samples", count=2, boot="x"),
        line(
            1.4,
            "spooled",
            A,
            spool=SAMPLES,
            kind="samples",
            seq=1,
            sha=["a", "b"],
            size=100,
            quota=1000,
            boot="x",
        ),
        line(1.5, "spooled", A, spool=OUTPUT, kind="output", seq=1, sha=["c"], boot="x"),
        line(1.6, "stored", spool=SAMPLES, kind="samples", agent="a1", seq=1, upto=2),
        line(1.7, "stored", spool=OUTPUT, kind="output", agent="a1", seq=1, upto=1),
        line(2.9, "gone", A, job="job-0c-001", attempt=1, dut="", fence=31, outcome="passed"),
        *over(3.0, 31, 5, "a1", samples=2, output=1),
        moved(3.0, "job-0c-001", "pass", 5),
        *over(4.0, 32, 6, "a1", "timeout"),
        moved(4.0, "job-0c-002", "time_out", 6),
        line(4.0, "judged", job=RUN, cause="fail", epoch=7, seq=6),
        # a gang that fails and goes together
        admitted(5.0, GANG, 7, [(1, 0, 1, ()), (2, 0, 1, ())], simple=False, anywhere=False),
        given(5.1, "job-0d-001", 41, "a1", 8),
        given(5.1, "job-0d-002", 42, "a2", 8),
        *over(6.0, 41, 9, "a1", "failed"),
        *over(8.0, 42, 10, "a2", "cancelled"),
        moved(8.0, "job-0d-001", "fail", 10),
        moved(8.0, "job-0d-002", "skip", 10),
        line(8.0, "judged", job=GANG, cause="fail", epoch=7, seq=10),
        # two jobs for a DUT that two agents reach; the first of these vanishes at 30 s
        admitted(9.0, LATER, 11, [(1, 0, 0, ()), (2, 0, 0, ())], simple=False, anywhere=False),
        given(20.0, "job-0e-001", 51, "a1", 12, "s1"),
        line(44.5, "agent_moved", agent="a1", cause="doubt", epoch=7, seq=13),
        line(59.6, "agent_moved", agent="a1", cause="lose", epoch=7, seq=14),
        line(59.6, "lost", fence=51, reason="silent", epoch=7, seq=14),
        moved(59.6, "job-0e-001", "break", 14),
        given(59.6, "job-0e-002", 52, "a2", 14, "s1"),
        *over(62.0, 52, 15, "a2"),
        moved(62.0, "job-0e-002", "pass", 15),
        line(62.0, "judged", job=LATER, cause="break", epoch=7, seq=15),
        # the world
        line(63.0, "garbage", "client", subject="ev", sha=["g"]),
        line(63.1, "set_aside", subject="ev", why="bad", sha=["g"]),
        line(64.0, "disk_full", "client", what="spool"),
        line(70.0, "health", "client", reasons=["a1: storage_full: no room"]),
        line(80.0, "disk_freed", "client", what="spool"),
        line(85.0, "health", "client", reasons=[]),
        line(86.0, "footprint", "sampler", of="agent a1", descriptors=40, rss_bytes=90_000_000),
    ]


def test_a_good_history_passes() -> None:
    assert [str(each) for each in check(Recorded(good()))] == []


def granted_too_early(lines: Lines) -> None:
    for each in lines:
        if each.get("seq") == 14:
            each["mono_ns"] -= 10_000_000_000


def granted_while_held(lines: Lines) -> None:
    drop(lines, "lost")


def given_up_too_late(lines: Lines) -> None:
    for each in lines:
        if each.get("seq") in (14, 15):
            each["mono_ns"] += 8_000_000_000


def owned_through_another(lines: Lines) -> None:
    for each in lines:
        if each["ev"] == "agent_seen":
            each["duts"] = [(dut, False) for dut, _ in each["duts"]]


def verdict_before_its_samples(lines: Lines) -> None:
    pick(lines, "stored", 0)["upto"] = 1
    lines.append(line(3.5, "stored", spool=SAMPLES, kind="samples", agent="a1", seq=2, upto=2))


def verdict_before_its_output(lines: Lines) -> None:
    pick(lines, "stored", 1)["mono_ns"] = 3_200_000_000


def half_a_gang(lines: Lines) -> None:
    pick(lines, "assigned", 3)["seq"] = 9


def gang_that_lingers(lines: Lines) -> None:
    for each in lines:
        if each.get("seq") == 10 and each["ev"] != "spooled":
            each["mono_ns"] = 42_000_000_000


def swallowed(lines: Lines) -> None:
    drop(lines, "set_aside")


def escaped(lines: Lines) -> None:
    facts: dict[str, Any] = {
        "kinds": ["KeyError", "Exception"],
        "room": "engine",
        "what": "x",
        "why": "'x'",
    }
    lines.append(line(50.0, "escaped", **facts))


def doubted_by_a_jump(lines: Lines) -> None:
    pick(lines, "agent_moved", 0)["mono_ns"] = 36_000_000_000


def out_of_time_by_a_jump(lines: Lines) -> None:
    pick(lines, "gone")["outcome"] = "timeout"


def full_and_silent(lines: Lines) -> None:
    pick(lines, "health", 0)["reasons"] = []


def full_and_told_late(lines: Lines) -> None:
    pick(lines, "health", 0)["mono_ns"] = 79_000_000_000


def freed_and_still_told(lines: Lines) -> None:
    pick(lines, "health", 1)["mono_ns"] = 145_000_000_000


def spool_beyond_its_quota(lines: Lines) -> None:
    pick(lines, "spooled", 0)["size"] = 30 << 20


def output_beyond_its_cap(lines: Lines) -> None:
    pick(lines, "ended", 0)["said"] = [(5000, 100), (0, 0)]


def descriptors_that_leak(lines: Lines) -> None:
    pick(lines, "footprint")["descriptors"] = 900


def memory_that_grows(lines: Lines) -> None:
    pick(lines, "footprint")["rss_bytes"] = 3 << 30


def dropped_and_not_told(lines: Lines) -> None:
    pick(lines, "offered")["count"] = 5
    lines.append(line(60.0, "gone", A, job="job-0c-002", attempt=1, dut="", fence=32, boot="x",
                      outcome="timeout"))  # fmt: skip


def told_and_not_dropped(lines: Lines) -> None:
    pick(lines, "renewed")["dropped"] = 3


def counted_twice(lines: Lines) -> None:
    lines.append(line(1.45, "dropped", A, kind="samples", count=2, boot="x"))


def end_of_another(lines: Lines) -> None:
    pick(lines, "applied", 0)["agent"] = "a2"


def spool_of_another(lines: Lines) -> None:
    pick(lines, "stored", 0)["agent"] = "a2"


def mark_of_another(lines: Lines) -> None:
    lines.append(line(9.5, "dut_marked", agent="a1", dut="o2", faulty="x", epoch=7, seq=11))


def secret_in_a_log(lines: Lines) -> None:
    lines.append(line(99.0, "secret_seen", "client", what="seed of a1", where="log", form="hex"))


def overtaken(lines: Lines) -> None:
    pick(lines, "assigned", 0)["seq"] = 5
    pick(lines, "assigned", 0)["mono_ns"] += 500_000_000


def starved(lines: Lines) -> None:
    lines.append(admitted(90.0, "run-0f", 16, [(1, 0, 0, ())]))
    lines.append(line(118.0, "judged", job="run-0f", cause="cancel", epoch=7, seq=17))


CORRUPT: dict[str, tuple[Callable[[Lines], None], str]] = {
    "a shared DUT that is granted too early": (granted_too_early, "I6"),
    "a DUT that is granted while it is held": (granted_while_held, "I6"),
    "a shared DUT that is given up too late": (given_up_too_late, "I6"),
    "an owned DUT that is granted through another": (owned_through_another, "I6"),
    "a verdict before its samples": (verdict_before_its_samples, "I13"),
    "a verdict before its output": (verdict_before_its_output, "I13"),
    "half a gang": (half_a_gang, "I17"),
    "a gang that lingers": (gang_that_lingers, "I17"),
    "garbage that is swallowed": (swallowed, "I19"),
    "an exception that escapes": (escaped, "I19"),
    "an agent that is doubted too early": (doubted_by_a_jump, "I20"),
    "a job that is out of time too early": (out_of_time_by_a_jump, "I20"),
    "a full disk that nobody is told of": (full_and_silent, "I21"),
    "a full disk that is told too late": (full_and_told_late, "I21"),
    "a disk that was freed and is told to be full": (freed_and_still_told, "I21"),
    "a spool beyond its quota": (spool_beyond_its_quota, "I22"),
    "output beyond its cap": (output_beyond_its_cap, "I22"),
    "descriptors that leak": (descriptors_that_leak, "I22"),
    "memory that grows": (memory_that_grows, "I22"),
    "samples that are dropped and not told": (dropped_and_not_told, "I23"),
    "drops that are told and never were": (told_and_not_dropped, "I23"),
    "samples that are kept and counted as dropped": (counted_twice, "I23"),
    "an end that another agent tells": (end_of_another, "I24"),
    "data that count for another agent": (spool_of_another, "I24"),
    "a DUT that is marked by another agent": (mark_of_another, "I24"),
    "a secret in a log": (secret_in_a_log, "I25"),
    "a job that is overtaken": (overtaken, "I27"),
    "a job that waits beside a free slot": (starved, "I27"),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_a_corrupt_history_is_found(name: str) -> None:
    corrupt, rule = CORRUPT[name]
    lines = good()
    corrupt(lines)
    assert rule in {broken.rule for broken in check(Recorded(lines))}


def test_each_invariant_is_broken_by_a_corrupt_history() -> None:
    found = {rule for _, rule in (*CORRUPT.values(), *test_checker.CORRUPT.values())}
    assert found == set(ALL)


def test_the_page_names_what_holds_each_invariant() -> None:
    page = (ROOT / "docs/explanation/proving-it.md").read_text()
    rows = dict(re.findall(r"^\| (I\d+) \| (.*) \|$", page, re.MULTILINE))
    assert list(rows) == ALL
    rules = {rule.__name__ for rule in RULES}
    named = {name: set(re.findall(r"`(\w+)`", row.split("|")[0])) for name, row in rows.items()}
    assert all(names and names <= rules for names in named.values()), named
    assert set().union(*named.values()) == rules
    paths = [path for row in rows.values() for path in re.findall(r"`(tests/[^`]+)`", row)]
    assert [path for path in paths if not (ROOT / path).exists()] == []
