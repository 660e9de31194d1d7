"""Answers about leases: take, renew, give back, list."""

import asyncio

import msgspec

from tshrag_common import ids, lease_requests as lr
from tshrag_common.errors import Invalid, Problem
from tshrag_common.ids import DutId, OrgId
from tshrag_controller.answers.asker import Asker
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.lease_events import DutReserved, LeaseAsked, LeaseGranted
from tshrag_controller.core.leases import (
    ALIVE_US,
    on_release,
    on_renew,
    on_share,
    on_take,
    on_take_over,
    on_transfer,
)
from tshrag_controller.core.line import place_in_line
from tshrag_controller.core.on_reserve import on_give_up, on_reserve, reservation_named
from tshrag_controller.core.people import Ask, Lease, Reservation
from tshrag_controller.engine import Engine, LabClock
from tshrag_controller.log.frames import Frame
from tshrag_controller.store import lease_rows
from tshrag_controller.store.store import Store


class LeaseAnswers:
    """The Lab says what is held and waited for, the projection what was."""

    def __init__(self, engine: Engine, store: Store, clock: LabClock) -> None:
        self._engine, self._store, self._clock = engine, store, clock
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    def on_commit(self, frame: Frame) -> None:
        """Wake those whose lease a frame has granted."""
        for event in frame.events if self._waiting else ():
            if isinstance(event, LeaseGranted):
                for waiting in self._waiting.pop(event.lease, ()):
                    if not waiting.done():
                        waiting.set_result(None)

    async def take(self, asker: Asker, asked: lr.LeaseTake) -> lr.LeaseAnswer:
        """Give a DUT, now or when it is the asker's turn; after a while tell of the line."""
        event = _asked(asker, asked, self._clock.now() + ALIVE_US)
        if asked.takeover:
            return await self._take_over(asker, event)
        answer = await self._take(event, asked.wait_s > 0, asker.is_operator)
        if answer.state == "waiting" and asked.wait_s > 0:
            granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(asked.lease, []).append(granted)
            await asyncio.wait([granted], timeout=asked.wait_s)
            self._forget(asked.lease, granted)
            answer = await self._engine.ask(lambda decision: _found(decision, asked.lease, answer))
        return answer

    def _forget(self, name: str, granted: "asyncio.Future[None]") -> None:
        others = [each for each in self._waiting.get(name, ()) if each is not granted]
        if others:
            self._waiting[name] = others
        else:
            self._waiting.pop(name, None)

    async def _take(self, event: LeaseAsked, wait: bool, is_operator: bool) -> lr.LeaseAnswer:
        return await self._engine.ask(
            lambda decision: answer_of(decision.lab, on_take(decision, event, wait, is_operator))
        )

    async def _take_over(self, asker: Asker, event: LeaseAsked) -> lr.LeaseAnswer:
        return await self._engine.ask(
            lambda decision: answer_of(
                decision.lab, on_take_over(decision, event, asker.is_operator)
            )
        )

    async def reserve(self, asker: Asker, asked: lr.LeaseReserve) -> lr.LeaseAnswer:
        """Promise a DUT; the same id again is the same promise."""
        ids.token("lease", asked.lease)
        if asked.start <= self._clock.now():
            what = "it lies in the past; take a lease for now"
            raise Invalid([Problem(code="range", where="start", what=what)])
        event = DutReserved(
            reservation=asked.lease,
            dut=DutId(asked.dut),
            org=asker.org,
            by=asker.name,
            start=asked.start,
            end=asked.start + round(asked.for_s * 1e6),
            reason=asked.reason,
            shared=asked.share,
            idle_us=round(asked.idle_s * 1e6),
        )
        return await self._engine.ask(
            lambda decision: answer_of(
                decision.lab, on_reserve(decision, event, asked.kind, dict(asked.labels))
            )
        )

    async def share(self, asker: Asker, asked: lr.LeaseShare) -> lr.LeaseAnswer:
        return await self._engine.ask(
            lambda decision: answer_of(
                decision.lab, on_share(decision, asker.org, asker.name, asked.lease, asked.share)
            )
        )

    async def transfer(self, asker: Asker, asked: lr.LeaseTransfer) -> lr.LeaseAnswer:
        org, _, name = asked.to.rpartition("/")
        taker = (ids.org_id(org or asker.org), ids.token("person", name))
        giver = (asker.org, asker.name)
        return await self._engine.ask(
            lambda decision: answer_of(
                decision.lab, on_transfer(decision, giver, asked.lease, taker, asked.reason)
            )
        )

    async def renew(self, asker: Asker, asked: lr.LeaseRenew) -> lr.LeaseAnswer:
        for_us = round(asked.for_s * 1e6)
        return await self._engine.ask(
            lambda decision: answer_of(
                decision.lab, on_renew(decision, asker.org, asker.name, asked.lease, for_us)
            )
        )

    async def release(self, asker: Asker, asked: lr.LeaseRelease) -> lr.LeaseAnswer:
        return await self._engine.ask(
            lambda decision: _ended(_release(decision, asker, asked.lease))
        )

    async def list(self, asker: Asker, asked: lr.ListLeases) -> lr.LeasesAnswer:
        if asked.ended:
            await self._store.wait_applied(self._engine.sequence)
            return await self._store.query(lambda db: lease_rows.ended(db, asked))
        return await self._engine.ask(lambda decision: _list(decision.lab, asked, asker.person))


