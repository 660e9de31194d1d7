"""The agent's side of leases: who holds what, by the commands and by its own clock."""

import asyncio
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from tshrag_agent.attempts.fences import Fences
from tshrag_agent.attempts.roster import Roster
from tshrag_agent.holding import kept_leases, obey_leases
from tshrag_agent.journal.journal import Journal
from tshrag_agent.leases import Leases, NotHeld
from tshrag_agent.slots import Slots
from tshrag_common.clock import SystemClock
from tshrag_common.commands import FreeDut, HoldDut, Sync
from tshrag_common.digest import lease_mark
from tshrag_common.ids import DutId, Fence, OrgId
from tshrag_common.inventory import Dut

B1 = DutId("b1")
CLOCK = SystemClock()


def a_hold(fence: int, rev: int = 1, by: str = "jo", left_s: float = 60.0) -> HoldDut:
    left_us = round(left_s * 1e6)
    return HoldDut(
        fence=Fence(fence), rev=rev, dut=B1, lease=f"lease-{fence}", org=OrgId("default"), by=by,
        until=CLOCK.now() + left_us, left_us=left_us,
    )  # fmt: skip


class Heard:
    """A roster with one DUT, and what its listener has heard."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.fences = Fences(journal.heard, journal.duts)
        leases = Leases(CLOCK, kept_leases(journal))
        self.roster = Roster(Slots(1, {B1: Dut(id=B1, kind="pi", transports=("ssh",))}), leases)
        self.ends: list[tuple[Fence, str]] = []
        leases.on_end(lambda dut, fence, why: self.ends.append((fence, why)))

    async def obey(self, *commands: HoldDut | FreeDut | Sync) -> None:
        await obey_leases(self.journal, self.roster, self.fences, commands)

    @property
    def owner(self) -> str:
        hold = self.roster.leases.of(B1)
        return hold.owner if hold else ""


async def test_a_lease_is_kept_over_a_restart(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    await Heard(journal).obey(a_hold(9))
    await journal.close()
    journal = await Journal.open(tmp_path / "journal.db")
    heard = Heard(journal)
    assert heard.owner == "default/jo"
    assert heard.fences.newest(B1) == 9
    await heard.obey(FreeDut(fence=Fence(9)))
    await journal.close()
    journal = await Journal.open(tmp_path / "journal.db")
    assert kept_leases(journal) == []
    await journal.close()


async def test_a_higher_fence_ends_the_older_lease_and_a_lower_one_does_nothing(
    tmp_path: Path,
) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    heard = Heard(journal)
    await heard.obey(a_hold(9))
    await heard.obey(a_hold(5, by="al"))
    assert heard.owner == "default/jo"
    await heard.obey(a_hold(12, by="al"))
    assert heard.owner == "default/al"
    assert heard.ends == [(9, "another one has it now")]
    with pytest.raises(NotHeld, match="leased by default/al"):
        heard.roster.leases.check(B1, Fence(9))
    assert heard.roster.leases.check(B1, Fence(12)).by == "al"
    await journal.close()


async def test_a_sync_mends_what_was_not_heard(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    heard = Heard(journal)
    await heard.obey(a_hold(9))
    await heard.obey(Sync(attempts=(), leases=(a_hold(9, rev=3),)))
    assert heard.roster.leases.digest == lease_mark(9, 3)
    assert heard.ends == []
    await heard.obey(Sync(attempts=()))
    assert (heard.owner, heard.roster.leases.digest) == ("", 0)
    assert [fence for fence, _ in heard.ends] == [9]
    await journal.close()


async def test_a_lease_runs_out_by_the_clock_of_the_agent_and_stays_in_its_digest(
    tmp_path: Path,
) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    heard = Heard(journal)
    watching = asyncio.get_running_loop().create_task(heard.roster.leases.watch(), name="watch")
    await heard.obey(a_hold(9, left_s=0.05))
    await wait_until(lambda: bool(heard.ends))
    assert heard.ends == [(9, "its time is over")]
    assert heard.owner == ""
    assert heard.roster.leases.digest == lease_mark(9, 1), "the controller has not ended it yet"
    await heard.obey(a_hold(9, rev=2))
    assert heard.owner == "default/jo", "it was renewed meanwhile"
    watching.cancel()
    await journal.close()


async def test_a_dut_of_another_host_is_not_held_here(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    heard = Heard(journal)
    heard.roster.slots = Slots(1, {})
    await heard.obey(a_hold(9))
    assert heard.owner == ""
    await journal.close()


async def test_the_use_of_a_dut_is_told_by_its_fence(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    heard = Heard(journal)
    await heard.obey(a_hold(9))
    assert heard.roster.leases.used() == {}
    heard.roster.leases.use(B1)
    assert list(heard.roster.leases.used()) == ["9"]
    await journal.close()
