"""A message of the bus, and the sizes beyond which it is not sent."""

from collections.abc import Mapping

import msgspec

from tshrag_common.errors import Refused
from tshrag_common.subjects import MAX_SUBJECT_BYTES

MAX_HEADER_BYTES = 4096

Headers = Mapping[str, str]


class Message(msgspec.Struct, frozen=True):
    """A message as it arrived; `status` is set where the server itself speaks."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str]

    @property
    def status(self) -> str:
        return "" if self.data else self.headers.get("Status", "")


def check_sizes(subject: str, data: bytes, headers: Headers | None, max_payload: int) -> None:
    """Refuse (``payload_too_large``) what the server would answer by closing for good."""
    if len(subject.encode()) > MAX_SUBJECT_BYTES:
        raise _too_large("subject", len(subject.encode()), MAX_SUBJECT_BYTES)
    size = 0
    if headers:
        size = sum(len(k.encode()) + len(v.encode()) + 4 for k, v in headers.items())
        if size > MAX_HEADER_BYTES:
            raise _too_large("headers", size, MAX_HEADER_BYTES)
        size += 16  # the line before them and the empty one behind
    if len(data) + size > max_payload:
        raise _too_large("", len(data) + size, max_payload)


def _too_large(where: str, size: int, limit: int) -> Refused:
    return Refused(where, f"{_bytes(size)} > {_bytes(limit)}", code="payload_too_large")


def _bytes(count: int) -> str:
    for unit, size in (("MB", 1 << 20), ("KB", 1 << 10)):
        if count >= size:
            return f"{count / size:.2g} {unit}"
    return f"{count} B"
