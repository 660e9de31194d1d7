"""PURE: board or build? Results of equal tests on other boards and of other builds on this one.

A *test* is a job of a profile, by their names. A *build* is what the run says of itself (label
``build`` or ``app_version_id``), else the bytes of its loads. A failure alone accuses nobody.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

Verdict = Literal["board", "build", "flaky", "unknown"]

ENOUGH = 0.8
"""So much of what was tried must agree before it counts as a sign."""


class Result(NamedTuple):
    """How one job ended on one board."""

    dut: str
    test: str
    build: str
    passed: bool
    at: int
    run: str
    error: bool = False  # infrastructure: it could not run, or could not be judged


class Tally(NamedTuple):
    """Passed and not."""

    passed: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        return self.passed + self.failed

    def mostly(self, good: bool) -> bool:
        return self.total > 0 and (self.passed if good else self.failed) >= ENOUGH * self.total


class Suspicion(NamedTuple):
    """What speaks for the board or for the build, where a test of a build has failed here."""

    dut: str
    test: str
    build: str
    here: Tally  # this build on this board
    elsewhere: Tally  # this build on other boards
    others: Tally  # other builds on this board
    verdict: Verdict
    why: str
    run: str  # the newest that failed


class Board(NamedTuple):
    """A board over all its tests."""

    dut: str
    passed: int
    failed: int
    errors: int
    flips: int  # the same test of the same build ended otherwise than the time before
    suspicions: tuple[Suspicion, ...]

    @property
    def fail_ratio(self) -> float:
        total = self.passed + self.failed + self.errors
        return (self.failed + self.errors) / total if total else 0.0


def boards(results: Iterable[Result]) -> list[Board]:
    """Return all boards, those that failed most first."""
    everything = sorted(results, key=lambda each: each.at)
    by_dut: dict[str, list[Result]] = {}
    for each in everything:
        by_dut.setdefault(each.dut, []).append(each)
    found = [_board(dut, own, everything) for dut, own in by_dut.items()]
    return sorted(found, key=lambda board: (-board.fail_ratio, board.dut))


def _board(dut: str, own: list[Result], everything: list[Result]) -> Board:
    last: dict[tuple[str, str], bool] = {}
    flips = 0
    for each in own:
        key = (each.test, each.build)
        flips += last.get(key, each.passed) != each.passed
        last[key] = each.passed
    failing = {(each.test, each.build): each.run for each in own if not each.passed}
    return Board(
        dut=dut,
        passed=sum(each.passed for each in own),
        failed=sum(not each.passed and not each.error for each in own),
        errors=sum(each.error for each in own),
        flips=flips,
        suspicions=tuple(
            _suspicion(dut, test, build, run, everything)
            for (test, build), run in sorted(failing.items())
        ),
    )


def _suspicion(dut: str, test: str, build: str, run: str, everything: list[Result]) -> Suspicion:
    same = [each for each in everything if each.test == test]
    here = _tally(each for each in same if each.build == build and each.dut == dut)
    elsewhere = _tally(each for each in same if each.build == build and each.dut != dut)
    others = _tally(each for each in same if each.build != build and each.dut == dut)
    verdict, why = judge(here, elsewhere, others)
    return Suspicion(dut, test, build, here, elsewhere, others, verdict, why, run)


def _tally(results: Iterable[Result]) -> Tally:
    found = [each.passed for each in results]
    return Tally(sum(found), len(found) - sum(found))


def judge(here: Tally, elsewhere: Tally, others: Tally) -> tuple[Verdict, str]:
    """Say who is to blame, as far as the results tell."""
    if elsewhere.mostly(False):
        return "build", "this build fails on other boards too"
    if elsewhere.mostly(True) and (others.mostly(False) or here.mostly(False)):
        more = ", and other builds fail here" if others.mostly(False) else ""
        return "board", f"this build passes on other boards{more}"
    if not elsewhere.total and others.mostly(True) and here.mostly(False):
        return "build", "other builds pass here; no other board has tried this one"
    if here.passed and here.failed:
        return "flaky", "this build passes and fails on this board"
    if not elsewhere.total:
        return "unknown", "no other board has tried this build"
    return "unknown", "the results do not agree"
