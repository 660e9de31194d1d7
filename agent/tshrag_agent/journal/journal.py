"""The journal: what has been awaited here is on the disk.

One thread writes. Whoever comes while it is busy shares the next transaction and its fsync, so
that the cost of durability falls with the load. Records that were just written stay in memory
for a while: who sends them on does not read the disk.

A full spool pushes back: reports and output wait for room, samples wait too, but not for long, or
results would wait behind them; then they are dropped and counted, also when too much of them waits
already. What is written with them is written all the same. A full disk holds up all.
"""

import asyncio
import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, ParamSpec, TypeVar

from tshrag_agent.journal.beginning import open_or_begin, within_disk
from tshrag_agent.journal.hands import Hands, OneThread
from tshrag_agent.journal.pressure import Pressure
from tshrag_agent.journal.recent import Recent
from tshrag_agent.journal.records import (
    SPOOLS,
    Append,
    Change,
    Confirm,
    Record,
    SpoolName,
    cost_bytes,
)
from tshrag_agent.journal.store import SpoolCorrupt, Store
from tshrag_common import history
from tshrag_common.errors import StorageFull
from tshrag_common.failpoints import failpoint
from tshrag_common.ids import DutId, Fence
from tshrag_common.reports import SpoolState

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

MIB = 1 << 20
QUOTA_BYTES: Mapping[SpoolName, int] = MappingProxyType(
    {"reports": 256 * MIB, "samples": 1024 * MIB, "output": 1024 * MIB}
)
SAMPLES_WAITING_BYTES = 8 * MIB
"""So much of samples may wait for room in memory; beyond it they are dropped and counted."""

SAMPLES_PATIENCE_S = 5.0
"""How long the first samples wait for room; who comes later, and there was none, does not wait."""

_GROUP_MOST = 4096
_RETRY_S = 0.5


class _Order(NamedTuple):
    changes: tuple[Change, ...]
    done: asyncio.Future[int]


class _Lookup(NamedTuple):
    spool: SpoolName
    from_seq: int
    most_bytes: int
    done: asyncio.Future[list[Record]]


Asked = _Order | _Lookup
HandsFor = Callable[[Callable[[list[Asked]], None], int], Hands[Asked]]
"""Makes what serves the orders of a journal, at most so many at once."""


