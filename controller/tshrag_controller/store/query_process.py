"""The process that carries out queries: no network, no files but the org's segments, bounded.

``python -m tshrag_controller.store.query_process``: questions come on stdin, answers go to
stdout, each with its length before it. Whoever started it ends it when a question takes too long.
"""

import contextlib
import math
import resource
import sqlite3
import struct
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec

from tshrag_common.errors import ErrorReport, LabError, Refused
from tshrag_controller.store import guard, parquet, segments
from tshrag_controller.store.schema import open_for_reading
from tshrag_controller.store.tail import FAR, Scope, Tail, Unpacked, read_tail

MOST_BYTES = 400_000
"""Of the rows in one answer, which has to fit into a message."""
MOST_ROWS = 50_000
MEMORY_MB, ROOM_MB = 320, 1400
HEAD = struct.Struct(">I")
_PAGE = 1000

Format = Literal["rows", "csv", "json", "parquet", "arrow"]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One query. ``folder``: of the stores; ``out``: the file of a format other than rows."""

    sql: str
    scope: Scope
    folder: str
    arguments: dict[str, str | float | int] = {}
    format: Format = "rows"
    out: str = ""
    limit: int = 1000


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of it; ``away`` names the segments that have to be fetched first."""

    names: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    rows: tuple[tuple[object, ...], ...] = ()
    more: bool = False
    away: tuple[str, ...] = ()
    error: ErrorReport | None = None


class Ready:
    """What makes an answer come sooner: the next database is open, chunks are unpacked."""

    def __init__(self) -> None:
        self.cache = Unpacked()
        self._spare: Any = None

    def prepare(self) -> None:
        if self._spare is None:
            self._spare = parquet.open_duckdb(f"{MEMORY_MB}MB")

    def take(self) -> Any:
        """Return a database that nobody has used; whoever takes it closes it."""
        self.prepare()
        taken, self._spare = self._spare, None
        return taken


def answer(asked: Ask, ready: Ready, *, again: bool = True) -> Told:
    """Carry out one query; what is wrong with it is told, never raised."""
    duckdb = parquet.duckdb()
    try:
        return _answer(asked, ready)
    except segments.SegmentsAway as away:
        return Told(away=away.names)
    except LabError as error:
        return Told(error=error.report())
    except duckdb.OutOfMemoryException:
        said = f"more than {MEMORY_MB} MB would be needed"
        fix = "ask for a shorter time, fewer keys, or for fewer groups"
        return Told(error=Refused("query", said, fix, code="query_memory").report())
    except (duckdb.Error, sqlite3.Error) as error:
        if isinstance(error, duckdb.IOException) and again:
            return answer(asked, ready, again=False)  # a segment was replaced meanwhile
        lines = [line for line in str(error).split("\n") if line.strip()]
        said = " ".join(lines[:2])[:400]
        return Told(error=Refused("SQL", said, code="query").report())


def _answer(asked: Ask, ready: Ready) -> Told:
    connection = ready.take()
    db = open_for_reading(Path(asked.folder))
    try:
        tree = connection.execute("SELECT json_serialize_sql(?)", [asked.sql]).fetchall()[0][0]
        used = guard.checked(tree.encode())
        sql = connection.execute("SELECT json_deserialize_sql(?)", [tree]).fetchall()[0][0]
        _make_views(connection, db, asked, used, ready.cache)
        connection.execute("SET enable_external_access=false; SET lock_configuration=true")
        if asked.format == "rows":
            return _rows(connection, sql, asked)
        _write(connection, sql, asked)
        return Told()
    finally:
        db.close()
        connection.close()


