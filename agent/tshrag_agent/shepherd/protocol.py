"""What agent and shepherd say to each other over the UNIX socket.

A frame is four bytes of length and one JSON object, so that an old shepherd and a new agent
understand each other. Many questions, answers and exits travel in one frame::

    agent -> shepherd   {"ops": [[n, "start", {...}], [n, "end", {...}], ...]}
    shepherd -> agent   {"hello": {...}}  first, then
                        {"answers": [[n, {...}], ...], "exits": [{...}, ...]}

Text that is no UTF-8 (arguments, environment, paths) travels as Python's surrogateescape.
"""

import json
import marshal
import os
from collections.abc import Callable, Iterator
from typing import Any

VERSION = 1
SOCKET_NAME = "shepherd.sock"
LOCK_NAME = "shepherd.lock"
LARGEST_FRAME = 32 * 1024 * 1024
OUTPUT_BYTES = 64 * 1024 * 1024
"""How much of each output stream stays on disk where nothing else is asked."""
_LENGTH_BYTES = 4
_LONGEST_ADDRESS = 107  # sun_path holds 108 bytes, one of them the final NUL

Message = dict[str, Any]

to_json = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make one at each call


class BadFrame(Exception):
    """The other side speaks something else: the connection is of no further use."""


class Rejected(Exception):
    """A question cannot be granted; the agent turns it into an error of the lab."""

    def __init__(self, code: str, where: str, what: str, fix: str = "") -> None:
        super().__init__(f"{code}: {where}: {what}")
        self.code, self.where, self.what, self.fix = code, where, what, fix

    def answer(self) -> Message:
        error = {"code": self.code, "where": self.where, "what": self.what, "fix": self.fix}
        return {"error": error}


def frame(message: Message) -> bytes:
    """Encode one message as a frame."""
    body = to_json(message).encode("ascii")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def inner_frame(message: Message) -> bytes:
    """Encode a message between shepherd and hand, who are the same program: marshal is quicker."""
    body = marshal.dumps(message)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def inner_frames() -> "Frames":
    return Frames(marshal.loads)


class Frames:
    """Cut a stream of bytes, as it comes, into messages."""

    def __init__(self, decode: Callable[[bytes], Message] | None = None) -> None:
        self._buffer = bytearray()
        self._decode = decode or _message

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield every message that is complete now; raise BadFrame for what is none."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _LENGTH_BYTES:
            size = int.from_bytes(self._buffer[start : start + _LENGTH_BYTES], "big")
            if size > LARGEST_FRAME:
                raise BadFrame(f"a frame of {size} bytes; the largest is {LARGEST_FRAME}")
            end = start + _LENGTH_BYTES + size
            if len(self._buffer) < end:
                break
            yield self._decode(bytes(self._buffer[start + _LENGTH_BYTES : end]))
            start = end
        del self._buffer[:start]


def _message(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"no JSON: {error}") from None
    if not isinstance(message, dict):
        raise BadFrame("no JSON object")
    return message


def socket_address(folder: str, folder_fd: int) -> str:
    """Return a path of the socket in `folder` that fits into a socket address.

    A longer one goes by way of `folder_fd`, an open descriptor of the same folder, which must
    stay open until the address has been used.
    """
    path = f"{folder}/{SOCKET_NAME}"
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        return path
    return f"/proc/self/fd/{folder_fd}/{SOCKET_NAME}"
