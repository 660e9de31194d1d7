"""Credentials that are exchanged on the disk while the agent works: no restart, no job notices."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from tshrag_common.errors import LabError
from tshrag_common.keys import Bundle

logger = logging.getLogger(__name__)

LOOK_S = 3.0


async def exchanged(
    read: Callable[[], Bundle], known: Bundle, every_s: float = LOOK_S
) -> AsyncIterator[Bundle]:
    """Yield the bundle whenever the file holds another one; what cannot be read is none."""
    said = ""
    while True:
        await asyncio.sleep(every_s)
        try:
            found = await asyncio.to_thread(read)
        except LabError as error:
            if error.line != said:
                logger.error("the credentials on the disk are of no use", extra={"why": error.line})
            said = error.line
            continue
        said = ""
        if found != known:
            known = found
            logger.warning("the credentials were exchanged", extra={"agent": found.name})
            yield found
