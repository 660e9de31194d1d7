"""One GET over a connection that somebody else has opened: HTTP/1.0, bounded, no redirects."""

import re

from tshrag_agent.scrape.exposition import MOST_BYTES
from tshrag_agent.transport.streams import READ_BYTES, ByteReader, ByteWriter
from tshrag_common.errors import Unavailable, shown

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?")
_MOST_HEAD = 16 << 10
_ACCEPT = "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.5"


class ScrapeFailed(Unavailable):
    """An endpoint that gave no answer that could be taken."""

    code = "scrape_failed"


async def get(reader: ByteReader, writer: ByteWriter, port: int, path: str) -> bytes:
    """Return the body.

    Raises:
        ScrapeFailed: another status than 200, a body that is encoded, cut or too large.

    """
    asked = f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nAccept: {_ACCEPT}\r\n\r\n"
    writer.write(asked.encode("ascii"))
    await writer.drain()
    answer = bytearray()
    while data := await reader.read(READ_BYTES):
        answer += data
        if len(answer) > MOST_BYTES + _MOST_HEAD:
            raise ScrapeFailed(path, f"answers more than {MOST_BYTES} bytes")
    return body_of(bytes(answer), path)


def body_of(answer: bytes, path: str) -> bytes:
    """Return the body of a whole answer."""
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank or len(head) > _MOST_HEAD:
        raise ScrapeFailed(path, "answers no HTTP" if answer else "answers nothing")
    status, *lines = head.split(b"\r\n")
    match = _STATUS.fullmatch(status)
    if match is None:
        raise ScrapeFailed(path, f"answers {shown(status.decode('latin-1'), 60)}")
    if match[1] != b"200":
        raise ScrapeFailed(path, f"answers status {int(match[1])}; redirects are not followed")
    for line in lines:
        name, _, value = line.partition(b":")
        match name.strip().lower():
            case b"content-length" if value.strip() != str(len(body)).encode():
                raise ScrapeFailed(path, f"{len(body)} bytes came: the answer was cut")
            case b"transfer-encoding" | b"content-encoding" if value.strip() != b"identity":
                raise ScrapeFailed(path, "answers encoded, which nobody asked for")
    return body
