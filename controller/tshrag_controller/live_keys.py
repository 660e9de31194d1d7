"""The keys of the lab as they are now: exchanged by the command line while a controller runs.

Whoever rotates writes ``keys.json``; it is looked at every two seconds, by its time and size. What
comes sealed by a key that is not known yet is set aside meanwhile, and asked for again.

Keys are issued on one machine. A controller that has joined from another asks the one there for
them, now and then, and keeps what it is told: after a takeover it signs by the key of today.
"""

import asyncio
import hashlib
import logging
import secrets
from pathlib import Path

from tshrag_common import subjects
from tshrag_common.bus.connection import Bus
from tshrag_common.bus.messages import Message
from tshrag_common.errors import LabError
from tshrag_common.ids import AgentId
from tshrag_common.keys import write_secret
from tshrag_common.labkeys import LabKeys, keys_in, load_lab
from tshrag_common.seals import CommandSigner, closed, opened

logger = logging.getLogger(__name__)

_LOOK_S = 2.0
ASK_S, ANSWER_S = 10.0, 2.0
_NONCE = 16


class LiveKeys:
    """Seals commands, and knows by which keys reports are sealed."""

    def __init__(self, keys: LabKeys, path: Path, bus: Bus, *, issues: bool) -> None:
        self._path, self._bus, self._issues = path, bus, issues
        self._seen = (0, 0)
        self._asked: asyncio.Queue[Message] = asyncio.Queue(64)
        self._take(keys)

    def mac_keys(self, agent: AgentId) -> tuple[bytes, ...]:
        return self._keys.mac_keys(agent)

    def seal(self, agent: AgentId, payload: bytes) -> bytes:
        return self._signer.seal(agent, payload)

    async def follow(self) -> None:
        """Take over what is written, tell it to others or ask for it, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look(), name="keys-look")
            group.create_task(self._tell() if self._issues else self._learn(), name="keys-share")

    async def _look(self) -> None:
        while True:
            keys = await asyncio.to_thread(self._changed)
            if keys is not None:
                self._take(keys)
                logger.info("the keys of the lab were changed")
            await asyncio.sleep(_LOOK_S)

    async def _tell(self) -> None:
        """Tell the keys to controllers that ask and have others; sealed by what both know."""
        subscription = await self._bus.subscribe(subjects.ctl_keys(), self._hear)
        try:
            while True:
                await self._answer(await self._asked.get())
        finally:
            await subscription.end()

    async def _answer(self, message: Message) -> None:
        nonce, has = message.data[:_NONCE], message.data[_NONCE:]
        try:
            data = await asyncio.to_thread(self._path.read_bytes)
            said = b"" if has == _digest(data) else data
            await self._bus.respond(message, closed(self._keys.secret, nonce, said))
        except (LabError, OSError) as error:
            logger.warning("the keys were not told", extra={"why": str(error)})

    def _hear(self, message: Message) -> None:
        if not self._asked.full():  # whoever is not answered asks again
            self._asked.put_nowait(message)

    async def _learn(self) -> None:
        """Ask for the keys; as long as nobody answers who issues them, ours are good."""
        while True:
            try:
                await self._ask()
            except (LabError, OSError) as error:
                logger.debug("the keys were not told", extra={"why": str(error)})
            await asyncio.sleep(ASK_S)

    async def _ask(self) -> None:
        nonce = secrets.token_bytes(_NONCE)
        has = _digest(await asyncio.to_thread(self._path.read_bytes))
        answer = await self._bus.request(subjects.ctl_keys(), nonce + has, ANSWER_S)
        said = opened(self._keys.secret, nonce, answer.data)
        if not said:
            return
        keys = keys_in(said, "keys of the first controller")
        if keys.operator == self._keys.operator:
            await asyncio.to_thread(write_secret, self._path, said)  # taken by the next look

    def _take(self, keys: LabKeys) -> None:
        self._keys, self._signer = keys, CommandSigner(keys.controller)

    def _changed(self) -> LabKeys | None:
        """Return the keys where the file is another than before."""
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return None
            keys = load_lab(self._path)
        except (OSError, LabError) as error:
            logger.warning("keys.json cannot be read", extra={"why": str(error)})
            return None
        self._seen = seen
        return keys


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
