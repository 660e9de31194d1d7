"""A disk in a simulation loses what a real one loses, and nothing else."""

import asyncio
import random
import sqlite3
from pathlib import Path

from tests.simulation.disk import JournalDisk, StoreDisk
from tests.simulation.vloop import VirtualLoop, run_virtual
from tshrag_controller.store.schema import HOT

SEEDS = 24


def test_a_torn_record_is_gone_and_those_before_it_are_whole(tmp_path: Path) -> None:
    async def play(loop: VirtualLoop) -> tuple[int, list[int]]:
        torn, kept, waits = 0, list[int](), list[asyncio.Task[object]]()
        for seed in range(SEEDS):
            disk = JournalDisk(loop, random.Random(seed), tmp_path / f"{seed}")
            journal = disk.open()
            await journal.append("output", b"one" * 4000)
            waits.append(loop.create_task(journal.append("output", b"two" * 4000, b"three" * 4000)))
            await disk.writing(5.0)
            disk.crash()
            torn += disk.torn
            records = await disk.open().read("output", 1, 1 << 20)
            assert records[0].body == b"one" * 4000
            kept.append(len(records))
            disk.crash()
        return torn, kept

    torn, kept = run_virtual(play)
    assert 0 < torn < SEEDS
    assert set(kept) == {1, 3}  # never a part of a transaction


def test_a_torn_transaction_of_a_controller_leaves_databases_that_open(tmp_path: Path) -> None:
    async def play(loop: VirtualLoop) -> int:
        torn, waits = 0, list[asyncio.Task[None]]()
        for seed in range(SEEDS):
            disk = StoreDisk(loop, random.Random(seed), tmp_path / f"{seed}", lambda store: None)
            store = await disk.open(disk.folder / "store")
            waits.append(loop.create_task(store._writer.call(_mark)))
            await disk.writing(5.0)
            disk.crash()
            torn += disk.torn
            store = await disk.open(disk.folder / "store")
            assert store.degraded == ""
            disk.crash()
            assert _sound(disk.folder / "store" / HOT)
        return torn

    assert 0 < run_virtual(play) < SEEDS


def _mark(connection: sqlite3.Connection) -> None:
    rows = [(f"a{number}", "samples", "s", number) for number in range(500)]
    connection.executemany(
        "INSERT INTO hot.marks (agent, kind, spool, upto) VALUES (?,?,?,?)", rows
    )


def _sound(path: Path) -> bool:
    database = sqlite3.connect(path)
    found = database.execute("PRAGMA integrity_check").fetchone()
    count = database.execute("SELECT count(*) FROM marks").fetchone()[0]
    database.close()
    return bool(found[0] == "ok") and count in (0, 500)
