"""Commands about leases -> the roster and the journal: the same fences as those of attempts."""

import logging
from collections.abc import Iterable

import msgspec

from tshrag_agent.attempts.fences import Fences
from tshrag_agent.attempts.roster import Roster
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import Change, DutFence, LeaseGone, LeaseKept, SetupKept
from tshrag_common import wire
from tshrag_common.commands import (
    AnyCommand,
    CancelAttempt,
    FreeDut,
    HoldDut,
    StartAttempt,
    Sync,
)
from tshrag_common.errors import StorageFull

logger = logging.getLogger(__name__)

_HOLD = msgspec.msgpack.Decoder(HoldDut)


def kept_leases(journal: Journal) -> list[HoldDut]:
    """Return the leases that the journal holds; one that cannot be read is left out."""
    kept: list[HoldDut] = []
    for body in journal.leases:
        try:
            kept.append(_HOLD.decode(body))
        except msgspec.MsgspecError as error:
            logger.error("a lease cannot be read", extra={"why": str(error)})
    return kept


async def obey_leases(
    journal: Journal, roster: Roster, fences: Fences, commands: Iterable[AnyCommand]
) -> None:
    """Take note of what a message says of leases, and keep that over a restart."""
    changes: list[Change] = []
    for command in commands:
        match command:
            case HoldDut():
                changes += _taken(roster, fences, command)
            case FreeDut(fence=fence):
                roster.leases.free(fence)
                changes.append(LeaseGone(fence))
            case Sync(leases=leases):
                changes += _synced(roster, fences, leases)
            case _:
                continue
    if not changes:
        return
    try:
        await journal.write(*changes, patient=False)
    except StorageFull as error:  # what it forgets over a restart a Sync tells it again
        logger.error("a lease is not in the journal", extra={"reason": error.line})


def _synced(roster: Roster, fences: Fences, holds: tuple[HoldDut, ...]) -> list[Change]:
    """Let the leases be those of a Sync: what it does not name has ended."""
    named = {hold.fence for hold in holds}
    changes: list[Change] = []
    for held in list(roster.leases):
        if held.hold.fence not in named:
            roster.leases.free(held.hold.fence, "the controller does not know of it any more")
            changes.append(LeaseGone(held.hold.fence))
    for hold in holds:
        changes += _taken(roster, fences, hold)
    return changes


def superseded(roster: Roster, start: StartAttempt) -> list[Change]:
    """End the lease that an attempt has taken the DUT from: its fence is higher."""
    fence = roster.leases.supersede(start.dut, start.fence) if start.dut is not None else None
    return [] if fence is None else [LeaseGone(fence)]


def _taken(roster: Roster, fences: Fences, hold: HoldDut) -> list[Change]:
    """Take a lease on, unless the DUT has seen a newer fence, or is none of ours."""
    if hold.fence < fences.newest(hold.dut) or not roster.slots.knows(hold.dut):
        logger.warning("a lease is stale or of another host", extra={"dut": hold.dut})
        return []
    if not roster.leases.take(hold):
        return []
    older = roster.live.get(roster.slots.holder(hold.dut) or hold.fence)
    if older is not None:
        older.cancel(CancelAttempt(fence=older.start.fence, cause="lost"))
    fences.take(hold.dut, hold.fence)
    kept = LeaseKept(hold.dut, hold.fence, wire.body(hold))
    return [DutFence(hold.dut, hold.fence), kept, SetupKept(hold.dut)]
