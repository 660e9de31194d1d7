"""The tables of the projection and of the hot store, and their migrations, in order.

Two files: the projection may be deleted at any time, it is made again from checkpoint and LOG;
the hot store is where samples of the last days rest. Runs have a short number, the same after a
rebuild, so that rows of jobs, attempts and samples stay small.
"""

import sqlite3
from pathlib import Path

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from tshrag_common.errors import Refused
from tshrag_controller.store import channel_rows, intent_rows, lease_rows, own_counters, sign_rows
from tshrag_controller.store.marks import AHEAD

PROJECTION, HOT = "projection.db", "hot.db"
MOST_CHECKED_BYTES = 512 << 20
"""Larger files are not read as a whole at a start; their damage shows when it is met."""
VERSION = 9
"""Of the schema; a file made by a newer build is refused."""

migrations = Migrations("projection")
hot_migrations = Migrations("hot")


class SchemaTooNew(Refused):
    """The file was written by a newer build."""

    code = "schema"


@migrations()
def m0001_runs(db: Database) -> None:
    _execute(
        db,
        """
        CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
        CREATE TABLE runs (
            no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, org TEXT NOT NULL,
            by TEXT NOT NULL, key TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL,
            priority INTEGER NOT NULL, created_at INTEGER NOT NULL,
            started_at INTEGER NOT NULL DEFAULT 0, ended_at INTEGER NOT NULL DEFAULT 0,
            total INTEGER NOT NULL, reason TEXT NOT NULL DEFAULT '',
            evidence BLOB, loads BLOB, criteria BLOB, profile BLOB,
            retry_of TEXT NOT NULL DEFAULT '', seed INTEGER NOT NULL
        );
        CREATE INDEX runs_org ON runs (org, no);
        CREATE INDEX runs_key ON runs (org, key) WHERE key != '';
        CREATE TABLE jobs (
            run INTEGER NOT NULL, serial INTEGER NOT NULL, name TEXT NOT NULL,
            spec INTEGER NOT NULL, state TEXT NOT NULL, after TEXT NOT NULL DEFAULT '',
            started_at INTEGER NOT NULL DEFAULT 0, ended_at INTEGER NOT NULL DEFAULT 0,
            fence INTEGER NOT NULL DEFAULT 0, error BLOB, PRIMARY KEY (run, serial)
        ) WITHOUT ROWID;
        CREATE TABLE specs (
            run INTEGER NOT NULL, no INTEGER NOT NULL, kind TEXT NOT NULL, what TEXT NOT NULL,
            target TEXT NOT NULL, spec BLOB NOT NULL, PRIMARY KEY (run, no)
        ) WITHOUT ROWID;
        CREATE TABLE attempts (
            fence INTEGER PRIMARY KEY, run INTEGER NOT NULL, serial INTEGER NOT NULL,
            number INTEGER NOT NULL, agent TEXT NOT NULL, dut TEXT NOT NULL DEFAULT '',
            state TEXT NOT NULL, assigned_at INTEGER NOT NULL,
            started_at INTEGER NOT NULL DEFAULT 0, ended_at INTEGER NOT NULL DEFAULT 0,
            ended BLOB, reason TEXT NOT NULL DEFAULT ''
        );
        CREATE INDEX attempts_job ON attempts (run, serial);
        CREATE TABLE timeline (
            run INTEGER NOT NULL, seq INTEGER NOT NULL, no INTEGER NOT NULL, at INTEGER NOT NULL,
            what TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (run, seq, no)
        ) WITHOUT ROWID;
        CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE spools (
            agent TEXT NOT NULL, kind TEXT NOT NULL, spool TEXT NOT NULL, upto INTEGER NOT NULL,
            PRIMARY KEY (agent, kind)
        ) WITHOUT ROWID;
        CREATE TABLE set_aside (
            no INTEGER PRIMARY KEY, at INTEGER NOT NULL, subject TEXT NOT NULL,
            reason TEXT NOT NULL, data BLOB NOT NULL
        );
        """,
    )


@migrations()
def m0002_leases(db: Database) -> None:
    _execute(db, lease_rows.TABLES)


@migrations()
def m0003_audit(db: Database) -> None:
    _execute(db, intent_rows.TABLES)


@migrations()
def m0004_signs(db: Database) -> None:
    _execute(db, sign_rows.TABLES)


@migrations()
def m0005_gangs(db: Database) -> None:
    _execute(db, "ALTER TABLE jobs ADD COLUMN gang INTEGER NOT NULL DEFAULT 0")


