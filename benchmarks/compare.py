"""Two folders of results side by side, by ratio to the limit: the machine cancels out.

    python -m benchmarks.compare OLD [NEW]

OLD and NEW are folders, NEW those kept here. Results of a commit: ``git worktree add``, or
``git archive COMMIT benchmarks/results | tar -x -C FOLDER``.
"""

import sys
from pathlib import Path

from benchmarks.harness import RESULTS, Figure, Result, read_results

NOISE = 0.15
"""Ratios of two runs of the same code differ by so much on a shared machine."""


def main(argv: list[str]) -> None:
    if not 1 <= len(argv) <= 2:
        raise SystemExit(__doc__)
    old, new = Path(argv[0]), Path(argv[1]) if len(argv) == 2 else RESULTS
    for line in compared(read_results(old), read_results(new)):
        print(line)


def compared(old: dict[str, Result], new: dict[str, Result]) -> list[str]:
    """Return a line a figure: what it was, what it is, and which way it went."""
    before = {each.name: each for result in old.values() for each in result.figures}
    lines = [f"{'figure':32} {'old':>9} {'new':>9}"]
    for result in new.values():
        for each in result.figures:
            lines.append(_line(before.get(each.name), each))
    return lines


def _line(old: Figure | None, new: Figure) -> str:
    if old is None or not old.ratio:
        return f"{new.name:32} {'-':>9} {new.ratio:9.3g}  new"
    change = new.ratio / old.ratio - 1
    good = change > 0 if new.better == "higher" else change < 0
    word = "same" if abs(change) < NOISE else "better" if good else "WORSE"
    return f"{new.name:32} {old.ratio:9.3g} {new.ratio:9.3g}  {change:+.0%} {word}"


if __name__ == "__main__":
    main(sys.argv[1:])