def _make_views(
    connection: Any, db: sqlite3.Connection, asked: Ask, used: frozenset[str], cache: Unpacked
) -> None:
    folder, scope = Path(asked.folder), asked.scope
    paths: list[Path] = []
    if used & {"samples", "series"}:
        tail = read_tail(db, scope, cache)
        paths = segments.present(folder, tail.segments)
        _view_samples(connection, tail, paths, scope)
    if "series" in used:
        connection.execute(_SERIES)
    for view, (sql, columns) in _RECORDS.items():
        if view in used:
            rows = db.execute(sql, (scope.org,)).fetchall()
            connection.execute(f"CREATE TABLE {view} ({columns})")
            for at in range(0, len(rows), _PAGE):
                _insert(connection, view, rows[at : at + _PAGE])
    allowed = [str(path) for path in paths] + ([asked.out] if asked.out else [])
    connection.execute("SET allowed_paths=" + "[" + ", ".join(map(_literal, allowed)) + "]")


def _insert(connection: Any, view: str, rows: Sequence[Sequence[object]]) -> None:
    marks = ", ".join("(" + ", ".join("?" * len(rows[0])) + ")" for _ in rows)
    values = [_instant(each) for row in rows for each in row]
    connection.execute(f"INSERT INTO {view} VALUES {marks}", values)


def _instant(value: object) -> object:
    """Return microseconds as an instant; no other number of these tables is that large."""
    large = isinstance(value, int) and value > 1 << 40
    return datetime.fromtimestamp(value / 1e6, UTC) if large and isinstance(value, int) else value


def _view_samples(connection: Any, tail: Tail, paths: Sequence[Path], scope: Scope) -> None:
    connection.register("tail", tail.arrays)
    parquet.register_labels(connection, tail.labels)
    conditions = []
    if scope.since > 0:
        conditions.append(f"time >= make_timestamp({scope.since})")
    if scope.until < FAR:
        conditions.append(f"time < make_timestamp({scope.until})")
    if scope.run:
        conditions.append(f"run = {_literal(scope.run)}")
    if scope.key:
        conditions.append(f"key GLOB {_literal(scope.key)}")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    columns = "time, value, duration_us, key, unit, type, run, job, attempt, agent, dut"
    duration = "duration" if "duration" in tail.arrays else "0::BIGINT"
    live = (
        f"SELECT {columns} FROM (SELECT make_timestamp(time) AS time, value, "
        f"{duration} AS duration_us, labels.* EXCLUDE (label, org) "
        f"FROM tail JOIN labels USING (label)){where}"
    )
    sealed = f" UNION ALL SELECT {columns} FROM {parquet.files(paths)}{where}" if paths else ""
    connection.execute(f"CREATE VIEW samples AS {live}{sealed}")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _rows(connection: Any, sql: str, asked: Ask) -> Told:
    most = min(asked.limit, MOST_ROWS)
    connection.execute(f"SELECT * FROM ({sql}) LIMIT {most + 1}", asked.arguments or None)
    names = tuple(str(column[0]) for column in connection.description)
    types = tuple(str(column[1]).lower() for column in connection.description)
    rows: list[tuple[object, ...]] = []
    size = 0
    while page := connection.fetchmany(_PAGE):
        for row in page:
            plain = tuple(map(_cell, row))
            size += len(msgspec.json.encode(plain)) + 1
            if size > MOST_BYTES or len(rows) == most:
                return Told(names=names, types=types, rows=tuple(rows), more=True)
            rows.append(plain)
    return Told(names=names, types=types, rows=tuple(rows))


def _cell(value: object) -> object:
    """Return a value as JSON can hold it: instants as ISO text, what is not finite as text."""
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, float | int | Decimal):
        return _number(value)
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    if isinstance(value, list | tuple):
        return [_cell(each) for each in value]
    if isinstance(value, dict):
        return {str(_cell(key)): _cell(each) for key, each in value.items()}
    return value.hex() if isinstance(value, bytes) else str(value)