class Journal:
    """The agent's journal; belongs to one event loop."""

    def __init__(
        self,
        store: Store,
        quota_bytes: Mapping[SpoolName, int] = QUOTA_BYTES,
        hands: HandsFor = OneThread,
    ) -> None:
        self._store = store
        self._quota = quota_bytes
        self._loop = asyncio.get_running_loop()
        self._recent = {name: Recent() for name in SPOOLS}
        self._grown = {name: asyncio.Event() for name in SPOOLS}
        self._room = asyncio.Event()
        self._samples_waiting_bytes = 0
        self._samples_gave_up = False
        self.pressure = Pressure(lambda: self._sizes["samples"])
        self._states = {name: _state(store, name) for name in SPOOLS}
        self._sizes = {name: store.heads[name].size_bytes for name in SPOOLS}
        self.attempts = tuple(store.attempts())
        """What the disk held when it was opened: recovery reads it."""
        self.duts: dict[DutId, Fence] = store.duts()
        self.leases, self.setups = tuple(store.leases()), store.setups()
        self.heard = store.heard()
        self.killed = store.killed()
        self.handed_over = store.handed_over()
        self.damage = store.damage
        """What was wrong with the file before this one; empty when nothing was."""
        self.samples_dropped = 0
        self.fault = ""
        """Why nothing can be written at the moment; empty when all is well."""
        self._hands = hands(self._serve, _GROUP_MOST)

    @classmethod
    async def open(
        cls, path: Path, quota_bytes: Mapping[SpoolName, int] = QUOTA_BYTES
    ) -> "Journal":
        """Open the journal at `path`; a damaged one is set aside and a new one begins."""
        store = await asyncio.to_thread(open_or_begin, path)
        return cls(store, await asyncio.to_thread(within_disk, path, quota_bytes))

    async def close(self) -> None:
        """Write what waits and let go of the file."""
        await asyncio.to_thread(self._hands.end)
        self._store.close()

    async def append(self, spool: SpoolName, *bodies: bytes) -> int:
        """Append records; durable when this returns. Return the number of the last one."""
        return await self.write(Append(spool, bodies))

    async def write(
        self, *changes: Change, patient: bool = True, dropped: list[Append] | None = None
    ) -> int:
        """Carry out all changes or none, durable; return the number that the last Append gave.

        Samples that have no room are left out of it; they are added to `dropped`. While the disk
        is full this waits, unless `patient` is false.

        Raises:
            StorageFull: nothing could be written, and the caller did not want to wait.

        """
        kept: list[Change] = []
        for change in changes:
            if not isinstance(change, Append) or await self._has_room(change):
                kept.append(change)
            elif dropped is not None:
                dropped.append(change)
        if not kept:
            return self._states["samples"].last
        while True:
            done: asyncio.Future[int] = self._loop.create_future()
            self._hands.put(_Order(tuple(kept), done))
            try:
                return await done
            except StorageFull:
                if not patient:
                    raise
            await asyncio.sleep(_RETRY_S)

    async def read(self, spool: SpoolName, from_seq: int, most_bytes: int) -> list[Record]:
        """Return records from `from_seq` on, at least one if there is one.

        Raises:
            SpoolCorrupt: what is asked for is damaged.

        """
        recent = self._recent[spool].since(from_seq, most_bytes)
        if recent or from_seq > self._states[spool].last:
            return recent
        done: asyncio.Future[list[Record]] = self._loop.create_future()
        self._hands.put(_Lookup(spool, from_seq, most_bytes, done))
        return await done

    async def confirm(self, spool: SpoolName, upto: int) -> None:
        """Forget the records up to `upto`, and the attempts whose end they told."""
        if upto > self._states[spool].confirmed:
            await self.write(Confirm(spool, upto))

    async def grown(self, spool: SpoolName, beyond: Callable[[], int]) -> None:
        """Return when the spool has a record after `beyond()`; one caller a spool."""
        while self._states[spool].last <= beyond():
            self._grown[spool].clear()
            await self._grown[spool].wait()

    def nudge(self, spool: SpoolName) -> None:
        """Let who waits in `grown` look again: its own position has moved."""
        self._grown[spool].set()

    def state(self, spool: SpoolName) -> SpoolState:
        return self._states[spool]

    def free_bytes(self) -> int:
        """Return how much room its disk has; none where it cannot be asked."""
        try:
            return shutil.disk_usage(self._store.path.parent).free
        except OSError:
            return 0

    @property
    def size_bytes(self) -> int:
        return sum(self._sizes.values())

    async def _has_room(self, change: Append) -> bool:
        """Wait for room; false: the samples are dropped."""
        spool = change.spool
        history.note("offered", kind=spool, count=len(change.bodies))
        if self._sizes[spool] < self._quota[spool]:
            self._samples_gave_up = self._samples_gave_up and spool != "samples"
            return True
        logger.warning("spool is full", extra={"spool": spool, "bytes": self._sizes[spool]})
        if spool != "samples":
            await self._wait_for_room(spool)
            return True
        if await self._samples_find_room(cost_bytes(change.bodies)):
            return True
        self.samples_dropped += len(change.bodies)
        history.note("dropped", kind=spool, count=len(change.bodies))
        return False

    async def _samples_find_room(self, cost: int) -> bool:
        """Wait a little, as long as not too much waits already and it made sense before."""
        if self._samples_gave_up or self._samples_waiting_bytes + cost > SAMPLES_WAITING_BYTES:
            return False
        self._samples_waiting_bytes += cost
        try:
            async with asyncio.timeout(SAMPLES_PATIENCE_S):
                await self._wait_for_room("samples")
        except TimeoutError:
            self._samples_gave_up = True
            return False
        finally:
            self._samples_waiting_bytes -= cost
        return True

    async def _wait_for_room(self, spool: SpoolName) -> None:
        while self._sizes[spool] >= self._quota[spool]:
            self._room.clear()
            await self._room.wait()

    def _serve(self, asked: list[Asked]) -> None:
        """Look up, then commit all writes at once; not on the loop."""
        for order in asked:
            if isinstance(order, _Lookup):
                self._look_up(order)
        orders = [order for order in asked if isinstance(order, _Order)]
        if orders:
            self._commit(orders)

    def _commit(self, orders: list[_Order]) -> None:
        changes = [change for order in orders for change in order.changes]
        try:
            failpoint("journal.before_fsync")
            numbers, fault = self._store.commit(changes), ""
            failpoint("journal.after_fsync")
            if history.IS_ON:
                self._note(changes, numbers)
        except (sqlite3.Error, OSError) as error:
            numbers, fault = [], f"{type(error).__name__}: {error}"
            history.note("write_failed", why=fault)
        states = {name: _state(self._store, name) for name in SPOOLS}
        sizes = {name: self._store.heads[name].size_bytes for name in SPOOLS}
        self._tell(self._settle, orders, numbers, fault, states, sizes)

    def _note(self, changes: list[Change], numbers: list[int]) -> None:
        """Tell the history of a test what is on the disk from here on."""
        for change, last in zip(changes, numbers, strict=True):
            if isinstance(change, Append):
                spool, first = self._store.heads[change.spool].spool, last - len(change.bodies) + 1
                sha = history.digest_of(change.bodies)
                size, quota = self._store.heads[change.spool].size_bytes, self._quota[change.spool]
                facts = {"kind": change.spool, "seq": first, "sha": sha}
                history.note("spooled", spool=spool, size=size, quota=quota, **facts)
            elif isinstance(change, Confirm):
                spool = self._store.heads[change.spool].spool
                history.note("trimmed", spool=spool, kind=change.spool, seq=change.upto)

    def _look_up(self, order: _Lookup) -> None:
        try:
            found = self._store.read(order.spool, order.from_seq, order.most_bytes)
            self._tell(_resolve, order.done, found)
        except (SpoolCorrupt, sqlite3.Error) as error:
            said = error if isinstance(error, SpoolCorrupt) else SpoolCorrupt("journal", str(error))
            self._tell(_reject, order.done, said)

    def _tell(self, function: Callable[P, None], *arguments: P.args, **named: P.kwargs) -> None:
        try:
            self._loop.call_soon_threadsafe(lambda: function(*arguments, **named))
        except RuntimeError:
            logger.debug("the loop is closed: nobody waits any more")

    def _settle(
        self,
        orders: list[_Order],
        numbers: list[int],
        fault: str,
        states: dict[SpoolName, SpoolState],
        sizes: dict[SpoolName, int],
    ) -> None:
        """Take over what the thread has done, and wake who waited for it."""
        if fault != self.fault:
            logger.error(
                "journal cannot be written" if fault else "journal is well again",
                extra={"code": "storage_full", "reason": fault},
            )
        self.fault, self._states, self._sizes = fault, states, sizes
        given = iter(numbers)
        for order in orders:
            if fault:
                _reject(order.done, StorageFull("journal", fault, "make room on the disk"))
                continue
            _resolve(order.done, self._remember(order.changes, given))
        self._room.set()
        for event in self._grown.values():
            event.set()

    def _remember(self, changes: tuple[Change, ...], given: Iterator[int]) -> int:
        last = 0
        for change, number in zip(changes, given, strict=False):
            if isinstance(change, Append):
                last = number
                self._recent[change.spool].add(number, change.bodies)
        return last


def _state(store: Store, name: SpoolName) -> SpoolState:
    head = store.heads[name]
    return SpoolState(head.spool, head.last, head.confirmed)


def _resolve(done: asyncio.Future[T], value: T) -> None:
    if not done.done():
        done.set_result(value)


def _reject(done: asyncio.Future[T], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
