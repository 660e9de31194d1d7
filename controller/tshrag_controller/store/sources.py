"""What a verdict rests on: the samples of the newest attempt of each job, and what is missing.

A job that declares a metric and has run must have samples of it: silence never passes. What its
agent, or we, did not take is counted as missing; a source that was given up is stale.
"""

import sqlite3
from collections.abc import Iterable

import msgspec

from tshrag_common import ids
from tshrag_common.criteria import CompiledCriterion
from tshrag_common.errors import LabError
from tshrag_common.ids import RunId
from tshrag_common.jobs import JobSpec
from tshrag_common.metrics import metric_key
from tshrag_common.reports import Ended, MetricNotice
from tshrag_controller.core.criteria import Expected
from tshrag_controller.core.source import Source
from tshrag_controller.store.columns import Column, columns
from tshrag_controller.store.hot import REST
from tshrag_controller.store.marks import standing_of

STALE = "metric_stale:"
"""How the reason of a notice begins that tells of a source that fell silent."""

_ENDED = msgspec.json.Decoder(Ended)
_SPEC = msgspec.json.Decoder(JobSpec)


class Judged(msgspec.Struct, frozen=True):
    """All that the criteria of a run are held against; ``expected`` has one entry for each."""

    sources: tuple[Source, ...]
    expected: tuple[Expected, ...]


class _Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """The newest attempt of a job, and what it should have told."""

    serial: int
    number: int
    agent: str
    dut: str
    started_at: int
    ended_at: int
    notices: tuple[MetricNotice, ...]
    declared: frozenset[str]


def judged(db: sqlite3.Connection, run: str, criteria: Iterable[CompiledCriterion]) -> Judged:
    """Read what `criteria` of `run` ask for."""
    criteria = tuple(criteria)
    number = int(db.execute("SELECT no FROM runs WHERE id=?", (run,)).fetchone()[0])
    attempts = _newest(db, number)
    refused = _refused(db, number, attempts)
    keys = sorted({key for criterion in criteria for key in criterion.keys})
    sources: list[Source] = []
    for key in keys:
        told: set[int] = set()
        for column in columns(db, number, key):
            attempt = attempts.get(column.serial)
            if attempt is None or column.attempt != attempt.number:
                continue  # an earlier attempt of the job: its samples stay, they do not count
            told.add(column.serial)
            missing = _missing(attempt, key) + _not_taken(refused, column.serial, key)
            sources.append(_source(run, attempt, column, missing))
        sources += _silent(run, key, attempts, refused, told)
    expected = tuple(_expected_in(run, each, attempts) for each in criteria)
    return Judged(tuple(sources), expected)


def is_whole(db: sqlite3.Connection, run: str) -> bool:
    """Tell whether all samples of the newest attempts of a run are stored."""
    number = int(db.execute("SELECT no FROM runs WHERE id=?", (run,)).fetchone()[0])
    for _, _, agent, _, _, _, blob, _ in db.execute(_NEWEST, (number,)).fetchall():
        ended = _ENDED.decode(blob) if blob else None
        if ended is not None and ended.samples_upto:
            standing = standing_of(db, agent, "samples")
            if not standing.holds(ended.samples_from, ended.samples_upto):
                return False
    return True


def _newest(db: sqlite3.Connection, number: int) -> dict[int, _Attempt]:
    specs = {
        int(index): frozenset(info.key for info in _SPEC.decode(blob).metrics)
        for index, blob in db.execute("SELECT no, spec FROM specs WHERE run=?", (number,))
    }
    found: dict[int, _Attempt] = {}
    for serial, no, agent, dut, started, ended_at, blob, spec in db.execute(_NEWEST, (number,)):
        notices = _ENDED.decode(blob).notices if blob else ()
        found[int(serial)] = _Attempt(
            serial=int(serial),
            number=int(no),
            agent=agent,
            dut=dut,
            started_at=started,
            ended_at=ended_at,
            notices=notices,
            declared=specs[int(spec)],
        )
    return found