def _release(decision: Decision, asker: Asker, name: str) -> Lease | Ask | Reservation:
    reserved = reservation_named(decision.lab, asker.org, asker.name, name)
    if reserved is not None:
        return on_give_up(decision, asker.org, asker.name, reserved)
    return on_release(decision, asker.org, asker.name, name)


def _asked(asker: Asker, asked: lr.LeaseTake, alive_until: int) -> LeaseAsked:
    ids.token("lease", asked.lease)
    return LeaseAsked(
        lease=asked.lease,
        org=OrgId(asker.org),
        by=asker.name,
        alive_until=alive_until,
        for_us=round(asked.for_s * 1e6),
        priority=asked.priority,
        dut=asked.dut,
        kind=asked.kind,
        labels=asked.labels,
        reason=asked.reason,
        shared=asked.share,
        idle_us=round(asked.idle_s * 1e6),
    )


def _found(decision: Decision, name: str, before: lr.LeaseAnswer) -> lr.LeaseAnswer:
    people = decision.lab.people
    found = people.named(name) or people.asks.get(name)
    if found is not None:
        return answer_of(decision.lab, found)
    return lr.LeaseAnswer(lease=name, owner=before.owner, state="ended")


def answer_of(lab: Lab, found: Lease | Ask | Reservation) -> lr.LeaseAnswer:
    """Return a lease, a promise of one, or a place in the line, as people see it."""
    owner = f"{found.org}/{found.by}"
    if isinstance(found, Reservation):
        return lr.LeaseAnswer(
            lease=found.id,
            dut=found.dut,
            owner=owner,
            since=found.start,
            until=found.end,
            state="reserved",
            reason=found.reason,
            shared=found.shared,
            idle_s=found.idle_us / 1e6,
        )
    if isinstance(found, Ask):
        labels = [f"{key}={value}" for key, value in sorted(found.labels.items())]
        words = [found.dut, f"kind={found.kind}" if found.kind else "", *labels]
        return lr.LeaseAnswer(
            lease=found.id,
            owner=owner,
            since=found.asked_at,
            state="waiting",
            reason=found.reason,
            ahead=place_in_line(lab, found),
            target=", ".join(word for word in words if word) or "any DUT",
        )
    return lr.LeaseAnswer(
        lease=found.id,
        dut=found.dut,
        agent=found.agent,
        fence=found.fence,
        until=found.until,
        owner=owner,
        since=found.since,
        reason=found.reason,
        shared=found.shared,
        idle_s=found.idle_us / 1e6,
    )


def _ended(found: Lease | Ask | Reservation) -> lr.LeaseAnswer:
    dut = found.dut
    return lr.LeaseAnswer(lease=found.id, dut=dut, owner=f"{found.org}/{found.by}", state="ended")


def _list(lab: Lab, asked: lr.ListLeases, person: str) -> lr.LeasesAnswer:
    held = sorted(lab.people.leases.values(), key=lambda lease: (lease.dut, lease.fence))
    line = sorted(lab.people.asks.values(), key=lambda ask: (-ask.priority, ask.order))
    promised = sorted(lab.people.reservations.values(), key=lambda each: (each.start, each.id))
    everything: list[Lease | Ask | Reservation] = [*held, *promised, *line]
    found = [each for each in everything if asked.dut in ("", each.dut)]
    page = found[asked.offset : asked.offset + asked.limit]
    more = len(found) > asked.offset + asked.limit
    views = [answer_of(lab, each) for each in page]
    mine = [msgspec.structs.replace(view, mine=view.owner == person) for view in views]
    return lr.LeasesAnswer(leases=tuple(mine), more=more)
