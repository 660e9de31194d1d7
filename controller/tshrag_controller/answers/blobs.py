"""Blobs: people hand loads in, agents get loads and hand artifacts in; all by sha256."""

from tshrag_common import requests as r, subjects
from tshrag_common.bus.messages import Message
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

    def __init__(self, loads: BlobStore, artifacts: BlobStore) -> None:
        self._loads, self._artifacts = loads, artifacts

    async def answer(self, message: Message) -> bytes:
        subjects.agent_of(message.subject)
        asked = chunks.BLOB_ASK.decode(message.data)
        return chunks.BLOB_ANSWER.encode(await blobs.answer(self._loads, self._artifacts, asked))
