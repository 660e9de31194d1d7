"""Committed frames -> the projection, in batches; what is in it is confirmed to the agents.

Now and then a checkpoint follows: the Lab between two turns, a copy of the projection, stored
together; the LOG behind them is purged.
"""

import asyncio
import logging
import tempfile
from pathlib import Path

from tshrag_common.errors import LabError
from tshrag_common.failpoints import failpoint
from tshrag_common.ids import AgentId
from tshrag_controller.core.events import SpoolApplied
from tshrag_controller.engine import Engine
from tshrag_controller.log.checkpoint import Checkpoints, Copy
from tshrag_controller.log.frames import Frame
from tshrag_controller.store.store import Store

logger = logging.getLogger(__name__)

MOST_FRAMES = 256
RETRY_S = 1.0
CHECKPOINT_AGAIN_S = 30.0
"""How long a checkpoint that could not be stored waits before it is tried again."""


class Projecting:
    """A queue of frames; ``reports`` tells how far each agent's reports rest in the projection."""

    def __init__(
        self, store: Store, engine: Engine, checkpoints: Checkpoints, every_frames: int
    ) -> None:
        self._store, self._engine = store, engine
        self._checkpoints, self._every = checkpoints, every_frames
        self._frames: asyncio.Queue[tuple[int, Frame]] = asyncio.Queue()
        self._since = 0
        self._due = asyncio.Event()
        self._storing = asyncio.Lock()
        self.reports: dict[AgentId, tuple[str, int]] = {}
        self.trouble = ""

    def put(self, sequence: int, frame: Frame) -> None:
        self._frames.put_nowait((sequence, frame))

    async def recall(self) -> None:
        """Read back, after a start, what is confirmed already."""
        for agent, kind, spool, upto in await self._store.marks():
            if kind == "reports":
                self.reports[AgentId(agent)] = (spool, upto)

    async def project(self) -> None:
        """Write frames for ever; while the disk does not take them, they wait in the LOG."""
        while True:
            frames = [await self._frames.get()]
            while len(frames) < MOST_FRAMES and not self._frames.empty():
                frames.append(self._frames.get_nowait())
            failpoint("projecting.taken")
            await self._write(frames)
            failpoint("projecting.stored")
            for _, frame in frames:
                for event in frame.events:
                    if isinstance(event, SpoolApplied):
                        self.reports[event.agent] = (event.spool, event.upto)
            self._since += len(frames)
            if self._since >= self._every:
                self._due.set()

    async def _write(self, frames: list[tuple[int, Frame]]) -> None:
        while True:
            try:
                await self._store.project(frames)
                self.trouble = ""
                return
            except LabError as error:
                self.trouble = error.line
                logger.error("the projection does not take frames", extra={"why": error.line})
            except Exception as bug:  # ours: the lab goes on, reads stand still, and it is shown
                self.trouble = f"internal: the projection cannot take a frame ({bug})"
                logger.exception("the projection cannot take a frame")
            await asyncio.sleep(RETRY_S)

    def want_checkpoint(self) -> None:
        """Let one be stored soon, though not so many frames have come."""
        self._due.set()

    async def keep_checkpoints(self) -> None:
        """Store a checkpoint whenever enough frames have come since the last one."""
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await self.checkpoint()
            except (LabError, OSError) as error:  # a full or slow disk: the LOG keeps all
                logger.error("no checkpoint was stored", extra={"why": str(error)})
                await asyncio.sleep(CHECKPOINT_AGAIN_S)
                self._due.set()

    async def checkpoint(self) -> None:
        """Store a checkpoint now; does nothing where no frame has come since the last one.

        A second one waits for the first: a stop must not take one for done that it cuts off.
        """
        async with self._storing:
            since = self._since
            if since:
                await self._store_checkpoint()
                self._since -= since

    async def _store_checkpoint(self) -> None:
        lab, sequence, ev_hi = await self._engine.snapshot()
        await self._store.wait_applied(sequence, 30.0)
        with tempfile.TemporaryDirectory(prefix="checkpoint-", dir=self._store.folder) as folder:
            path = Path(folder, "projection.db")
            projected = await self._store.backup(path)
            await self._checkpoints.store(lab, sequence, ev_hi, Copy(path, projected))
