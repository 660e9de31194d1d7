r"""PURE: what is typed into a shell on a console, and how its answers are told from all else.

A shell is asked to print marks around what it does: RS, a nonce, a letter, RS. The typed line
says ``\036`` where the mark has the byte, so that no echo of a line, however it is wrapped, is
ever taken for a mark; and no program can print one, for the nonce is drawn anew for every line.
"""

import re

RECORD = b"\x1e"
_PIECE_BYTES = 320  # with all around it 600: busybox takes 1024 a line, a tty in line mode 4095
_STATUS_BYTES = 4096  # of what may stand in the end mark: a status, and pids that are left
_PLAIN = frozenset(range(0x20, 0x7F)) - frozenset(b"\\'!")  # '!' recalls history in some shells


def question(nonce: str, text: str) -> bytes:
    """Return the line that does `text` between a begin mark and an end mark with its status."""
    return f"printf '\\036%sB\\036' {nonce};{text};printf '\\036%sE%s\\036\\n' {nonce} $?".encode()


class Cut:
    """Cuts the answer to one question out of what a console says, as it comes.

    What stands before the begin mark is echo and noise; behind the end mark nothing is ours. A
    possible piece of a mark is held back until it is known to be one or not. With `crlf` the
    tty adds CR before LF and could not be told to leave that; then it is taken out again.
    """

    def __init__(self, nonce: str, *, crlf: bool = False) -> None:
        self._begin = RECORD + nonce.encode() + b"B" + RECORD
        self._end = RECORD + nonce.encode() + b"E"
        self._crlf = crlf
        self._held = b""
        self.began = False
        self.end: str | None = None
        """What the end mark says, once it has come: a status, perhaps more words."""

    @property
    def held(self) -> bytes:
        """Return what is held back of an output that has begun."""
        return self._held if self.began and self.end is None else b""

    def feed(self, data: bytes) -> bytes:
        """Return what of `data`, and of what was held back, is output."""
        if self.end is not None:
            return b""
        held = self._held + data
        if not self.began:
            before, found, behind = held.partition(self._begin)
            if not found:
                self._held = before[-len(self._begin) :]
                return b""
            self.began, held = True, behind
        return self._output(held)

    def _output(self, held: bytes) -> bytes:
        output, found, behind = held.partition(self._end)
        if not found:
            keep = _possible(held, self._end)
            if self._crlf and not keep and held.endswith(b"\r"):
                keep = 1
            self._held = held[len(held) - keep :]
            return self._plain(held[: len(held) - keep])
        said, closed, _ = behind.partition(RECORD)
        if closed or len(behind) > _STATUS_BYTES:
            self.end, self._held = said.decode("ascii", "replace"), b""
        else:
            self._held = found + behind
        return self._plain(output)

    def _plain(self, output: bytes) -> bytes:
        return output.replace(b"\r\n", b"\n") if self._crlf else output


def _possible(held: bytes, mark: bytes) -> int:
    """Return how many bytes at the end of `held` may be the beginning of `mark`."""
    at = held.rfind(RECORD, max(0, len(held) - len(mark)))
    return len(held) - at if at >= 0 and mark.startswith(held[at:]) else 0


def status_of(end: str) -> tuple[int, tuple[int, ...]]:
    """Return (status, pids that are left) of an end mark; a damaged one is status 255."""
    numbers = [int(word) if re.fullmatch(r"[0-9]{1,10}", word) else 255 for word in end.split()]
    return (numbers[0], tuple(numbers[1:])) if numbers else (255, ())


def pieces(script: bytes) -> list[str]:
    r"""Return `script` as short texts for ``printf %b``: printable, and nothing to complete.

    A TAB or an ESC that is typed would be taken by the line editor of the shell.
    """
    found, piece = list[str](), ""
    for byte in script:
        piece += chr(byte) if byte in _PLAIN else "\\\\" if byte == 0x5C else f"\\0{byte:03o}"
        if len(piece) >= _PIECE_BYTES:
            found.append(piece)
            piece = ""
    return [*found, piece] if piece else found
