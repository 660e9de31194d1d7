"""JetStream by plain request and reply: streams, consumers, appending with CAS, reading back.

nats-py's own JetStream methods are not used: they stall or lose futures when a server restarts.
A request that got no answer has an unknown outcome: it may be stored later. So what is published
here carries a message id and the sequence that it expects, and is sent again as it was.
"""

import base64
from typing import TypeVar

import msgspec

from tshrag_common.bus.connection import Bus
from tshrag_common.bus.messages import Message
from tshrag_common.errors import (
    DeadlineExceeded,
    LabError,
    NotFound,
    Refused,
    StorageFull,
    Unavailable,
    Unreachable,
)
from tshrag_common.streams import ConsumerConfig, StreamConfig

MESSAGE_ID = "Nats-Msg-Id"
EXPECTED_LAST = "Nats-Expected-Last-Sequence"
EXPECTED_LAST_ON_SUBJECT = "Nats-Expected-Last-Subject-Sequence"

_WRONG_SEQUENCE = (10071, 10164)  # of the stream or of a subject
_FULL = (10077, 10047, 10023)  # maximum bytes; resources of the server
_NOT_FOUND = (10014, 10037, 10059)  # consumer, message, stream
_NAME_IN_USE = 10058

T = TypeVar("T")


class WrongSequence(Refused):
    """Somebody else has appended: the expected last sequence is not the last one."""

    code = "wrong_sequence"


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message as a stream holds it; `stored_at` in microseconds UTC, 0 where it was not told."""

    sequence: int
    subject: str
    data: bytes
    headers: dict[str, str] = {}
    stored_at: int = 0

    @property
    def message_id(self) -> str:
        return self.headers.get(MESSAGE_ID, "")


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a stream; `last_seq` stays when messages are purged."""

    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    subjects: dict[str, int] = {}


class ConsumerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How far a consumer is: the last delivery, and the stream sequence acknowledged up to."""

    delivered: int  # counts deliveries
    acked: int  # stream sequence
    pending: int  # messages that it has not seen yet


class _ApiError(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Problem(msgspec.Struct):
    error: _ApiError | None = None


class _PubAck(msgspec.Struct):
    seq: int


class _State(msgspec.Struct):
    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    subjects: dict[str, int] | None = None


class _StreamAnswer(msgspec.Struct):
    state: _State


class _Pair(msgspec.Struct):
    consumer_seq: int = 0
    stream_seq: int = 0


class _ConsumerAnswer(msgspec.Struct):
    delivered: _Pair
    ack_floor: _Pair
    num_pending: int = 0


class _Stored(msgspec.Struct):
    subject: str
    seq: int
    data: str = ""
    hdrs: str = ""


class _StoredAnswer(msgspec.Struct):
    message: _Stored


class _Nothing(msgspec.Struct):
    """An answer whose content does not matter, only that it is no error."""


class JetStream:
    """JetStream over a Bus of the account that holds it; calls end within `timeout_s` each."""

    def __init__(self, bus: Bus, timeout_s: float = 5.0) -> None:
        self.bus = bus
        self.timeout_s = timeout_s

    async def ensure_stream(self, config: StreamConfig) -> None:
        """Make the stream, or bring an existing one to `config`; safe to repeat."""
        body = msgspec.json.encode(config)
        try:
            await self._call(f"STREAM.CREATE.{config.name}", body, _Nothing)
        except _NameInUse:
            await self._call(f"STREAM.UPDATE.{config.name}", body, _Nothing)

    async def delete_stream(self, stream: str) -> None:
        """Remove a stream with all that it holds; nothing happens where there is none."""
        try:
            await self._call(f"STREAM.DELETE.{stream}", b"", _Nothing)
        except NotFound:
            return

    async def publish_expect(
        self,
        subject: str,
        data: bytes,
        message_id: str,
        expected_last: int,
        timeout_s: float | None = None,
    ) -> int:
        """Append behind `expected_last` and return the sequence.

        Raises:
            WrongSequence: another message is last. An earlier try of this very message may be
                it: compare `message_id` with the tail.
            StorageFull: nothing was stored, and will not be until there is room.
            Unreachable: the outcome is unknown; send the identical message again.

        """
        headers = {MESSAGE_ID: message_id, EXPECTED_LAST: str(expected_last)}
        return await self.publish(subject, data, headers, timeout_s=timeout_s)

    async def publish(
        self, subject: str, data: bytes, headers: dict[str, str], timeout_s: float | None = None
    ) -> int:
        """Publish what a stream stores and return its sequence; errors as `publish_expect`."""
        try:
            answer = await self.bus.request(subject, data, timeout_s or self.timeout_s, headers)
        except DeadlineExceeded as error:
            raise Unreachable(subject, "no answer; the outcome is unknown") from error
        return decoded(subject, answer, _PubAck).seq

    async def tail(self, stream: str, subject: str = ">") -> StoredMessage | None:
        """Return the newest message (of `subject`), from the stream's leader; None if empty.

        A purge can empty a stream whose sequence goes on: see `stream_info().last_seq`.
        """
        return await self._get(stream, {"last_by_subj": subject})

    async def get(self, stream: str, sequence: int) -> StoredMessage | None:
        return await self._get(stream, {"seq": sequence})

    async def next_on(self, stream: str, subject: str, sequence: int) -> StoredMessage | None:
        """Return the first message on `subject` at or behind `sequence`; as raw bytes, so fast."""
        body = msgspec.json.encode({"seq": sequence, "next_by_subj": subject})
        answer = await self.bus.request(f"$JS.API.DIRECT.GET.{stream}", body, self.timeout_s)
        return _direct(answer)

    async def last_on(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the newest message on `subject`, as raw bytes; may be stale in a cluster."""
        body = msgspec.json.encode({"last_by_subj": subject})
        answer = await self.bus.request(f"$JS.API.DIRECT.GET.{stream}", body, self.timeout_s)
        return _direct(answer)

    async def direct(self, stream: str, sequence: int) -> StoredMessage | None:
        """Return a message as raw bytes, without the detour over base64."""
        body = msgspec.json.encode({"seq": sequence})
        answer = await self.bus.request(f"$JS.API.DIRECT.GET.{stream}", body, self.timeout_s)
        return _direct(answer)

    async def purge(self, stream: str, up_to: int, subject: str | None = None) -> None:
        """Remove all messages (of `subject`) up to sequence `up_to`, that one included."""
        wanted: dict[str, object] = {"seq": up_to + 1}
        if subject is not None:
            wanted["filter"] = subject
        await self._call(f"STREAM.PURGE.{stream}", msgspec.json.encode(wanted), _Nothing)

    async def purge_subject(self, stream: str, subject: str) -> None:
        """Remove all messages of `subject`."""
        body = msgspec.json.encode({"filter": subject})
        await self._call(f"STREAM.PURGE.{stream}", body, _Nothing)

    async def stream_info(self, stream: str, subject: str | None = None) -> StreamInfo:
        """Return the state of a stream, with the number of messages on subjects like `subject`."""
        body = msgspec.json.encode({"subjects_filter": subject}) if subject else b""
        state = (await self._call(f"STREAM.INFO.{stream}", body, _StreamAnswer)).state
        return StreamInfo(
            messages=state.messages,
            bytes=state.bytes,
            first_seq=state.first_seq,
            last_seq=state.last_seq,
            subjects=state.subjects or {},
        )

    async def ensure_consumer(self, stream: str, config: ConsumerConfig) -> ConsumerInfo:
        """Make a consumer, or bring an existing one to `config`; its position stays."""
        kind = f"CONSUMER.CREATE.{stream}.{config.name}"
        if config.filter_subject:
            kind += f".{config.filter_subject}"
        body = msgspec.json.encode({"stream_name": stream, "config": config})
        return _consumer(await self._call(kind, body, _ConsumerAnswer))

    async def consumer_info(self, stream: str, name: str) -> ConsumerInfo:
        return _consumer(await self._call(f"CONSUMER.INFO.{stream}.{name}", b"", _ConsumerAnswer))

    async def delete_consumer(self, stream: str, name: str) -> None:
        """Remove a consumer; nothing happens where there is none."""
        try:
            await self._call(f"CONSUMER.DELETE.{stream}.{name}", b"", _Nothing)
        except NotFound:
            return

    async def _get(self, stream: str, wanted: dict[str, object]) -> StoredMessage | None:
        try:
            answer = await self._call(
                f"STREAM.MSG.GET.{stream}", msgspec.json.encode(wanted), _StoredAnswer
            )
        except NotFound as error:
            if error.kind != "message":
                raise
            return None
        stored = answer.message
        return StoredMessage(
            sequence=stored.seq,
            subject=stored.subject,
            data=base64.b64decode(stored.data),
            headers=_headers(base64.b64decode(stored.hdrs)),
        )

    async def _call(self, kind: str, body: bytes, shape: type[T]) -> T:
        answer = await self.bus.request(f"$JS.API.{kind}", body, self.timeout_s)
        return decoded(kind, answer, shape)


