import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from tests.chaos.images import a_small_disk, can_mount
from tests.support.waiting import wait_until
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import (
    Append,
    AttemptRow,
    Begin,
    Confirm,
    DutFence,
    End,
    Heard,
    Pumped,
)
from tshrag_common.errors import StorageFull
from tshrag_common.ids import DutId, Fence


def a_row(fence: int) -> AttemptRow:
    return AttemptRow(fence=Fence(fence), start=b"start", spec=b"spec")


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def bodies(journal: Journal, from_seq: int = 1, most: int = 1 << 20) -> list[bytes]:
    return [record.body for record in await journal.read("reports", from_seq, most)]


async def test_records_are_numbered_from_one_and_survive_a_reopening(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    assert await journal.append("reports", b"a", b"b") == 2
    assert await journal.append("reports", b"c") == 3
    assert await journal.append("samples", b"x") == 1
    spool = journal.state("reports").spool
    await journal.close()

    journal = await Journal.open(tmp_path / "journal.db")
    assert await bodies(journal) == [b"a", b"b", b"c"]
    assert await bodies(journal, 3) == [b"c"]
    assert await bodies(journal, 4) == []
    assert journal.state("reports").spool == spool
    await journal.close()


async def test_what_is_confirmed_leaves_and_numbers_go_on(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    await journal.append("reports", b"a", b"b", b"c")
    await journal.confirm("reports", 3)
    assert journal.state("reports").confirmed == 3
    await journal.close()

    journal = await Journal.open(tmp_path / "journal.db")
    assert journal.size_bytes == 0
    assert await journal.append("reports", b"d") == 4
    assert await bodies(journal, 4) == [b"d"]
    await journal.confirm("reports", 99)
    assert journal.state("reports").confirmed == 4
    await journal.close()


async def test_a_read_stops_at_its_size_but_gives_at_least_one(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    await journal.append("reports", b"a" * 100, b"b" * 100, b"c" * 100)
    assert await bodies(journal, 1, 200) == [b"a" * 100, b"b" * 100]
    assert await bodies(journal, 2, 1) == [b"b" * 100]
    await journal.close()


async def test_old_records_come_from_the_disk_when_memory_has_only_new_ones(
    tmp_path: Path,
) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    for number in range(40):
        await journal.append("output", bytes([number]) * (64 << 10))
    assert [r.seq for r in await journal.read("output", 1, 1)] == [1]
    assert [r.seq for r in await journal.read("output", 40, 1)] == [40]
    await journal.close()


async def test_what_was_confirmed_before_a_read_is_passed_over_and_is_no_damage(
    tmp_path: Path,
) -> None:
    """After a restart the sender begins behind what was confirmed, and a beat overtakes it."""
    journal = await Journal.open(tmp_path / "journal.db")
    await journal.append("samples", b"a", b"b", b"c")
    await journal.close()

    journal = await Journal.open(tmp_path / "journal.db")
    await journal.confirm("samples", 2)
    assert [(r.seq, r.body) for r in await journal.read("samples", 1, 1 << 20)] == [(3, b"c")]
    await journal.confirm("samples", 3)
    assert await journal.read("samples", 2, 1 << 20) == []
    await journal.close()


async def test_waiters_share_commits(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    async with asyncio.TaskGroup() as group:
        for number in range(500):
            group.create_task(journal.append("reports", b"%d" % number))
    assert [int(body) for body in await bodies(journal)] == list(range(500))
    await journal.close()


async def test_an_attempt_is_known_until_its_end_is_confirmed(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    await journal.write(Begin(a_row(7)), Begin(a_row(8)), DutFence(DutId("b1"), Fence(8)))
    await journal.write(
        Heard(2, 9), Append("output", (b"x",)), Pumped(Fence(7), 11, 22, marks_output=True)
    )
    assert await journal.write(Append("reports", (b"ended 8",)), End(Fence(8))) == 1
    await journal.close()

    journal = await Journal.open(tmp_path / "journal.db")
    assert [
        (a.fence, a.stdout, a.stderr, a.output_upto, a.ended_seq) for a in journal.attempts
    ] == [(7, 11, 22, 1, 0), (8, 0, 0, 0, 1)]
    assert (journal.heard, journal.duts) == ((2, 9), {"b1": 8})
    await journal.confirm("reports", 1)
    await journal.close()

    journal = await Journal.open(tmp_path / "journal.db")
    assert [attempt.fence for attempt in journal.attempts] == [7]
    await journal.close()


async def test_a_second_begin_of_a_fence_changes_nothing(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    await journal.write(Begin(a_row(7)), Append("reports", (b"e",)), End(Fence(7)))
    await journal.write(Begin(a_row(7)))
    await journal.close()
    journal = await Journal.open(tmp_path / "journal.db")
    assert [attempt.ended_seq for attempt in journal.attempts] == [1]
    await journal.close()


async def test_a_damaged_file_is_set_aside_and_a_new_spool_begins(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = await Journal.open(path)
    await journal.append("reports", b"a")
    spool = journal.state("reports").spool
    await journal.close()
    path.write_bytes(b"this is no database" * 100)

    journal = await Journal.open(path)
    assert journal.state("reports").spool != spool
    assert await journal.append("reports", b"b") == 1
    assert any(".corrupt-" in name for name in names(tmp_path))
    await journal.close()


async def test_a_flipped_bit_is_found_and_told_with_what_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = await Journal.open(path)
    await journal.append("reports", b"first", b"the one that rots", b"third")
    await journal.append("output", b"said")
    await journal.close()
    data = path.read_bytes()
    place = data.index(b"the one that rots")
    path.write_bytes(data[:place] + b"T" + data[place + 1 :])

    journal = await Journal.open(path)
    said, _, aside = journal.damage.partition(" kept aside in ")
    assert said == "spool_corrupt: journal.db: record 2 of reports is damaged; 3 records"
    assert (tmp_path / aside).exists()
    assert journal.state("reports").last == 0
    await journal.close()
    journal = await Journal.open(path)
    assert journal.damage == ""
    await journal.close()


async def test_a_broken_page_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = await Journal.open(path)
    for number in range(50):
        await journal.append("samples", b"%03d" % number * 1000)
    await journal.close()
    data = bytearray(path.read_bytes())
    begin = len(data) - 4096  # the last page: one of a table
    data[begin : begin + 64] = b"\xff" * 64
    path.write_bytes(data)

    journal = await Journal.open(path)
    assert journal.damage.startswith("spool_corrupt: journal.db: ")
    assert "records kept aside in journal.db.corrupt-" in journal.damage
    await journal.close()


async def test_fences_are_saved_from_a_journal_with_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = await Journal.open(path)
    await journal.append("reports", b"a", b"b", b"c")
    await journal.write(DutFence(DutId("b1"), Fence(8)), Heard(3, 4))
    await journal.close()
    db = sqlite3.connect(path)
    db.execute("DELETE FROM reports WHERE seq = 2")
    db.commit()
    db.close()

    journal = await Journal.open(path)
    assert (journal.heard, journal.duts) == ((3, 4), {"b1": 8})
    assert journal.state("reports").last == 0
    await journal.close()


async def test_reports_wait_for_room(tmp_path: Path) -> None:
    quota = {"reports": 100, "samples": 100, "output": 100}
    journal = await Journal.open(tmp_path / "journal.db", quota)  # type: ignore[arg-type]  # keys
    await journal.append("reports", b"a" * 100)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(journal.append("reports", b"b"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await journal.write(Confirm("reports", 1))
    assert waiting.result() == 2
    await journal.close()


async def test_samples_are_dropped_and_counted_only_when_too_many_wait(tmp_path: Path) -> None:
    quota = {"reports": 100, "samples": 100, "output": 100}
    journal = await Journal.open(tmp_path / "journal.db", quota)  # type: ignore[arg-type]  # keys
    await journal.append("samples", b"a" * 100)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(journal.append("samples", b"b" * 100))
        await asyncio.sleep(0.01)
        assert await journal.append("samples", b"c" * (8 << 20)) == 1
        assert journal.samples_dropped >= 1
        await journal.confirm("samples", 1)
    assert waiting.result() > 1
    await journal.close()


async def test_a_full_disk_is_told_and_nothing_is_numbered(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    await journal.append("reports", b"a")
    journal._store._db.execute("PRAGMA max_page_count = 20")  # a disk that is full
    with pytest.raises(StorageFull, match="full"):
        await journal.write(Append("reports", (b"b" * 1_000_000,)), patient=False)
    assert journal.fault
    assert await journal.append("reports", b"c") == 2
    assert not journal.fault
    await journal.close()


@pytest.mark.skipif(bool(can_mount()), reason=can_mount())
async def test_a_journal_never_fills_its_own_disk(tmp_path: Path) -> None:
    """One that had could not even take away what was confirmed: that needs room, too."""
    with a_small_disk(tmp_path / "disk", 16) as disk:
        journal = await Journal.open(disk / "journal.db")
        for _ in range(3):
            filling = asyncio.create_task(_fill(journal))
            await wait_until(lambda: journal.size_bytes >= 3 << 20, 30)
            await asyncio.wait([filling], timeout=0.5)
            assert not filling.done()  # it waits for room, and nothing has failed
            assert journal.fault == ""
            filling.cancel()
            await asyncio.wait([filling])
            await journal.confirm("output", journal.state("output").last)
            assert journal.size_bytes < 1 << 20
        await journal.close()


async def _fill(journal: Journal) -> None:
    while True:
        await journal.append("output", *[os.urandom(64 << 10)] * 4)
