"""The door to DuckDB and Parquet: segments written, verified, read back.

A segment is one zstd Parquet file of one org, sorted by run, key, job, attempt, agent, DUT, time;
it tells everything about its samples by itself. duckdb and numpy come with the extra ``cold`` and
are imported when the first segment is met.
"""

import hashlib
import os
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tshrag_common.errors import Refused, Unavailable
from tshrag_controller.store.partitions import Chunk

SEGMENT_SAMPLES = 4_000_000
MEMORY, THREADS = "384MB", 2
FORMAT = (
    "FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION V2, ROW_GROUP_SIZE 122880, "
    "USE_TMP_FILE false"
)
NAMES = ("org", "run", "key", "job", "attempt", "agent", "dut", "unit", "type")


class ColdMissing(Refused):
    """A library of the extra ``cold`` is not installed."""

    code = "extra_missing"


class SegmentDamaged(Unavailable):
    """A segment is not what was written, or cannot be read."""

    code = "segment_damaged"


class Label(msgspec.Struct, frozen=True, array_like=True):
    """What a series is of; lab samples of hosts have no org, no run, no job."""

    org: str
    run: str
    key: str
    job: str
    attempt: int
    agent: str
    dut: str
    unit: str
    type: str

    @property
    def row(self) -> tuple[object, ...]:
        return msgspec.structs.astuple(self)


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A segment on the disk, with what the registry has to know of it."""

    name: str
    org: str
    day: str
    samples: int
    bytes: int
    first_at: int
    last_at: int
    sha256: str
    runs: dict[str, int]


def duckdb() -> Any:
    """Return the module.

    Raises:
        ColdMissing: the extra is not installed.

    """
    try:
        import duckdb as module
        import numpy  # noqa: F401  # duckdb hands columns over as its arrays
    except ImportError as error:
        fix = "pip install 'tshrag-controller[cold]'"
        raise ColdMissing("store", f"{error.name} is not installed", fix) from None
    return module


def open_duckdb(memory: str = MEMORY, threads: int = THREADS) -> Any:
    """Return a database in memory that takes names from nowhere else and spills nothing."""
    config = {
        "memory_limit": memory,
        "threads": threads,
        "temp_directory": "",
        "python_enable_replacements": "false",
    }
    connection = duckdb().connect(":memory:", config=config)
    connection.execute("SET TimeZone='UTC'; SET preserve_insertion_order=false")
    return connection


class SegmentWriter:
    """Writes the samples of one org and day, in the order of their labels, into segments."""

    def __init__(self, folder: Path, org: str, day: str, stem: str) -> None:
        self._folder, self._org, self._day, self._stem = folder, org, day, stem
        self._labels: list[Label] = []
        self._chunks: list[tuple[int, Chunk]] = []
        self._samples = 0
        self.written: list[Written] = []

    def add(self, label: Label, chunks: Iterable[Chunk]) -> None:
        """Take all chunks of a series."""
        for chunk in chunks:
            if not self._labels or self._labels[-1] != label:
                self._labels.append(label)
            self._chunks.append((len(self._labels) - 1, chunk))
            self._samples += chunk.count
            if self._samples >= SEGMENT_SAMPLES:
                self.flush()

    def flush(self) -> None:
        """Write what has gathered."""
        if not self._chunks:
            return
        name = f"{self._org or '_lab'}/{self._day}/{self._stem}-{len(self.written):04d}.parquet"
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = open_duckdb()
        try:
            _load(connection, self._labels, self._chunks)
            said = _copy(connection, path)
        finally:
            connection.close()
        size, digest = sync_and_digest(path)
        runs = dict[str, int]()
        for number, chunk in self._chunks:
            run = self._labels[number].run
            runs[run] = runs.get(run, 0) + chunk.count
        self.written.append(
            Written(
                name=name, org=self._org, day=self._day, samples=said[0], bytes=size,
                first_at=said[1], last_at=said[2], sha256=digest, runs=runs,
            )
        )  # fmt: skip
        self._labels, self._chunks, self._samples = [], [], 0


def _load(connection: Any, labels: Sequence[Label], chunks: Sequence[tuple[int, Chunk]]) -> None:
    import numpy as np

    counts = [chunk.count for _, chunk in chunks]
    slab = {
        "label": np.repeat(np.array([number for number, _ in chunks], "i4"), counts),
        "time": np.frombuffer(b"".join(chunk.times for _, chunk in chunks), "<i8"),
        "value": np.frombuffer(b"".join(chunk.values for _, chunk in chunks), "<f8"),
        "duration": np.frombuffer(
            b"".join(chunk.durations or bytes(len(chunk.times)) for _, chunk in chunks), "<i8"
        ),
    }
    connection.register("slab", slab)
    register_labels(connection, labels)


def register_labels(connection: Any, labels: Sequence[Label], name: str = "labels") -> None:
    """Make a table of labels with their places as ``label``."""
    import numpy as np

    columns = {
        each: np.array([getattr(label, each) for label in labels] or [""], dtype=object)
        for each in NAMES
        if each != "attempt"
    }
    known = {
        "label": np.arange(max(1, len(labels)), dtype="i4"),
        "attempt": np.array([label.attempt for label in labels] or [0], "i4"),
        **columns,
    }
    connection.register(f"{name}_arrays", known)
    limit = "" if labels else " LIMIT 0"
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_arrays{limit}")
    connection.unregister(f"{name}_arrays")


_SUM = (
    "count(*), min(time), max(time), bit_xor(hash(time, value, duration)), sum(hash(time) % 65537)"
)


def _copy(connection: Any, path: Path) -> tuple[int, int, int]:
    """Write the slab; read it back, and refuse what is not bit by bit the same."""
    connection.execute(
        "COPY (SELECT org, run, key, job, attempt, agent, dut, unit, type, "
        "make_timestamp(time) AS time, value, duration AS duration_us "
        "FROM slab JOIN labels USING (label) "
        "ORDER BY org, run, key, job, attempt, agent, dut, time) "
        f"TO {repr_of(path)} ({FORMAT})"
    )
    wanted = connection.execute(f"SELECT {_SUM} FROM slab").fetchall()[0]
    found = connection.execute(
        f"SELECT {_SUM} FROM (SELECT epoch_us(time) AS time, value, duration_us AS duration "
        f"FROM {files([path])})"
    ).fetchall()[0]
    if wanted != found:
        raise SegmentDamaged(path.name, "what was read back is not what was written")
    return int(wanted[0]), int(wanted[1]), int(wanted[2])


def files(paths: Iterable[Path]) -> str:
    """Return ``read_parquet`` of files as SQL."""
    return f"read_parquet([{', '.join(repr_of(path) for path in paths)}])"


def repr_of(path: Path) -> str:
    """Return a path as a literal of SQL."""
    return "'" + str(path).replace("'", "''") + "'"


def sync_and_digest(path: Path) -> tuple[int, str]:
    """Bring a file and its name to the disk; return its size and sha256."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path.stat().st_size, digest


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """The samples of one series in segments."""

    label: Label
    times: "array[int]"
    values: "array[float]"
    durations: "array[int]"


