"""After a restart: what the journal left alive is adopted, or ended and told, before anything new.

A process on the host lives on in the shepherd: it is adopted under its fence, and its output goes
on where the journal is. What was driven by the agent itself (a DUT, a builtin) died with it; on a
DUT the wrapper has ended the rest when its lease was over, and a newer fence ends it in any case.
"""

import logging
from collections.abc import Callable, Collection, Iterable

import msgspec

from tshrag_agent.attempts.host import Listing, Shepherd
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import AgentsOf, AttemptRow, HandedOver
from tshrag_common.commands import StartAttempt
from tshrag_common.errors import ErrorReport, LabError
from tshrag_common.ids import DutId, Fence
from tshrag_common.jobs import JobSpec, Way

logger = logging.getLogger(__name__)

IsHost = Callable[[DutId | None, Way], bool]
"""Tells whether a job with this DUT and runtime is a process of this host."""

_START = msgspec.msgpack.Decoder(StartAttempt)
_SPEC = msgspec.msgpack.Decoder(JobSpec)


MOST_KILLED = 3
"""So many agents may be killed under one attempt; then it is the attempt that is ended.

A job that kills its agent would otherwise do so for ever: each agent would adopt it anew.
"""


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that an earlier agent did not end. Not `adoptable`: it is told as an error."""

    row: AttemptRow
    start: StartAttempt
    spec: JobSpec
    adoptable: bool
    age_s: float = 0.0  # of its process, where that lives; wall clocks may have jumped meanwhile


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the last agent has left: attempts to go on with, and ends that are on their way."""

    left: tuple[Left, ...] = ()
    ended: tuple[tuple[Fence, int], ...] = ()  # with the number of the report


async def poisonous(journal: Journal) -> frozenset[Fence]:
    """Count one more killed agent for what runs; return what has had too many.

    It is on the disk before anything else is done. An agent that handed over was not killed.
    """
    running = [row.fence for row in journal.attempts if not row.ended_seq]
    more = 0 if journal.handed_over else 1
    counts = {fence: journal.killed.get(fence, 0) + more for fence in running}
    changes = [AgentsOf(fence, count) for fence, count in counts.items() if more]
    if changes or journal.handed_over:
        await journal.write(*changes, HandedOver(False))
    return frozenset(fence for fence, count in counts.items() if count >= MOST_KILLED)


async def look(
    rows: Iterable[AttemptRow],
    shepherd: Shepherd,
    is_host: IsHost,
    poison: Collection[Fence] = (),
    others: Collection[str] = (),
) -> Found:
    """Compare the journal with the shepherd; end processes that nobody knows, and `poison`.

    `others` are keys of what is no attempt, and goes on.
    """
    listing = await shepherd.list()
    rows = tuple(rows)
    left = [_left(row, listing, is_host, poison) for row in rows if not row.ended_seq]
    found = Found(
        left=tuple(each for each in left if each is not None),
        ended=tuple(sorted(((r.fence, r.ended_seq) for r in rows if r.ended_seq), key=_by_seq)),
    )
    kept = {f"{each.row.fence}.main" for each in found.left if each.adoptable}
    kept |= set(others)
    await _end_others(listing, shepherd, kept)
    return found


async def _end_others(listing: Listing, shepherd: Shepherd, kept: set[str]) -> None:
    """End what is alive and not kept; forget the exits that nobody waits for."""
    for alive in listing.alive:
        if alive.key not in kept:
            logger.warning("an unknown process is ended", extra={"key": alive.key})
            try:
                await shepherd.end(alive.key, "orphaned")
            except LabError as error:
                logger.error("it was not ended", extra={"key": alive.key, "why": error.line})
    others = [key for key in _keys(listing) if key not in kept]
    if others:
        await shepherd.forget(*others)


def _left(
    row: AttemptRow, listing: Listing, is_host: IsHost, poison: Collection[Fence]
) -> Left | None:
    try:
        start, spec = _START.decode(row.start), _SPEC.decode(row.spec)
    except msgspec.MsgspecError as error:
        logger.error("an attempt cannot be read", extra={"fence": row.fence, "why": str(error)})
        return None
    is_builtin = spec.load is not None and bool(spec.load.builtin)
    here = is_host(start.dut, spec.need.target.runtime) and not is_builtin
    adoptable = here and f"{row.fence}.main" in _keys(listing) and row.fence not in poison
    key = f"{row.fence}.main"
    age_us = next((one.age_us for one in listing.alive if one.key == key), 0)
    return Left(row=row, start=start, spec=spec, adoptable=adoptable, age_s=age_us / 1e6)


def _keys(listing: Listing) -> set[str]:
    return {one.key for one in listing.alive} | {one.key for one in listing.exits}


def _by_seq(ended: tuple[Fence, int]) -> int:
    return ended[1]


def why_ended(is_poison: bool) -> ErrorReport:
    """Return what is said of an attempt that an earlier agent has left and nobody can adopt."""
    if is_poison:
        message = f"{MOST_KILLED} agents were killed while it ran"
        return ErrorReport(code="agent_killed", message=message, retryable=True)
    message = "its agent was started again in the middle of it"
    return ErrorReport(code="agent_restarted", message=message, retryable=True)
