"""The tar format, as little of it as loads need: headers written one way, read with suspicion.

Written: ustar with everything that differs between machines set to zero, and a pax record for
names of more than 100 bytes. Read: ustar, pax and GNU long names; what names a link, a device or
a hole is refused by name. (POSIX.1-2017, pax, "ustar Interchange Format".)
"""

from collections.abc import Iterator
from typing import Protocol

import msgspec

from tshrag_common.errors import shown
from tshrag_common.sources.faults import (
    ArchiveBroken,
    ArchiveKind,
    ArchiveLimit,
    ArchiveLink,
    ArchiveName,
)

BLOCK = 512
CHUNK = 1 << 18
END = bytes(2 * BLOCK)

_MAX_RECORD = 64 << 10  # of one pax header or long name: they are held in memory
_MAX_RECORDS = 32  # in a row, before a member
_LINKS = b"12"
_KINDS = {b"3": "a device", b"4": "a device", b"6": "a fifo", b"S": "a sparse file"}


class Source(Protocol):
    """What members are read from; `read` gives `count` bytes, fewer only at the end."""

    def read(self, count: int) -> bytes: ...


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A regular file or a directory of a tar."""

    name: str
    is_directory: bool
    executable: bool
    size: int


def header(name: str, *, is_directory: bool, executable: bool, size: int) -> bytes:
    """Return the blocks that stand before a member's data; equal for equal arguments."""
    encoded = name.encode() + (b"/" if is_directory else b"")
    mode = 0o755 if executable or is_directory else 0o644
    kind = b"5" if is_directory else b"0"
    if len(encoded) <= 100:
        return _block(encoded, mode, size, kind)
    record = _record(b"path", encoded)
    first = _block(b"pax/long-name", 0o644, len(record), b"x") + record + padding(len(record))
    return first + _block(encoded[:100], mode, size, kind)


def padding(size: int) -> bytes:
    """Return the zeros that fill the last block of `size` bytes."""
    return bytes(-size % BLOCK)


class TarReader:
    """Members one after the other; take each one's data before the next."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._name = ""  # of the last member, for errors
        self._left = 0
        self._pad = 0

    def members(self) -> Iterator[Member]:
        """Give every member up to the end mark.

        Raises:
            ArchiveBroken, ArchiveLink, ArchiveKind, ArchiveName: what is wrong, and where.

        """
        while True:
            for _ in self.data():
                pass  # what nobody took
            member = self._next()
            if member is None:
                return
            yield member

    def data(self) -> Iterator[bytes]:
        """Give the data of the member at hand."""
        while self._left:
            chunk = self._read(min(CHUNK, self._left))
            self._left -= len(chunk)
            yield chunk
        self._read(self._pad)
        self._pad = 0

    def _next(self) -> Member | None:
        renamed = ""
        for _ in range(_MAX_RECORDS):
            block = self._read(BLOCK)
            if block == bytes(BLOCK):
                return None
            size = self._checked_size(block)
            kind = block[156:157]
            if kind not in (b"x", b"g", b"L", b"K"):
                return self._member(block, kind, size, renamed)
            record = self._take_record(size)
            if kind == b"x":
                renamed = _pax_path(record) or renamed
            elif kind == b"L":
                renamed = _text(record.rstrip(b"\0"))
        raise ArchiveLimit("", f"> {_MAX_RECORDS} headers before one member")

    def _member(self, block: bytes, kind: bytes, size: int, renamed: str) -> Member:
        name = self._name = renamed or _header_name(block)
        if kind in (b"1", b"2"):
            raise ArchiveLink(name, _text(_until_nul(block[157:257])))
        is_directory = kind == b"5" or (kind == b"\0" and name.endswith("/"))
        if not is_directory and kind not in (b"0", b"\0", b"7"):
            raise ArchiveKind(name, _KINDS.get(kind, "of an unknown kind"))
        if is_directory and size:
            raise ArchiveBroken("", f"a directory with data at member {shown(name)}")
        self._left, self._pad = size, -size % BLOCK
        executable = bool(_number(block[100:108]) & 0o100)
        return Member(name=name, is_directory=is_directory, executable=executable, size=size)

    def _take_record(self, size: int) -> bytes:
        if size > _MAX_RECORD:
            raise ArchiveLimit("", f"a header of {size} bytes")
        record = self._read(size)
        self._read(-size % BLOCK)
        return record

    def _checked_size(self, block: bytes) -> int:
        total = sum(block[:148]) + 8 * 32 + sum(block[156:])
        size = _number(block[124:136])
        if _number(block[148:156]) != total or size < 0:
            after = f"damaged after member {shown(self._name)}" if self._name else "no tar or zip"
            raise ArchiveBroken("", after)
        return size

    def _read(self, count: int) -> bytes:
        data = self._source.read(count)
        if len(data) < count:
            where = f"member {shown(self._name)}" if self._name else "the start"
            raise ArchiveBroken("", f"unexpected end at {where}")
        return data


def _block(name: bytes, mode: int, size: int, kind: bytes) -> bytes:
    fields = [
        name.ljust(100, b"\0"),
        b"%07o\0" % mode,
        b"0000000\0" * 2,  # uid, gid
        b"%011o\0" % size,
        b"00000000000\0",  # mtime
        b" " * 8,
        kind,
        bytes(100),
        b"ustar\x0000",
    ]
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """Return a pax record: its length counts its own digits too."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _pax_path(records: bytes) -> str:
    """Return the name in pax records; refuse what would change the size behind our back."""
    path = ""
    while records:
        digits, space, _ = records[:24].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record, records = records[:length], records[length:]
        if length <= len(digits) + 1 or not record.endswith(b"\n"):
            raise ArchiveBroken("", "damaged pax header")
        key, _, value = record[len(digits) + 1 : -1].partition(b"=")
        if key == b"path":
            path = _text(value)
        if key == b"size" or key.startswith(b"GNU.sparse"):
            raise ArchiveBroken("", f"pax header {shown(_text(key))} is not read")
    return path


def _header_name(block: bytes) -> str:
    name, prefix = _until_nul(block[:100]), b""
    if block[257:263] == b"ustar\0":
        prefix = _until_nul(block[345:500])
    return _text(prefix + b"/" + name if prefix else name)


def _number(field: bytes) -> int:
    """Return an octal field, or GNU's base 256; -1 for what is neither."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.rstrip(b"\0 ").lstrip(b" ")
    if not digits:
        return 0
    return int(digits, 8) if all(byte in b"01234567" for byte in digits) else -1


def _until_nul(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ArchiveName(data.decode(errors="replace"), "is not UTF-8") from None
