"""The keys of the lab as they are now: exchanged by the command line while a controller runs.

Whoever rotates writes ``keys.json``; it is looked at every two seconds, by its time and size. What
comes sealed by a key that is not known yet is set aside meanwhile, and asked for again.
"""

import asyncio
import logging
from pathlib import Path

from tshrag_common.errors import LabError
from tshrag_common.ids import AgentId
from tshrag_common.labkeys import LabKeys, load_lab
from tshrag_common.seals import CommandSigner

logger = logging.getLogger(__name__)

_LOOK_S = 2.0


class LiveKeys:
    """Seals commands, and knows by which keys reports are sealed."""

    def __init__(self, keys: LabKeys, path: Path) -> None:
        self._path = path
        self._seen = (0, 0)
        self._take(keys)

    def mac_keys(self, agent: AgentId) -> tuple[bytes, ...]:
        return self._keys.mac_keys(agent)

    def seal(self, agent: AgentId, payload: bytes) -> bytes:
        return self._signer.seal(agent, payload)

    async def follow(self) -> None:
        """Take over what is written, for ever."""
        while True:
            keys = await asyncio.to_thread(self._changed)
            if keys is not None:
                self._take(keys)
                logger.info("the keys of the lab were changed")
            await asyncio.sleep(_LOOK_S)

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
