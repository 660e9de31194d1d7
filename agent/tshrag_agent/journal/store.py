"""The SQLite file of the journal; everything here is used by one thread at a time.

WAL with synchronous FULL: a commit is one fsync of the WAL, and what it holds survives a power
cut. Numbers of records go on behind what was trimmed: ``confirmed`` is kept.
"""

import re
import secrets
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tshrag_agent.journal.records import (
    RECORD_OVERHEAD_BYTES,
    SPOOLS,
    AgentsOf,
    Append,
    AttemptRow,
    Begin,
    Change,
    Confirm,
    DutFence,
    End,
    HandedOver,
    Heard,
    Launched,
    LeaseGone,
    LeaseKept,
    Pumped,
    Record,
    SetupKept,
    SpoolName,
    checksum,
    cost_bytes,
    sound,
)
from tshrag_common.errors import LabError
from tshrag_common.failpoints import failpoint
from tshrag_common.ids import DutId, Fence

_FORMAT = 1
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE duts (dut TEXT PRIMARY KEY, fence INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE attempts (
  fence INTEGER PRIMARY KEY, start BLOB NOT NULL, spec BLOB NOT NULL,
  started_at INTEGER NOT NULL, files TEXT NOT NULL, stdout INTEGER NOT NULL,
  stderr INTEGER NOT NULL, samples_upto INTEGER NOT NULL, output_upto INTEGER NOT NULL,
  ended_seq INTEGER NOT NULL);
CREATE INDEX attempts_ended ON attempts (ended_seq) WHERE ended_seq > 0;
CREATE TABLE reports (seq INTEGER PRIMARY KEY, body BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE samples (seq INTEGER PRIMARY KEY, body BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE output (seq INTEGER PRIMARY KEY, body BLOB NOT NULL, crc INTEGER NOT NULL);
"""


_LATER = """
CREATE TABLE IF NOT EXISTS setups (dut TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
  dut TEXT PRIMARY KEY, fence INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
"""
"""Came later than the format: a journal that has none gets them."""


_PAGE = re.compile(r"[Pp]age (\d+)")
_KILLED = "killed_"
_FORGET_KILLED = f"""DELETE FROM meta WHERE name IN
  (SELECT '{_KILLED}' || fence FROM attempts WHERE ended_seq BETWEEN 1 AND ?)"""


class SpoolCorrupt(LabError):
    """The journal's file is damaged; it is set aside and a new one is made at the next start."""

    code = "spool_corrupt"
    retryable = True


class SpoolHead(msgspec.Struct):
    """Where a spool stands; mutable, and belongs to the store."""

    spool: str
    last: int = 0
    confirmed: int = 0
    size_bytes: int = 0


class Store:
    """The open file."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path`, or make it.

        Raises:
            SpoolCorrupt: it is no journal, is damaged, or is of a format that is not known.

        """
        self.path = path
        self.heads: dict[SpoolName, SpoolHead] = {}
        self.damage = ""  # of the file that was here before
        fresh = not path.exists()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._open(fresh)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise SpoolCorrupt(path.name, str(error)) from None
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def commit(self, changes: Iterable[Change]) -> list[int]:
        """Carry out all of `changes` or none; return the last number after each Append, else 0."""
        before = {name: msgspec.structs.replace(head) for name, head in self.heads.items()}
        self._db.execute("BEGIN IMMEDIATE")
        try:
            numbers = [self._apply(change) for change in changes]
            self._db.execute("COMMIT")
        except BaseException:
            self.heads = before
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return numbers

    def read(self, spool: SpoolName, from_seq: int, most_bytes: int) -> list[Record]:
        """Return records from `from_seq` on, at least one if there is one.

        Whoever asks does not know yet of what was confirmed a moment ago: that is passed over, as
        it is gone and not damaged.

        Raises:
            SpoolCorrupt: the first of them is damaged.

        """
        from_seq = max(from_seq, self.heads[spool].confirmed + 1)
        rows = self._db.execute(
            f"SELECT seq, body, crc FROM {spool} WHERE seq >= ? ORDER BY seq", (from_seq,)
        )
        records: list[Record] = []
        size = 0
        for record in sound(rows, from_seq):
            size += len(record.body)
            if records and size > most_bytes:
                break
            records.append(record)
        rows.close()
        if not records and from_seq <= self.heads[spool].last:
            raise SpoolCorrupt(self.path.name, f"record {from_seq} of {spool} is damaged")
        return records

    def attempts(self) -> list[AttemptRow]:
        """Return every attempt that is not confirmed as ended, oldest first."""
        rows = self._db.execute(
            "SELECT fence, start, spec, started_at, files, stdout, stderr, samples_upto,"
            " output_upto, ended_seq FROM attempts ORDER BY fence"
        )
        return [
            AttemptRow(**dict(zip(AttemptRow.__struct_fields__, row, strict=True))) for row in rows
        ]

    def duts(self) -> dict[DutId, Fence]:
        return dict(self._db.execute("SELECT dut, fence FROM duts"))

    def leases(self) -> list[bytes]:
        """Return who held which DUT, as the commands came."""
        return [bytes(row[0]) for row in self._db.execute("SELECT body FROM leases ORDER BY dut")]

    def setups(self) -> dict[DutId, bytes]:
        """Return what each DUT carries, as it was kept."""
        return {dut: bytes(body) for dut, body in self._db.execute("SELECT dut, body FROM setups")}

    def heard(self) -> tuple[int, int]:
        return int(self._meta("epoch", 0)), int(self._meta("n", 0))

    def killed(self) -> dict[Fence, int]:
        """Return for attempts how many agents were killed while they ran."""
        rows = self._db.execute(f"SELECT name, value FROM meta WHERE name GLOB '{_KILLED}*'")
        return {Fence(int(name.removeprefix(_KILLED))): int(value) for name, value in rows}

    def handed_over(self) -> bool:
        return bool(self._meta("handed_over", 0))

    def _open(self, fresh: bool) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA cache_size = -1024")
        self._db.execute("PRAGMA temp_store = MEMORY")
        if fresh or not self._db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
            self._make()
        elif self._db.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
            raise SpoolCorrupt(self.path.name, "its format is not known to this version")
        self._db.executescript(_LATER)
        said = str(self._db.execute("PRAGMA quick_check(1)").fetchone()[0])
        if said != "ok":
            page = _PAGE.search(said)
            raise SpoolCorrupt(self.path.name, f"page {page[1]}" if page else said[:200])
        self.heads = {name: self._head(name) for name in SPOOLS}
        for name in SPOOLS:
            self._check_records(name)

    def _check_records(self, name: SpoolName) -> None:
        """Read every record once: SQLite does not see a bit that has flipped in a body."""
        head = self.heads[name]
        rows = self._db.execute(f"SELECT seq, body, crc FROM {name} ORDER BY seq")
        last = head.confirmed
        for record in sound(rows, head.confirmed + 1):
            last = record.seq
        rows.close()
        if last != head.last:
            raise SpoolCorrupt(self.path.name, f"record {last + 1} of {name} is damaged")

    def _make(self) -> None:
        ids = "".join(
            f"INSERT INTO meta VALUES ('spool_{name}', '{secrets.token_hex(8)}');"
            for name in SPOOLS
        )
        self._db.executescript(f"BEGIN;{_SCHEMA}{ids}PRAGMA user_version = {_FORMAT};COMMIT;")

    def _meta(self, name: str, default: int | str) -> int | str:
        row: tuple[int | str] | None = self._db.execute(
            "SELECT value FROM meta WHERE name = ?", (name,)
        ).fetchone()
        return default if row is None else row[0]

    def _set_meta(self, name: str, value: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def _head(self, name: SpoolName) -> SpoolHead:
        confirmed = int(self._meta(f"confirmed_{name}", 0))
        last, count, size = self._db.execute(
            f"SELECT MAX(seq), COUNT(*), SUM(LENGTH(body)) FROM {name}"
        ).fetchone()
        last = max(last or 0, confirmed)
        if count != last - confirmed:
            raise SpoolCorrupt(self.path.name, f"spool {name} has a gap")
        spool = str(self._meta(f"spool_{name}", ""))
        size_bytes = (size or 0) + RECORD_OVERHEAD_BYTES * count
        return SpoolHead(spool, last=last, confirmed=confirmed, size_bytes=size_bytes)

    def _apply(self, change: Change) -> int:
        match change:
            case Append():
                return self._append(change)
            case Begin(row):
                marks = ", ".join("?" * len(AttemptRow.__struct_fields__))
                values = msgspec.structs.astuple(row)
                self._db.execute(f"INSERT OR IGNORE INTO attempts VALUES ({marks})", values)
            case Pumped():
                self._pumped(change)
            case Confirm():
                self._confirm(change)
            case AgentsOf(fence, killed):
                self._set_meta(f"{_KILLED}{fence}", killed)
            case HandedOver(on):
                self._set_meta("handed_over", int(on))
            case _:
                self._note(change)
        return 0

    def _note(
        self,
        change: Launched | End | Heard | DutFence | LeaseKept | LeaseGone | SetupKept,
    ) -> None:
        match change:
            case End(fence):
                seq = self.heads["reports"].last
                self._db.execute("UPDATE attempts SET ended_seq = ? WHERE fence = ?", (seq, fence))
            case Launched(fence, started_at):
                self._db.execute(
                    "UPDATE attempts SET started_at = ? WHERE fence = ?", (started_at, fence)
                )
            case Heard(epoch, n):
                self._set_meta("epoch", epoch)
                self._set_meta("n", n)
            case DutFence(dut, fence):
                self._db.execute("INSERT OR REPLACE INTO duts VALUES (?, ?)", (dut, fence))
            case LeaseKept(dut, fence, body):
                self._db.execute(
                    "INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (dut, fence, body)
                )
            case LeaseGone(fence):
                self._db.execute("DELETE FROM leases WHERE fence = ?", (fence,))
            case SetupKept(dut, body):
                self._keep_setup(dut, body)

    def _keep_setup(self, dut: DutId, body: bytes) -> None:
        if body:
            self._db.execute("INSERT OR REPLACE INTO setups VALUES (?, ?)", (dut, body))
        else:
            self._db.execute("DELETE FROM setups WHERE dut = ?", (dut,))

    def _append(self, change: Append) -> int:
        head = self.heads[change.spool]
        first = head.last + 1
        self._db.executemany(
            f"INSERT INTO {change.spool} VALUES (?, ?, ?)",
            [(seq, body, checksum(seq, body)) for seq, body in enumerate(change.bodies, first)],
        )
        head.last += len(change.bodies)
        head.size_bytes += cost_bytes(change.bodies)
        return head.last

    def _pumped(self, change: Pumped) -> None:
        self._db.execute(
            "UPDATE attempts SET stdout = ?, stderr = ?, files = ? WHERE fence = ?",
            (change.stdout, change.stderr, change.files, change.fence),
        )
        for marked, column, spool in (
            (change.marks_samples, "samples_upto", self.heads["samples"]),
            (change.marks_output, "output_upto", self.heads["output"]),
        ):
            if marked:
                self._db.execute(
                    f"UPDATE attempts SET {column} = ? WHERE fence = ?", (spool.last, change.fence)
                )

    def _confirm(self, change: Confirm) -> None:
        head = self.heads[change.spool]
        upto = min(change.upto, head.last)
        if upto <= head.confirmed:
            return
        count, size = self._db.execute(
            f"SELECT COUNT(*), SUM(LENGTH(body)) FROM {change.spool} WHERE seq <= ?", (upto,)
        ).fetchone()
        self._db.execute(f"DELETE FROM {change.spool} WHERE seq <= ?", (upto,))
        failpoint("journal.trimming")
        self._set_meta(f"confirmed_{change.spool}", upto)
        if change.spool == "reports":
            self._db.execute(_FORGET_KILLED, (upto,))
            self._db.execute("DELETE FROM attempts WHERE ended_seq BETWEEN 1 AND ?", (upto,))
        head.confirmed = upto
        head.size_bytes -= (size or 0) + RECORD_OVERHEAD_BYTES * count