def read(paths: Sequence[Path], run: str, key_glob: str, job: str = "") -> list[Sealed]:
    """Return the series of a run in `paths` whose keys match a GLOB.

    Raises:
        SegmentDamaged: a file is gone, or is no Parquet.

    """
    connection = open_duckdb()
    try:
        return _read(connection, files(paths), run, key_glob, job)
    except duckdb().Error as error:
        raise SegmentDamaged("segments", str(error)[:300]) from None
    finally:
        connection.close()


def _read(connection: Any, source: str, run: str, key_glob: str, job: str) -> list[Sealed]:
    condition = "WHERE run = $run AND key GLOB $key" + (" AND job = $job" if job else "")
    asked = {"run": run, "key": key_glob, **({"job": job} if job else {})}
    names = ", ".join(NAMES)
    rows = connection.execute(
        f"SELECT DISTINCT {names} FROM {source} {condition} ORDER BY {names}", asked
    ).fetchall()
    labels = [Label(*row) for row in rows]
    register_labels(connection, labels)
    found = connection.execute(
        f"SELECT label, epoch_us(time) AS time, value, duration_us FROM {source} "
        f"JOIN labels USING ({names}) {condition.replace('run =', 'labels.run =')} "
        "ORDER BY label, time",
        asked,
    ).fetchnumpy()
    return _split(labels, found)


def _split(labels: Sequence[Label], found: Any) -> list[Sealed]:
    import numpy as np

    edges = np.searchsorted(found["label"], np.arange(len(labels) + 1))
    return [
        Sealed(
            label=label,
            times=array("q", found["time"][start:end].tobytes()),
            values=array("d", found["value"][start:end].tobytes()),
            durations=array("q", found["duration_us"][start:end].tobytes()),
        )
        for label, start, end in zip(labels, edges, edges[1:], strict=False)
    ]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment says of itself."""

    org: str
    samples: int
    first_at: int
    last_at: int
    runs: dict[str, int]


def facts_of(path: Path) -> Facts:
    """Read what a segment holds.

    Raises:
        SegmentDamaged: it cannot be read, or is of several orgs.

    """
    connection = open_duckdb()
    source = files([path])
    try:
        rows = connection.execute(
            f"SELECT org, run, count(*), epoch_us(min(time)), epoch_us(max(time)) FROM {source} "
            "GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    except duckdb().Error as error:
        raise SegmentDamaged(path.name, str(error)[:300]) from None
    finally:
        connection.close()
    orgs = {str(row[0]) for row in rows}
    if len(orgs) != 1:
        raise SegmentDamaged(path.name, f"samples of {len(orgs)} orgs")
    return Facts(
        org=orgs.pop(),
        samples=sum(row[2] for row in rows),
        first_at=min(row[3] for row in rows),
        last_at=max(row[4] for row in rows),
        runs={str(row[1]): int(row[2]) for row in rows},
    )


def join(paths: Sequence[Path], target: Path) -> None:
    """Write the samples of segments into one file, in the order of a segment."""
    target.parent.mkdir(parents=True, exist_ok=True)
    connection = open_duckdb()
    try:
        names = ", ".join(NAMES)
        connection.execute(
            f"COPY (SELECT * FROM {files(paths)} ORDER BY org, run, key, job, attempt, agent, dut, "
            f"time) TO {repr_of(target)} ({FORMAT})"
        )
        summed = f"SELECT count(*), bit_xor(hash({names}, time, value, duration_us)) FROM "
        wanted = connection.execute(summed + files(paths)).fetchall()[0]
        if wanted != connection.execute(summed + files([target])).fetchall()[0]:
            raise SegmentDamaged(target.name, "what was read back is not what was written")
    except duckdb().Error as error:
        raise SegmentDamaged(target.name, str(error)[:300]) from None
    finally:
        connection.close()
