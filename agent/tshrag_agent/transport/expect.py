"""PURE: prompts in a stream of console bytes.

Several patterns at once, each a literal or a regex. The match that *ends* first wins; of two that
end together the one that began first, then the one named first. How the stream was cut into
chunks never changes the answer: whether a match ends at a byte depends on that byte and a bounded
number of bytes before it, and on nothing behind it.
"""

import re
from collections.abc import Sequence

import msgspec

from tshrag_common.console_patterns import pattern_fault
from tshrag_common.errors import Refused

WINDOW_BYTES = 1024
"""A regex sees this many bytes back, so no match of it is longer."""

BEFORE_BYTES = 4096
"""What is kept to tell people what came before a match, or instead of one."""


class BadPattern(Refused):
    """A pattern that cannot be matched in a stream."""

    code = "bad_pattern"


class Literal(msgspec.Struct, frozen=True, kw_only=True):
    """These bytes."""

    name: str
    text: bytes


class Regex(msgspec.Struct, frozen=True, kw_only=True):
    r"""A regex over bytes; ``^`` is the beginning of a line, or where the last match ended.

    Refused is what looks behind the end of a match or beyond the window: ``$``, ``\b``, ``\A``,
    lookarounds. Where a prompt "ends the line", leave the end open: the match fires as soon as
    its last byte is there.
    """

    name: str
    source: bytes
    window_bytes: int = WINDOW_BYTES


Pattern = Literal | Regex


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """``start`` and ``end`` count the bytes of the stream since the matcher was made."""

    name: str
    start: int
    end: int
    text: bytes
    groups: tuple[bytes, ...] = ()


class _Compiled:
    """One pattern, ready to say where in a buffer its first match ends."""

    def __init__(self, pattern: Pattern) -> None:
        self.name = pattern.name
        self.literal = pattern.text if isinstance(pattern, Literal) else None
        if isinstance(pattern, Literal):
            if not pattern.text:
                raise BadPattern(pattern.name, "an empty literal matches nothing and everything")
            self.reach = len(pattern.text)
            return
        self.reach = pattern.window_bytes
        self.regex = _compile(pattern)

    def first(self, buffer: bytes, new_from: int) -> tuple[int, int, tuple[bytes, ...]] | None:
        """Return (start, end, groups) of the match that ends first, behind `new_from`."""
        oldest = max(0, new_from + 1 - self.reach)
        if self.literal is not None:
            start = buffer.find(self.literal, oldest)
            return None if start < 0 else (start, start + len(self.literal), ())
        if not self.regex.search(buffer, oldest):
            return None  # nothing ends anywhere in here: the usual case, one search
        for end in range(new_from + 1, len(buffer) + 1):
            found = self.regex.search(buffer, max(0, end - self.reach), end)
            if found:
                groups = tuple(group or b"" for group in found.groups())
                return found.start(), found.end(), groups
        return None


class Matcher:
    """Feed it what the console says until it answers with a match.

    Memory is bounded by the longest reach and BEFORE_BYTES, whatever comes.
    """

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._patterns = [_Compiled(pattern) for pattern in patterns]
        self._keep = max([BEFORE_BYTES, *(p.reach + 1 for p in self._patterns)])
        self._buffer = b""
        self._offset = 0  # of the first byte of the buffer in the stream
        self._seen = 0  # bytes of the buffer that have been searched

    @property
    def before(self) -> bytes:
        """Return the last bytes that were fed and are behind no match: for people to read."""
        return self._buffer[-BEFORE_BYTES:]

    @property
    def unread(self) -> bytes:
        """Return what has been fed and not been searched: after a match, what came behind it."""
        return self._buffer[self._seen :]

    def add(self, chunk: bytes) -> None:
        """Feed `chunk` and leave the search for later."""
        self._buffer += chunk

    def feed(self, chunk: bytes = b"") -> Match | None:
        """Return the first match that is now complete; feed nothing to ask for the next one.

        Bytes behind a match stay inside and are searched when it is asked again.
        """
        self.add(chunk)
        best = min(self._candidates(), key=lambda c: (c[1], c[0], c[2]), default=None)
        if best is None:
            self._seen = len(self._buffer)
            self._trim()
            return None
        start, end, index, groups = best
        match = Match(
            name=self._patterns[index].name,
            start=self._offset + start,
            end=self._offset + end,
            text=self._buffer[start:end],
            groups=groups,
        )
        self._buffer, self._offset, self._seen = self._buffer[end:], self._offset + end, 0
        return match

    def _candidates(self) -> list[tuple[int, int, int, tuple[bytes, ...]]]:
        found = [(i, p.first(self._buffer, self._seen)) for i, p in enumerate(self._patterns)]
        return [(hit[0], hit[1], index, hit[2]) for index, hit in found if hit]

    def _trim(self) -> None:
        surplus = len(self._buffer) - self._keep
        if surplus > 0:
            self._buffer = self._buffer[surplus:]
            self._offset += surplus
            self._seen -= surplus


def _compile(pattern: Regex) -> re.Pattern[bytes]:
    """Compile what may be matched in a stream; say why where it may not."""
    fault = pattern_fault(pattern.source)
    if fault:
        raise BadPattern(pattern.name, *fault)
    return re.compile(pattern.source, re.MULTILINE)
