"""Blobs: people hand loads in, agents get loads and hand artifacts in; all by sha256."""

from collections.abc import Callable

from tshrag_common import requests as r, subjects
from tshrag_common.bus.messages import Message
from tshrag_common.errors import LabError
from tshrag_common.sources import chunks
from tshrag_controller import blobs
from tshrag_controller.answers.asker import Asker
from tshrag_controller.blobs import BlobStore


class BlobAnswers:
    """What people may do: ask, and put."""

    def __init__(self, loads: BlobStore) -> None:
        self._loads = loads

    async def has(self, asker: Asker, asked: r.BlobHas) -> r.BlobHasAnswer:
        return r.BlobHasAnswer(digests=await blobs.has(self._loads, asked.digests))

    async def put(self, asker: Asker, asked: r.BlobPut) -> r.BlobPutAnswer:
        stored = await blobs.put(self._loads, asked.digest, asked.offset, asked.total, asked.data)
        return r.BlobPutAnswer(stored=stored)


class AgentBlobs:
    """What agents may do: get loads, put artifacts."""

    def __init__(
        self, loads: BlobStore, artifacts: BlobStore, set_aside: Callable[[str, str, bytes], None]
    ) -> None:
        self._loads, self._artifacts, self._set_aside = loads, artifacts, set_aside

    async def answer(self, message: Message) -> bytes:
        try:
            subjects.agent_of(message.subject)
            asked = chunks.BLOB_ASK.decode(message.data)
        except LabError as error:
            self._set_aside(message.subject, error.line, message.data)
            failed = chunks.BlobFailed(error=error.report())
            return chunks.BLOB_ANSWER.encode(chunks.BlobAnswer(failed))
        return chunks.BLOB_ANSWER.encode(await blobs.answer(self._loads, self._artifacts, asked))