@migrations()
def m0006_channels(db: Database) -> None:
    _execute(db, channel_rows.TABLES)


@migrations()
def m0007_own_counters(db: Database) -> None:
    _execute(db, own_counters.FIRST_COUNT)


@hot_migrations()
def h0001_samples(db: Database) -> None:
    _execute(
        db,
        """
        CREATE TABLE series (
            id INTEGER PRIMARY KEY, run INTEGER NOT NULL, serial INTEGER NOT NULL,
            attempt INTEGER NOT NULL, agent TEXT NOT NULL, dut TEXT NOT NULL, key TEXT NOT NULL,
            unit TEXT NOT NULL DEFAULT '', type TEXT NOT NULL DEFAULT 'gauge',
            UNIQUE (run, key, serial, attempt, agent, dut)
        );
        CREATE TABLE chunks (
            series INTEGER NOT NULL, no INTEGER NOT NULL, count INTEGER NOT NULL,
            first_at INTEGER NOT NULL, last_at INTEGER NOT NULL,
            at BLOB NOT NULL, value BLOB NOT NULL, duration BLOB,
            PRIMARY KEY (series, no)
        ) WITHOUT ROWID;
        CREATE TABLE marks (
            agent TEXT NOT NULL, kind TEXT NOT NULL, spool TEXT NOT NULL, upto INTEGER NOT NULL,
            PRIMARY KEY (agent, kind)
        ) WITHOUT ROWID;
        CREATE TABLE totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
        """,
    )


@hot_migrations()
def h0002_refused(db: Database) -> None:
    _execute(
        db,
        """
        CREATE TABLE refused (
            run INTEGER NOT NULL, serial INTEGER NOT NULL, attempt INTEGER NOT NULL,
            key TEXT NOT NULL, count INTEGER NOT NULL, reason TEXT NOT NULL,
            PRIMARY KEY (run, serial, attempt, key)
        ) WITHOUT ROWID;
        """,
    )


@hot_migrations()
def h0003_old_marks(db: Database) -> None:
    _execute(
        db,
        """
        CREATE TABLE old_marks (
            agent TEXT NOT NULL, kind TEXT NOT NULL, spool TEXT NOT NULL, upto INTEGER NOT NULL,
            PRIMARY KEY (agent, kind, spool)
        ) WITHOUT ROWID;
        """,
    )


@hot_migrations()
def h0004_partitions(db: Database) -> None:
    _execute(
        db,
        """
        CREATE TABLE partitions (
            no INTEGER PRIMARY KEY AUTOINCREMENT, day TEXT NOT NULL, samples INTEGER NOT NULL,
            state TEXT NOT NULL
        );
        CREATE TABLE segments (
            no INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, org TEXT NOT NULL,
            day TEXT NOT NULL, samples INTEGER NOT NULL, bytes INTEGER NOT NULL,
            first_at INTEGER NOT NULL, last_at INTEGER NOT NULL, sha256 TEXT NOT NULL,
            place TEXT NOT NULL, sealed_at INTEGER NOT NULL
        );
        CREATE TABLE segment_runs (
            run TEXT NOT NULL, segment INTEGER NOT NULL, samples INTEGER NOT NULL,
            PRIMARY KEY (run, segment)
        ) WITHOUT ROWID;
        CREATE TABLE garbage (
            name TEXT NOT NULL, place TEXT NOT NULL, at INTEGER NOT NULL,
            PRIMARY KEY (name, place)
        ) WITHOUT ROWID;
        CREATE TABLE facts (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
        """,
    )
    db.conn.execute("INSERT INTO facts VALUES ('store', lower(hex(randomblob(4))))")
    if db.conn.execute("SELECT 1 FROM chunks LIMIT 1").fetchone():
        _carry_over(db.conn)
    db.conn.execute("DROP TABLE chunks")


@hot_migrations()
def h0005_ahead(db: Database) -> None:
    db.conn.execute(AHEAD)


def _carry_over(hot: sqlite3.Connection) -> None:
    """Make one closed partition of the chunks that an earlier build has left."""
    hot.execute("INSERT INTO partitions SELECT 1, '', sum(count), 'closed' FROM chunks")
    for statement in (
        "CREATE TABLE chunks_1 (id INTEGER PRIMARY KEY, series INTEGER NOT NULL, "
        "count INTEGER NOT NULL, first_at INTEGER NOT NULL, last_at INTEGER NOT NULL, "
        "at BLOB NOT NULL, value BLOB NOT NULL, duration BLOB)",
        "CREATE INDEX chunks_1_series ON chunks_1 (series, id, count)",
    ):
        hot.execute(statement)
    rows = hot.execute("SELECT * FROM chunks ORDER BY series, no")
    plain = ((*row[:1], *row[2:5], *(each and b"p" + each for each in row[5:])) for row in rows)
    hot.executemany(
        "INSERT INTO chunks_1 (series, count, first_at, last_at, at, value, duration) "
        "VALUES (?,?,?,?,?,?,?)",
        plain,
    )