def _refused(
    db: sqlite3.Connection, number: int, attempts: dict[int, _Attempt]
) -> dict[tuple[int, str], int]:
    """Return (serial, key) -> samples of the newest attempts that we did not take."""
    rows = db.execute("SELECT serial, attempt, key, count FROM refused WHERE run=?", (number,))
    return {
        (int(serial), str(key)): int(count)
        for serial, attempt, key, count in rows
        if int(serial) in attempts and attempts[int(serial)].number == attempt
    }


def _not_taken(refused: dict[tuple[int, str], int], serial: int, key: str) -> int:
    """Return how many samples of `key` were refused; those of unknown keys may be of it too."""
    return refused.get((serial, key), 0) + refused.get((serial, REST), 0)


def _source(run: str, attempt: _Attempt, column: Column, missing: int) -> Source:
    return Source(
        key=column.key,
        times=column.times,
        values=column.values,
        durations=column.durations,
        unit=column.unit,
        type=column.type,
        job=ids.job_of(RunId(run), column.serial),
        dut=column.dut,
        host=column.agent,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        missing=missing,
        stale=_stale(attempt, column.key),
    )


def _silent(
    run: str,
    key: str,
    attempts: dict[int, _Attempt],
    refused: dict[tuple[int, str], int],
    told: set[int],
) -> list[Source]:
    """Return a source without samples for each job that should have had some, as is known."""
    found: list[Source] = []
    for serial, attempt in attempts.items():
        if serial in told:
            continue
        missing = _missing(attempt, key) + _not_taken(refused, serial, key)
        stale = _stale(attempt, key)
        if missing or stale:
            empty = Source(
                key=key,
                times=(),
                values=(),
                job=ids.job_of(RunId(run), serial),
                dut=attempt.dut,
                host=attempt.agent,
                missing=missing,
                stale=stale,
            )
            found.append(empty)
    return found


def _missing(attempt: _Attempt, key: str) -> int:
    return sum(
        notice.count
        for notice in attempt.notices
        if not notice.reason.startswith(STALE) and _canonical(notice.key) in (key, REST)
    )


def _stale(attempt: _Attempt, key: str) -> str:
    """Return why a source that `key` belongs to was given up; its notice names a prefix."""
    for notice in attempt.notices:
        if notice.reason.startswith(STALE) and (
            key == notice.key or key.startswith(f"{notice.key}.")
        ):
            return notice.reason.removeprefix(STALE).strip()
    return ""


def _canonical(key: str) -> str:
    """Return the key that a load meant by what it wrote; what is no key stays as it is."""
    try:
        return metric_key(key)
    except LabError:
        return key


def _expected_in(run: str, criterion: CompiledCriterion, attempts: dict[int, _Attempt]) -> Expected:
    parts = tuple(_expected_in(run, part, attempts) for part in criterion.parts)
    return Expected(() if parts else _expected(run, criterion, attempts), parts)


def _expected(
    run: str, criterion: CompiledCriterion, attempts: dict[int, _Attempt]
) -> tuple[str, ...]:
    """Return the jobs, DUTs or hosts that must have samples of the criterion's metric."""
    if criterion.scope == "run":
        return ()
    keys = set(criterion.keys)
    owing = [attempt for attempt in attempts.values() if attempt.declared & keys]
    names = {
        "job": (ids.job_of(RunId(run), attempt.serial) for attempt in owing),
        "dut": (attempt.dut for attempt in owing if attempt.dut),
        "host": (attempt.agent for attempt in owing),
    }[criterion.scope]
    return tuple(dict.fromkeys(names))


_NEWEST = (
    "SELECT a.serial, max(a.number), a.agent, a.dut, a.started_at, a.ended_at, a.ended, j.spec "
    "FROM attempts a JOIN jobs j ON j.run=a.run AND j.serial=a.serial "
    "WHERE a.run=? GROUP BY a.serial"
)
