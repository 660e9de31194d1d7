import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tshrag_common.errors import StorageFull
from tshrag_controller.store.writer import StorageFault, Worker


@pytest.fixture
async def undone() -> list[str]:
    return []


@pytest.fixture
async def worker(tmp_path: Path, undone: list[str]) -> AsyncIterator[Worker]:
    connection = sqlite3.connect(tmp_path / "w.db", check_same_thread=False)
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
    made = Worker("w", connection, commit=True, undone=lambda: undone.append("undone"))
    yield made
    await made.close()


def insert(number: int) -> Any:
    return lambda db: db.execute("INSERT INTO t VALUES (?)", (number,)).rowcount


async def numbers(worker: Worker) -> list[int]:
    return await worker.call(lambda db: [row[0] for row in db.execute("SELECT n FROM t")])


async def together(worker: Worker, *writes: Any) -> list[Any]:
    """Let several calls wait while the thread is busy, so that they are one batch."""
    busy = threading.Event()
    first = asyncio.ensure_future(worker.call(lambda _: busy.wait(5)))
    await asyncio.sleep(0.02)
    waiting = [asyncio.ensure_future(worker.call(write)) for write in writes]
    await asyncio.sleep(0.02)
    busy.set()
    await first
    await asyncio.wait(waiting)
    return [each.exception() or each.result() for each in waiting]


async def test_one_failing_call_does_not_take_the_others_of_its_batch(
    worker: Worker, undone: list[str]
) -> None:
    outcomes = await together(worker, insert(1), insert(1), insert(2))
    assert outcomes[0] == outcomes[2] == 1
    assert isinstance(outcomes[1], StorageFault)
    assert sorted(await numbers(worker)) == [1, 2]
    assert undone, "whoever remembers what was written must hear that it was taken back"


async def test_a_full_disk_is_storage_full_and_says_what_to_do(worker: Worker) -> None:
    def full(db: sqlite3.Connection) -> None:
        db.execute("PRAGMA max_page_count=2")
        for number in range(10_000):
            db.execute("INSERT INTO t VALUES (?)", (number,))

    with pytest.raises(StorageFull, match="free some space; nothing was lost"):
        await worker.call(full)
    assert await numbers(worker) == []


async def test_a_fault_of_a_file_is_a_fault_of_the_store(worker: Worker) -> None:
    def no_space(db: sqlite3.Connection) -> None:
        raise OSError(28, "No space left on device")

    def no_way(db: sqlite3.Connection) -> None:
        raise PermissionError(13, "denied")

    with pytest.raises(StorageFull):
        await worker.call(no_space)
    with pytest.raises(StorageFault, match="denied"):
        await worker.call(no_way)


async def test_a_bug_in_a_call_is_raised_where_it_was_asked_for(worker: Worker) -> None:
    def bug(db: sqlite3.Connection) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        await worker.call(bug)
    await worker.call(insert(3))
    assert await numbers(worker) == [3]


async def test_who_no_longer_waits_loses_nothing_of_the_others(worker: Worker) -> None:
    busy = threading.Event()
    first = asyncio.ensure_future(worker.call(lambda _: busy.wait(5)))
    gone = asyncio.ensure_future(worker.call(insert(1)))
    stays = asyncio.ensure_future(worker.call(insert(2)))
    await asyncio.sleep(0.02)
    gone.cancel()
    busy.set()
    await first
    assert await stays == 1
    assert 2 in await numbers(worker)


async def test_closing_lets_finish_what_waits(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
    worker = Worker("c", connection, commit=True)
    waiting = [asyncio.ensure_future(worker.call(insert(number))) for number in range(50)]
    await asyncio.sleep(0)
    await worker.close()
    assert all(each.done() for each in waiting) or await asyncio.gather(*waiting)
    again = sqlite3.connect(path)
    assert again.execute("SELECT count(*) FROM t").fetchone() == (50,)
    again.close()
