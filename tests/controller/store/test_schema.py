import sqlite3
from array import array
from pathlib import Path

import pytest
from sqlite_utils import Database

from tests.support.lab_drill import history
from tshrag_common.errors import StorageFull, Unavailable
from tshrag_controller.store import partitions
from tshrag_controller.store.schema import (
    VERSION,
    SchemaTooNew,
    backup,
    hot_migrations,
    open_databases,
    set_aside,
    usable,
)
from tshrag_controller.store.store import Store


@pytest.mark.parametrize("name", ["projection.db", "hot.db"])
async def test_a_file_of_a_newer_build_is_refused_and_left_as_it_is(
    tmp_path: Path, name: str
) -> None:
    await (await Store.open(tmp_path)).close()
    db = sqlite3.connect(tmp_path / name)
    db.execute(f"PRAGMA user_version={VERSION + 1}")
    db.close()
    with pytest.raises(SchemaTooNew) as refused:
        await Store.open(tmp_path)
    assert refused.value.line == f"schema: {tmp_path / name}: {VERSION + 1} > {VERSION}; upgrade"


def test_a_file_of_an_older_build_is_brought_up_to_date(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "hot.db")
    hot_migrations.apply(Database(db), stop_before="h0002_refused")
    db.execute("PRAGMA user_version=1")
    db.execute("INSERT INTO totals VALUES ('samples', 7)")
    times, values = array("q", [5, 6]).tobytes(), array("d", [0.5, 2.0**40]).tobytes()
    db.execute("INSERT INTO chunks VALUES (3, 0, 2, 5, 6, ?, ?, NULL)", (times, values))
    db.execute("INSERT INTO chunks VALUES (3, 1, 2, 5, 6, ?, ?, ?)", (times, values, times))
    db.commit()
    db.close()
    connection = open_databases(tmp_path)
    assert connection.execute("SELECT value FROM hot.totals").fetchone() == (7,)
    assert connection.execute("SELECT count(*) FROM hot.refused").fetchone() == (0,)
    (part,) = partitions.partitions(connection)
    assert (part.no, part.samples, part.state) == (1, 4, "closed")
    kept = list(partitions.chunks(connection, 1, 3))
    assert [(each.times, each.values, each.durations) for each in kept] == [
        (times, values, b""),
        (times, values, times),
    ]
    connection.close()


def test_how_far_a_projection_is_can_be_asked_without_opening_it_for_good(tmp_path: Path) -> None:
    path = tmp_path / "projection.db"
    assert usable(path) == 0
    connection = open_databases(tmp_path)
    connection.execute("INSERT INTO meta VALUES ('applied_seq', 42)")
    connection.commit()
    connection.close()
    assert usable(path) == 42
    path.write_bytes(b"not a database at all" * 300)
    assert usable(path) is None
    assert set_aside(path).name == "projection.db.aside-1"
    path.write_bytes(b"again")
    assert set_aside(path).name == "projection.db.aside-2"
    assert not path.exists()


async def test_where_no_file_can_be_made_the_lab_goes_on_in_memory_and_says_so(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "file"
    folder.write_text("no folder")
    store = await Store.open(folder)
    assert "records rest in memory" in store.degraded
    drill = history(3, 60)
    await store.project(drill.frames)
    count = await store.query(lambda db: db.execute("SELECT count(*) FROM runs").fetchone()[0])
    assert count == drill.lab.admitted
    with pytest.raises(Unavailable, match="in memory"):
        await store.backup(tmp_path / "copy.db")
    await store.close()


async def test_a_copy_is_whole_and_knows_its_sequence(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "store")
    frames = history(4, 60).frames
    await store.project(frames)
    assert await store.backup(tmp_path / "copy.db") == frames[-1][0]
    assert backup(tmp_path / "store", tmp_path / "copy.db") == frames[-1][0]
    assert usable(tmp_path / "copy.db") == frames[-1][0]
    await store.close()


async def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    frames = history(5, 500).frames
    await store.project(frames[:20])
    page_count = await store._writer.call(
        lambda db: int(db.execute("PRAGMA page_count").fetchone()[0])
    )
    await store._writer.call(lambda db: db.execute(f"PRAGMA max_page_count={page_count}"))
    with pytest.raises(StorageFull):
        await store.project(frames)
    assert store.applied == frames[19][0]
    await store._writer.call(lambda db: db.execute("PRAGMA max_page_count=1000000"))
    await store.project(frames)
    assert store.applied == frames[-1][0]
    await store.close()