class _NameInUse(Refused):
    """The stream is there with another configuration."""


def decoded(what: str, answer: Message, shape: type[T]) -> T:
    """Return the answer of the server as `shape`; raise the error that it tells of."""
    try:
        problem = msgspec.json.decode(answer.data, type=_Problem).error
        if problem is None:
            return msgspec.json.decode(answer.data, type=shape)
    except msgspec.DecodeError as error:
        raise Unreachable(what, f"an answer that is none of JetStream's: {error}") from error
    raise _error(what, problem)


def _error(what: str, error: _ApiError) -> LabError:
    said = error.description
    if error.err_code in _WRONG_SEQUENCE:
        return WrongSequence(what, said)
    if error.err_code in _FULL:
        return StorageFull(what, said)
    if error.err_code == _NAME_IN_USE:
        return _NameInUse(what, said)
    if error.err_code in _NOT_FOUND:
        kind = "message" if error.err_code == 10037 else "stream_or_consumer"
        return NotFound(kind, what)
    if error.code in (408, 429, 503):
        return Unavailable(what, said)
    return Refused(what, said or "an error without a description", code="jetstream")


def _consumer(answer: _ConsumerAnswer) -> ConsumerInfo:
    return ConsumerInfo(
        delivered=answer.delivered.consumer_seq,
        acked=answer.ack_floor.stream_seq,
        pending=answer.num_pending,
    )


def _direct(answer: Message) -> StoredMessage | None:
    headers = dict(answer.headers)
    sequence = headers.pop("Nats-Sequence", "")
    if not sequence.isdigit():  # 404: no such message
        return None
    return StoredMessage(
        sequence=int(sequence),
        subject=headers.pop("Nats-Subject", ""),
        data=answer.data,
        headers=headers,
    )


def _headers(raw: bytes) -> dict[str, str]:
    lines = raw.decode("utf-8", "replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {key.strip(): value.strip() for key, _, value in pairs}
