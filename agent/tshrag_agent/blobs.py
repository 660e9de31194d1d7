"""Loads down and artifacts up, by digest, as requests to any controller."""

from collections.abc import Callable

from tshrag_common import subjects
from tshrag_common.bus.connection import Bus
from tshrag_common.errors import LabError, Refused, Unavailable, Unreachable
from tshrag_common.ids import AgentId
from tshrag_common.sources.chunks import (
    BLOB_ANSWER,
    BLOB_ASK,
    BlobAsk,
    BlobChunk,
    BlobFailed,
    BlobGet,
    BlobPut,
    BlobStored,
    data_of,
    piece_of,
)

_ANSWER_S = 20.0


class BlobClient:
    """The agent's end; without the bus it waits for it, up to the deadline of an answer."""

    def __init__(self, agent: AgentId, bus: Callable[[], Bus | None]) -> None:
        self._subject = subjects.said(agent, "blob")
        self._bus = bus

    async def get(self, digest: str, offset: int) -> bytes:
        """Return the bytes from `offset` on, a piece of them; none at the end.

        Raises:
            Refused, Unavailable: what the controller said.
            Unreachable, DeadlineExceeded: nobody answered.

        """
        match await self._ask(BlobGet(digest=digest, offset=offset)):
            case BlobChunk(piece=piece):
                return data_of(piece)
            case other:
                raise _error(other)

    async def put(self, digest: str, offset: int, total: int, data: bytes) -> int:
        """Hand in a piece; return how much of the blob is stored. Errors as of `get`."""
        ask = BlobPut(digest=digest, offset=offset, total=total, piece=piece_of(data))
        match await self._ask(ask):
            case BlobStored(stored=stored):
                return stored
            case other:
                raise _error(other)

    async def _ask(self, ask: BlobGet | BlobPut) -> BlobChunk | BlobStored | BlobFailed:
        bus = self._bus()
        if bus is None:
            raise Unreachable("blob", "there is no connection to the bus")
        message = await bus.request(self._subject, BLOB_ASK.encode(BlobAsk(ask)), _ANSWER_S)
        return BLOB_ANSWER.decode(message.data).answer


def _error(answer: BlobChunk | BlobStored | BlobFailed) -> LabError:
    if not isinstance(answer, BlobFailed):
        return Refused("blob", f"a {type(answer).__name__} was not asked for", code="bad_message")
    kind = Unavailable if answer.error.retryable else Refused
    return kind("blob", answer.error.message, code=answer.error.code)
