"""A journal that does not count what it drops is found out; the one of the product is not: I23."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.recorded import Recorded
from tests.chaos.rules_data import losses_are_counted
from tshrag_agent.journal import journal as journal_room
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import Append, SpoolName
from tshrag_common import history

Lines = list[dict[str, Any]]
QUOTA: dict[SpoolName, int] = {"reports": 1 << 20, "samples": 20_000, "output": 1 << 20}


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """Let the product write its history here; ten seconds from line to line."""
    found: Lines = []
    fixed = {"host": "h", "boot": "b", "actor": "agent a1"}

    def note(ev: str, **facts: object) -> None:
        found.append({"mono_ns": (len(found) + 1) * 10**10, **fixed, "ev": ev, **facts})

    monkeypatch.setattr(history, "note", note)
    monkeypatch.setattr(history, "IS_ON", True)
    monkeypatch.setattr(journal_room, "SAMPLES_PATIENCE_S", 0.05)
    return found


def no_count(was: Callable[[Journal, Append], Any], lines: Lines) -> Callable[..., Any]:
    """Take the count of what is dropped out of a journal, and the line that tells of it."""

    async def has_room(self: Journal, change: Append) -> bool:
        before = self.samples_dropped
        room: bool = await was(self, change)
        self.samples_dropped = before
        lines[:] = [line for line in lines if line["ev"] != "dropped"]
        return room

    return has_room


@pytest.mark.parametrize("counts", [True, False])
async def test_samples_that_are_dropped_are_counted_or_it_is_seen(
    tmp_path: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch, counts: bool
) -> None:
    if not counts:
        monkeypatch.setattr(Journal, "_has_room", no_count(Journal._has_room, lines))
    journal = await Journal.open(tmp_path / "journal.db", QUOTA)
    for _ in range(40):
        await journal.append("samples", b"x" * 2000)
    assert (journal.samples_dropped > 0) == counts
    await journal.close()
    found = list(losses_are_counted(Recorded(lines)))
    assert [broken.rule for broken in found] == ([] if counts else ["I23"])
