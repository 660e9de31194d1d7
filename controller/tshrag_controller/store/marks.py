"""How far the spools of agents are stored; also where a newer part of one came before an older.

A store that is new is filled from the newest on: first with what lives needs, then with what the
streams held before. A spool has two parts meanwhile: numbers below ``base`` are stored up to
``back``, those from `base` on up to ``upto``. Each part grows in order, so that every number is
taken once; where they meet the spool has one part again.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec


class Standing(msgspec.Struct, frozen=True):
    """What is stored of a spool; ``base`` 0: all of it up to ``upto``."""

    upto: int = 0
    base: int = 0
    back: int = 0

    @property
    def whole(self) -> int:
        """Return up to where nothing is missing."""
        return self.back if self.base else self.upto

    def holds(self, after: int, upto: int) -> bool:
        """Tell whether the numbers behind `after`, up to `upto`, are stored."""
        return upto <= self.whole or (after + 1 >= self.base and upto <= self.upto)


TwoParts = tuple[str, Literal["samples", "output"], str, int, int]
"""(agent, kind, spool, base, back)"""


class Fit(NamedTuple):
    """What a message brings: ``new`` numbers, and how the spool stands then; or a gap before it."""

    standing: Standing
    new: Sequence[int] = ()
    gap_from: int = 0


def fit(standing: Standing, first: int, count: int, *, ahead: bool = False) -> Fit:
    """Return which of `count` numbers from `first` on are new.

    `ahead`: a gap may stay open, since who fills the store from behind will come to it.
    """
    last, upto, base, back = first + count - 1, standing.upto, standing.base, standing.back
    if base and first < base:
        if first > back + 1 and not ahead:
            return Fit(standing, gap_from=back + 1)
        older = range(back + 1, min(last, base - 1) + 1) if first <= back + 1 else range(0)
        newer = range(max(base, upto + 1), last + 1)
        grown = Standing(max(upto, last), base, max(back, *older[-1:], 0))
        return Fit(_joined(grown), (*older, *newer))
    if first > upto + 1:
        if base or not ahead:
            return Fit(standing, gap_from=upto + 1)
        return Fit(Standing(last, first, upto), range(first, last + 1))
    return Fit(_joined(Standing(max(upto, last), base, back)), range(upto + 1, last + 1))


def skip(standing: Standing, gap_from: int, upto: int) -> Standing:
    """Return how a spool stands when what is missing up to `upto` will never come."""
    if standing.base and gap_from < standing.base:
        back = max(standing.back, min(upto, standing.base - 1))
        return _joined(Standing(standing.upto, standing.base, back))
    return Standing(max(standing.upto, upto), standing.base, standing.back)


def _joined(standing: Standing) -> Standing:
    met = standing.base and standing.back >= standing.base - 1
    return Standing(standing.upto) if met else standing


class Marks:
    """The marks in the hot store; a mark is in the transaction of the rows that it counts."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def newest(self, agent: str, kind: str) -> tuple[str, int]:
        """Return the newest spool of an agent's samples or output, and how far it is stored."""
        found = self._connection.execute(_MARK, (agent, kind)).fetchone()
        return (str(found[0]), int(found[1])) if found else ("", 0)

    def standing(self, agent: str, kind: str, spool: str) -> Standing:
        """Return how `spool` of an agent stands; spools that it had before count too."""
        newest, upto = self.newest(agent, kind)
        if newest not in (spool, ""):
            self._connection.execute(_KEEP_MARK, (agent, kind, newest, upto))
            row = self._connection.execute(_OLD_MARK, (agent, kind, spool)).fetchone()
            upto = int(row[0]) if row else 0
        ahead = self._connection.execute(_AHEAD, (agent, kind, spool)).fetchone()
        return Standing(upto, *ahead) if ahead else Standing(upto)

    def put(self, agent: str, kind: str, spool: str, before: Standing, now: Standing) -> None:
        """Write how a spool stands now; what did not change is not written."""
        place = (agent, kind, spool)
        if now.base and (now.base, now.back) != (before.base, before.back):
            self._connection.execute(_SET_AHEAD, (*place, now.base, now.back))
        elif before.base and not now.base:
            self._connection.execute(_JOIN, place)
        self._connection.execute(_SET_MARK, (*place, now.upto))

    def skip(self, agent: str, kind: str, spool: str, gap_from: int, upto: int) -> None:
        """Pass over what will never come."""
        before = self.standing(agent, kind, spool)
        self.put(agent, kind, spool, before, skip(before, gap_from, upto))


def standing_of(db: sqlite3.Connection, agent: str, kind: str) -> Standing:
    """Return how the newest spool of an agent stands; for whoever only reads."""
    row = db.execute(_STANDING, (agent, kind)).fetchone()
    return Standing(*row) if row else Standing()


def two_parts(db: sqlite3.Connection) -> list[TwoParts]:
    """Return every spool that is stored in two parts."""
    return db.execute("SELECT agent, kind, spool, base, back FROM hot.ahead").fetchall()


def to_fill(db: sqlite3.Connection) -> dict[str, int]:
    """Return the parts of streams whose past is to be stored, and the sequence it ends with."""
    rows = db.execute("SELECT key, value FROM hot.facts WHERE key GLOB ?", (f"{_FACT}*",))
    return {str(key).removeprefix(_FACT): int(value) for key, value in rows}


def keep_to_fill(upto: Mapping[str, int], db: sqlite3.Connection) -> None:
    rows = [(f"{_FACT}{name}", sequence) for name, sequence in upto.items()]
    db.executemany("INSERT OR REPLACE INTO hot.facts VALUES (?,?)", rows)


def note_filled(name: str, db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM hot.facts WHERE key=?", (f"{_FACT}{name}",))


AHEAD = """CREATE TABLE ahead (
    agent TEXT NOT NULL, kind TEXT NOT NULL, spool TEXT NOT NULL,
    base INTEGER NOT NULL, back INTEGER NOT NULL, PRIMARY KEY (agent, kind, spool)
) WITHOUT ROWID"""
_FACT = "filling."
_MARK = "SELECT spool, upto FROM hot.marks WHERE agent=? AND kind=?"
_SET_MARK = "INSERT OR REPLACE INTO hot.marks VALUES (?,?,?,?)"
_KEEP_MARK = "INSERT OR REPLACE INTO hot.old_marks VALUES (?,?,?,?)"
_OLD_MARK = "SELECT upto FROM hot.old_marks WHERE agent=? AND kind=? AND spool=?"
_AHEAD = "SELECT base, back FROM hot.ahead WHERE agent=? AND kind=? AND spool=?"
_SET_AHEAD = "INSERT OR REPLACE INTO hot.ahead VALUES (?,?,?,?,?)"
_JOIN = "DELETE FROM hot.ahead WHERE agent=? AND kind=? AND spool=?"
_STANDING = (
    "SELECT m.upto, coalesce(a.base, 0), coalesce(a.back, 0) FROM hot.marks m "
    "LEFT JOIN hot.ahead a USING (agent, kind, spool) WHERE m.agent=? AND m.kind=?"
)