def _execute(db: Database, statements: str) -> None:
    """Execute several statements inside the migration's transaction (executescript ends it)."""
    for statement in statements.split(";"):
        if statement.strip():
            db.conn.execute(statement)


def open_databases(folder: Path | None) -> sqlite3.Connection:
    """Open (or make) both databases below `folder`, or in memory; bring them up to date.

    The projection is the main one; the hot store is attached as ``hot``.

    Raises:
        SchemaTooNew: a newer build wrote one of them.
        sqlite3.Error: one is damaged, or cannot be opened.

    """
    paths = [str(folder / name) if folder else ":memory:" for name in (PROJECTION, HOT)]
    connection = _open(paths[0], migrations)
    try:
        hot = _open(paths[1], hot_migrations)
    except BaseException:
        connection.close()
        raise
    if folder is None:
        connection.execute("ATTACH ':memory:' AS hot")
        tables = "SELECT name, sql FROM sqlite_master WHERE type='table'"
        for name, statement in hot.execute(tables):
            if not name.startswith(("_sqlite_", "sqlite_")):
                connection.execute(statement.replace("CREATE TABLE ", "CREATE TABLE hot.", 1))
        connection.execute("INSERT INTO hot.facts VALUES ('store', 'memory')")
    else:
        connection.execute("ATTACH ? AS hot", (paths[1],))
        connection.execute("PRAGMA hot.synchronous=FULL")  # nothing can make samples anew
    hot.close()
    return connection


def _open(path: str, steps: Migrations) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        _bring_up_to_date(connection, path, steps)
    except BaseException:
        connection.close()
        raise
    return connection


def _bring_up_to_date(connection: sqlite3.Connection, path: str, steps: Migrations) -> None:
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # of a new file: it can shrink
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")  # the LOG is the truth; this can be rebuilt
    connection.execute("PRAGMA temp_store=MEMORY")
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > VERSION:
        raise SchemaTooNew(path, f"{found} > {VERSION}", "upgrade")
    steps.apply(Database(connection))
    connection.execute(f"PRAGMA user_version={VERSION}")
    connection.commit()


def usable(path: Path) -> int | None:
    """Return the ``applied_seq`` in a database (0: none yet); None where it cannot be read."""
    if not path.exists():
        return 0
    torn = path.with_name(path.name + "-wal").exists()  # whoever wrote last did not close it
    connection = sqlite3.connect(path)
    try:
        checked = torn and path.stat().st_size < MOST_CHECKED_BYTES
        if checked and connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            return None
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
        if ("meta",) not in tables:
            return 0
        row = connection.execute("SELECT value FROM meta WHERE key='applied_seq'").fetchone()
        return int(row[0]) if row else 0
    except (sqlite3.DatabaseError, TypeError, ValueError):
        return None
    finally:
        connection.close()


def set_aside(path: Path) -> Path:
    """Move a database that is of no use out of the way; return where it is now."""
    number = 1
    while (kept := path.with_name(f"{path.name}.aside-{number}")).exists():
        number += 1
    path.rename(kept)
    discard_journals(path)
    return kept


def discard_journals(path: Path) -> None:
    """Remove what SQLite left beside a database that is gone: it must not flow into a new one."""
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def open_for_reading(folder: Path) -> sqlite3.Connection:
    """Open both databases for a reader; it never waits for the writer."""
    uri = f"file:{folder / PROJECTION}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
    connection.execute("ATTACH ? AS hot", (f"file:{folder / HOT}?mode=ro",))
    connection.execute("PRAGMA query_only=1")
    return connection


def backup(folder: Path, path: Path) -> int:
    """Copy the projection as it is at one instant; return its sequence. Blocks: for a thread."""
    path.unlink(missing_ok=True)
    source = sqlite3.connect(f"file:{folder / PROJECTION}?mode=ro", uri=True)
    target = sqlite3.connect(path)
    try:
        source.backup(target)
        row = target.execute("SELECT value FROM meta WHERE key='applied_seq'").fetchone()
        return int(row[0]) if row else 0
    finally:
        source.close()
        target.close()
