"""Asks the process that carries out queries; one that takes too long, or dies, is replaced.

One query at a time: a query may take two threads and some hundred megabytes, and the lab has to
go on beside it. The process starts with the first query and ends after a minute without one.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tshrag_common.errors import ErrorReport, LabError, NotFound, Refused, Unavailable
from tshrag_common.ids import OrgId
from tshrag_controller.store.query_process import HEAD, Ask, Told
from tshrag_controller.store.store import Store

logger = logging.getLogger(__name__)

TIMEOUT_S = 20.0
IDLE_S, KEPT_S = 60.0, 600.0
MOST_WAITING = 16
MOST_RESULT_BYTES = 2 << 30
_DECODER, _ENCODER = msgspec.msgpack.Decoder(Told), msgspec.msgpack.Encoder()


class QueryFailed(Refused):
    """The process of queries has died over this one."""

    code = "query_memory"


class QueryLate(Refused):
    """A query has taken longer than it may."""

    code = "query_timeout"


class QueriesBusy(Unavailable):
    """Too many queries wait already."""

    code = "query_busy"


class Results:
    """The files that queries made, for some minutes, each for its org."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.monotonic) -> None:
        self.folder, self._now = folder, now
        self._kept: dict[str, tuple[OrgId, float]] = {}

    def new(self, org: OrgId) -> tuple[str, Path]:
        """Return the name and the path of another file; forget those that are old."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self.folder.iterdir():
            known = self._kept.get(path.name)
            if known is None or known[1] + KEPT_S < self._now():
                path.unlink(missing_ok=True)
                self._kept.pop(path.name, None)
        name = secrets.token_hex(16)
        self._kept[name] = (org, self._now())
        return name, self.folder / name

    def read(self, org: OrgId, name: str, offset: int, size: int) -> tuple[bytes, int]:
        """Return bytes of a file and its size.

        Raises:
            NotFound: there is none of that name for this org.

        """
        known = self._kept.get(name)
        if known is None or known[0] != org:
            raise NotFound("result", name)
        self._kept[name] = (org, self._now())
        path = self.folder / name
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size), path.stat().st_size


class Queries:
    """The door to the process."""

    def __init__(self, store: Store, timeout_s: float = TIMEOUT_S) -> None:
        self._store, self.timeout_s = store, timeout_s
        self.results = Results(store.folder / "results")
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._used_at = 0.0

    async def ask(self, asked: Ask) -> Told:
        """Carry out a query; what it needs of the cold store is fetched first.

        Raises:
            Refused: it is no query, or takes more time or memory than it may.

        """
        if self._store.in_memory:
            raise Unavailable("store", "it rests in memory: no queries", code="storage")
        if self._waiting >= MOST_WAITING:
            raise QueriesBusy("query", f"{self._waiting} wait already", "try again later")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._fetched(asked)
        finally:
            self._waiting -= 1

    async def _fetched(self, asked: Ask) -> Told:
        for _ in range(3):
            told = await self._asked(asked)
            if told.error is not None:
                raise _raised(told.error)
            if not told.away:
                return told
            if self._store.fetch is None:
                break
            await self._store.fetch(told.away)
        raise Unavailable("store", "its segments were moved meanwhile", code="segments_away")

    async def _asked(self, asked: Ask) -> Told:
        process = await self._running()
        try:
            async with asyncio.timeout(self.timeout_s):
                return await _exchange(process, asked)
        except TimeoutError:
            await self.close()
            fix = "ask for a shorter time, or fewer keys"
            raise QueryLate("query", f"ended after {self.timeout_s:g} s", fix) from None
        except (asyncio.IncompleteReadError, OSError):
            await self.close()
            fix = "ask for a shorter time, fewer keys, or for fewer groups"
            raise QueryFailed("query", "its process died, most likely of memory", fix) from None
        except asyncio.CancelledError:
            await self.close()  # half an answer may be on its way
            raise
        finally:
            self._used_at = time.monotonic()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tshrag_controller.store.query_process",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", "HOME": "/nonexistent"},
                start_new_session=True,
            )  # fmt: skip
        return self._process

    @property
    def pid(self) -> int:
        """Return the process at work; 0: there is none."""
        return self._process.pid if self._process is not None else 0

    async def idle(self) -> None:
        """End the process when nobody has asked for a while; for ever."""
        try:
            while True:
                await asyncio.sleep(IDLE_S / 4)
                late = time.monotonic() - self._used_at > IDLE_S
                if self._process is not None and late and not self._waiting:
                    await self.close()
        finally:
            await self.close()

    async def close(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            transport = getattr(process, "_transport", None)
            if transport is not None:
                transport.close()


async def _exchange(process: asyncio.subprocess.Process, asked: Ask) -> Told:
    assert process.stdin is not None
    assert process.stdout is not None
    data = _ENCODER.encode(asked)
    process.stdin.write(HEAD.pack(len(data)) + data)
    await process.stdin.drain()
    head = await process.stdout.readexactly(HEAD.size)
    return _DECODER.decode(await process.stdout.readexactly(HEAD.unpack(head)[0]))


def _raised(report: ErrorReport) -> LabError:
    kind = Unavailable if report.retryable else Refused
    return kind("", report.message, code=report.code)
