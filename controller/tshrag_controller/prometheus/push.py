"""Pushes stored samples to a Prometheus by remote write, each once it is stored, in order.

The place up to which the other side has taken them rests beside the samples: after an outage,
theirs or ours, it goes on from there. Samples that are too old for the other side are left out
and counted: it would answer 500 for ever.
"""

import asyncio
import logging
import re
import urllib.error
import urllib.request

import msgspec

from tshrag_common.errors import LabError, Refused, Unavailable
from tshrag_common.metrics import SampleBatch
from tshrag_controller.prometheus import remote
from tshrag_controller.prometheus.text import Labels
from tshrag_controller.prometheus.trail import Trail
from tshrag_controller.store import since
from tshrag_controller.store.since import Place
from tshrag_controller.store.store import Store

logger = logging.getLogger(__name__)

Series = dict[Labels, dict[int, float]]

NAME = "remote_write"
MOST_SAMPLES = 10_000
EVERY_S, LONGEST_WAIT_S, TIMEOUT_S = 1.0, 30.0, 30.0
_TOO_OLD = re.compile(r"too old|out of bounds|out of order|duplicate sample", re.IGNORECASE)


class RemoteRefused(Refused):
    """The other side will never take this request."""

    code = "remote_write"
    is_old = False
    """Some of its samples are older than what the other side has, or the same."""


class RemoteAway(Unavailable):
    """The other side was not reached, or could not take it now."""

    code = "remote_write_away"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where to push, as whom; samples older than ``max_age_s`` stay here."""

    url: str
    token: str = ""
    max_age_s: int = 3600


class Pusher:
    """Copies what the store holds; `place` is how far the other side has it."""

    def __init__(self, store: Store, target: Target) -> None:
        self._store, self._target = store, target
        self._news = asyncio.Event()
        self.place, self.active = Place(), False
        self.sent = self.refused = 0
        self.trouble = ""
        self._trail, self._follows = Trail(target.max_age_s * 1_000_000), True
        store.tap(self._hear)

    def _hear(self, _: str, __: tuple[SampleBatch, ...]) -> None:
        self._news.set()

    async def watch(self) -> None:
        """Take note for ever of how far this store was when: leader or not."""
        while True:
            newest = await self._store.query(since.newest)
            self._trail.note(self._store.now(), newest)
            await asyncio.sleep(EVERY_S)

    @property
    def copied_at(self) -> int:
        """Before which instant all that was stored is copied; 0: that is not known here."""
        return 0 if self._follows else self._trail.copied_at(self.place)

    def follow(self, copied_at: int) -> None:
        """Hear as a standby how far the leader is: what is behind that is ours when it is gone."""
        if self._follows and copied_at:
            self.place, self.active = self._trail.place_before(copied_at), True

    async def push(self) -> None:
        """Copy for ever; while the other side is away wait longer and longer."""
        wait_s = EVERY_S
        await self.begin()
        while True:
            self._news.clear()
            try:
                more = await self.once()
                wait_s, self.trouble = EVERY_S, ""
            except LabError as error:
                wait_s, more = min(2 * wait_s, LONGEST_WAIT_S), True
                self.trouble = error.line
                logger.warning("remote write has to wait", extra={"why": error.line})
                await asyncio.sleep(wait_s)
            if not more:
                await self._news.wait()
                await asyncio.sleep(EVERY_S / 10)  # what comes together goes together

    async def begin(self) -> None:
        """Go on where it stopped, here or at the leader before us; at first, from now on."""
        kept = await self._store.query(lambda db: since.saved(db, NAME))
        if kept is not None:
            self.place = max(kept, self.place)
        elif not self.active:
            self.place = await self._store.query(since.newest)
        self.active, self._follows = True, False

    async def once(self) -> bool:
        """Copy one request; tell whether there may be more.

        Raises:
            RemoteAway, PrometheusMissing: nothing was copied, the place is as it was.

        """
        place = self.place
        least = self._store.now() - self._target.max_age_s * 1_000_000
        pieces, after = await self._store.query(
            lambda db: since.since(db, place, least, MOST_SAMPLES)
        )
        count = sum(piece.chunk.count for piece in pieces)
        if pieces:
            series = remote.series_of(pieces, least)
            await self._send(series)
        if after != place:
            await self._store.change(lambda db: since.save(db, NAME, after))
        self.place = after
        return count >= MOST_SAMPLES

    async def _send(self, series: Series) -> None:
        """Send samples; where some are refused, halve until those alone are left out.

        A server may refuse a whole request for one sample older than the newest of its series.
        """
        count = sum(map(len, series.values()))
        if not count:
            return
        try:
            body = await asyncio.to_thread(remote.request, series)
            await asyncio.to_thread(self._post, body)
            self.sent += count
        except RemoteRefused as error:
            if not error.is_old or count == 1:
                self.refused += count
                logger.warning("remote write was refused", extra={"why": error.line})
                return
            for part in await asyncio.to_thread(remote.halves, series):
                await self._send(part)

    def _post(self, body: bytes) -> None:
        headers = dict(remote.HEADERS)
        if self._target.token:
            headers["Authorization"] = f"Bearer {self._target.token}"
        request = urllib.request.Request(self._target.url, body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            said = error.read(500).decode("utf-8", "replace").strip().split("\n")[0]
            told = f"{error.code}: {said}"
            error.close()
            if _TOO_OLD.search(said) or (400 <= error.code < 500 and error.code != 429):
                refused = RemoteRefused(self._target.url, told)
                refused.is_old = bool(_TOO_OLD.search(said))
                raise refused from None
            raise RemoteAway(self._target.url, told) from None
        except (OSError, ValueError) as error:
            raise RemoteAway(self._target.url, str(error)) from None