def _number(value: float | Decimal) -> object:
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else float(value)
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _write(connection: Any, sql: str, asked: Ask) -> None:
    if asked.format == "arrow":
        from nanoarrow.ipc import StreamWriter

        with StreamWriter.from_path(asked.out) as writer:
            writer.write_stream(connection.sql(sql, params=asked.arguments or None))
        return
    how = {
        "csv": "FORMAT csv, HEADER, FORCE_QUOTE *",
        "json": "FORMAT json, ARRAY true",
        "parquet": "FORMAT parquet, COMPRESSION zstd",
    }[asked.format]
    if asked.format == "csv":
        sql = _harmless(connection, sql, asked)
    target = f"{_literal(asked.out)} ({how}, USE_TMP_FILE false)"
    connection.execute(f"COPY ({sql}) TO {target}", asked.arguments or None)


def _harmless(connection: Any, sql: str, asked: Ask) -> str:
    """Return the query with text that a spreadsheet would take for a formula made plain text."""
    described = connection.execute(f"DESCRIBE {sql}", asked.arguments or None).fetchall()
    columns = [_harmless_column(str(row[0]), str(row[1])) for row in described]
    return f"SELECT {', '.join(columns)} FROM ({sql})"


def _harmless_column(name: str, kind: str) -> str:
    quoted = '"' + name.replace('"', '""') + '"'
    shown = "'" + name if name[:1] in "=+-@\t\r" else name
    shown = '"' + shown.replace('"', '""') + '"'
    if kind != "VARCHAR":
        return f"{quoted} AS {shown}"
    return (
        f"CASE WHEN regexp_matches({quoted}, '^[=+@\\t\\r-]') THEN '''' || {quoted} "
        f"ELSE {quoted} END AS {shown}"
    )


def main() -> None:
    """Answer one question after the other, until stdin ends."""
    room = ROOM_MB << 20
    resource.setrlimit(resource.RLIMIT_DATA, (room, room))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    decoder, encoder = msgspec.msgpack.Decoder(Ask), msgspec.msgpack.Encoder()
    ready = Ready()
    ready.prepare()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    with contextlib.suppress(BrokenPipeError):
        while len(head := source.read(HEAD.size)) == HEAD.size:
            told = _safe(decoder.decode(source.read(HEAD.unpack(head)[0])), ready)
            data = encoder.encode(told)
            sink.write(HEAD.pack(len(data)) + data)
            sink.flush()
            ready.prepare()


def _safe(asked: Ask, ready: Ready) -> Told:
    try:
        return answer(asked, ready)
    except MemoryError:
        fix = "ask for a shorter time, or fewer keys"
        return Told(error=Refused("query", "out of memory", fix, code="query_memory").report())


_SERIES = (
    "CREATE VIEW series AS SELECT key, unit, type, run, job, attempt, agent, dut, "
    "count(*) AS samples, min(time) AS first_at, max(time) AS last_at FROM samples GROUP BY ALL"
)
_RECORDS: dict[str, tuple[str, str]] = {
    "runs": (
        "SELECT id, name, by, state, priority, created_at, nullif(started_at, 0), "
        "nullif(ended_at, 0), reason FROM runs WHERE org=? ORDER BY no",
        'run VARCHAR, name VARCHAR, "by" VARCHAR, state VARCHAR, priority BIGINT, '
        "created_at TIMESTAMP, started_at TIMESTAMP, ended_at TIMESTAMP, reason VARCHAR",
    ),
    "jobs": (
        "SELECT replace(r.id, 'run-', 'job-') || '-' || printf('%03d', j.serial), r.id, j.name, "
        "j.state, nullif(j.started_at, 0), nullif(j.ended_at, 0) FROM jobs j "
        "JOIN runs r ON r.no = j.run WHERE r.org=? ORDER BY j.run, j.serial",
        "job VARCHAR, run VARCHAR, name VARCHAR, state VARCHAR, started_at TIMESTAMP, "
        "ended_at TIMESTAMP",
    ),
}

if __name__ == "__main__":
    main()
