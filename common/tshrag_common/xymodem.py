"""PURE: XMODEM and YMODEM, both sides, with CRC: what U-Boot, lrzsz and busybox speak.

A machine takes what is heard and returns what is to be sent; when nothing is heard for
``silence_s`` it is told so. The protocol is driven by the receiver: it asks again for what did not
arrive whole, and the sender repeats nothing by itself, or one answer would count for two blocks.

    sender                 receiver
                    <- C   every two seconds
    block 0 (name, size) ->        YMODEM only
                    <- ACK C
    block 1 ->      <- ACK         NAK: the same again
    EOT ->          <- NAK
    EOT ->          <- ACK C
    block 0 (empty) -> <- ACK      YMODEM only
"""

import binascii
import re
from typing import Literal

SOH, STX, EOT, ACK, NAK, CAN, ASK = 1, 2, 4, 6, 0x15, 0x18, ord("C")
CANCEL = bytes((CAN,)) * 8 + b"\b" * 8
FILL = b"\x1a"
"""What stands behind the end of the last block."""
SILENCE_S = 2.0
REST_S = 0.1
"""Before what was asked for is sent: lrzsz forgets what comes within the same instant."""


_SMALL, _LARGE = 128, 1024
_MOST_ERRORS = 20
_MOST_SILENCES = 30
_PURGE_S = 0.5
_WORDS = (ACK, NAK, CAN, ASK)
_START = re.compile(rb"(?:^|[^\x20-\x7e])C+\Z|\x15\Z")
"""How a receiver begins to ask; a C inside a line of text is none."""

State = Literal["going", "done", "failed"]


class _Machine:
    def __init__(self) -> None:
        self.state: State = "going"
        self.why = ""
        self.silence_s = SILENCE_S
        self.done_bytes = 0
        self._errors = self._silences = 0

    def _fail(self, why: str) -> bytes:
        self.state, self.why = "failed", why
        return CANCEL

    def hang_up(self) -> None:
        """Take note that the other side has ended: well, where the file itself is through."""
        self.state, self.why = "failed", "the other side has ended"

    def cancel(self) -> bytes:
        """Give up; return what tells the other side so."""
        return self._fail("cancelled here")


class Sender(_Machine):
    """Sends one file; with a name by YMODEM, without by XMODEM (which pads it with 0x1A)."""

    def __init__(self, data: bytes, name: str = "") -> None:
        super().__init__()
        self._data, self._name = data, name
        self._phase: Literal["start", "header", "open", "data", "eot", "close", "last"] = "start"
        self._number = self._size = 0
        self._crc = True
        self._packet = b""
        self._quiet = False  # since the last packet
        self._last = 0
        self._tail = b""
        self.unread = b""
        """What was said behind the end."""
        self.filled_bytes = 0
        """What the last block was filled up with; by YMODEM the receiver knows the size."""

    def begin(self) -> bytes:
        return b""

    @property
    def is_through(self) -> bool:
        """Tell whether every block has been acknowledged; what follows is good manners."""
        return self._phase in ("eot", "close", "last")

    def hang_up(self) -> None:
        """Take note of its end; rb leaves, and its last ACK is lost with its terminal's buffer."""
        super().hang_up()
        if self.is_through:
            self.state = "done"

    def silence(self) -> bytes:
        self._quiet = True
        self._silences += 1
        if self._phase in ("close", "last") and self._silences > 2:
            self.state = "done"  # the file itself has been acknowledged
        elif self._silences > _MOST_SILENCES:
            return self._fail(f"nothing was heard for {_MOST_SILENCES * SILENCE_S:g} s")
        return b""

    def feed(self, data: bytes) -> bytes:
        self._silences = 0
        if self._phase == "start":
            self._tail = (self._tail + data)[-64:]
            if not _START.search(self._tail):
                return self._cancelled(data)
            self._crc = self._tail[-1] == ASK
            return self._begin()
        out, repeated = b"", False
        for place, byte in enumerate(data):
            if self._is_over(byte):
                self.unread = data[place:]
                break
            if self._cancelled(bytes((byte,))):
                return CANCEL
            if byte == NAK or (byte == ASK and self._asks_again):
                out += b"" if repeated else self._again()
                repeated = True
            elif byte in (ACK, ASK):
                out += self._on(byte)
        return out

    def _is_over(self, byte: int) -> bool:
        """Tell whether all is said; behind the file, what is no word is whoever comes after it."""
        if self.state == "going" and byte not in _WORDS and self._phase in ("close", "last"):
            self.state = "done"
        return self.state != "going"

    @property
    def _asks_again(self) -> bool:
        """Tell whether a C is the receiver's NAK: it polls on for what has not come."""
        first = self._phase == "data" and self._number == 1
        waits = first or self._phase in ("header", "eot", "last")
        return waits and self._quiet

    def _cancelled(self, data: bytes) -> bytes:
        for byte in data:
            if byte == CAN and self._last == CAN:
                return self._fail("the other side has cancelled")
            self._last = byte
        return b""

    def _begin(self) -> bytes:
        if self._name:
            self._phase = "header"
            size = str(len(self._data)).encode()
            return self._send(0, self._name.encode() + b"\0" + size + b" ", b"\0")
        return self._next()

    def _on(self, byte: int) -> bytes:
        self._errors = 0
        match self._phase, byte:
            case ("header", 6):  # ACK
                self._phase = "open"
            case ("open", 67):  # ASK
                return self._next()
            case ("data", 6):
                self.done_bytes += self._size
                return self._next()
            case (("eot" | "close" | "last"), _):
                return self._closing(byte)
            case _:
                pass
        return b""

    def _closing(self, byte: int) -> bytes:
        """See the end acknowledged; by YMODEM a receiver then asks for another file."""
        if byte == ASK and self._phase == "close":
            self._phase = "last"
            return self._send(0, b"", b"\0")
        if byte == ACK and self._phase == "eot" and self._name:
            self._phase = "close"
        elif byte == ACK and self._phase != "close":
            self.state = "done"
        return b""

    def _next(self) -> bytes:
        rest = self._data[self.done_bytes :]
        if not rest:
            self._phase = "eot"
            self._packet = bytes((EOT,))
            self._quiet = False
            return self._packet
        self._phase = "data"
        self._number += 1
        large = self._crc and len(rest) > _LARGE - _SMALL
        part = rest[: _LARGE if large else _SMALL]
        self._size = len(part)
        self.filled_bytes = (_SMALL if len(part) <= _SMALL else _LARGE) - len(part)
        return self._send(self._number & 0xFF, part, FILL)

    def _send(self, number: int, part: bytes, fill: bytes) -> bytes:
        size = _SMALL if len(part) <= _SMALL else _LARGE
        body = part.ljust(size, fill)
        if self._crc:
            check = binascii.crc_hqx(body, 0).to_bytes(2, "big")
        else:
            check = bytes((sum(body) & 0xFF,))
        head = bytes((SOH if size == _SMALL else STX, number, 255 - number))
        self._packet, self._quiet = head + body + check, False
        return self._packet

    def _again(self) -> bytes:
        self._errors += 1
        if self._errors > _MOST_ERRORS:
            return self._fail(f"a block did not arrive in {_MOST_ERRORS} tries")
        self._quiet = False
        return self._packet


class Receiver(_Machine):
    """Takes one file. By XMODEM the size is not told: what was filled up stays."""

    def __init__(self, *, named: bool, most_bytes: int) -> None:
        super().__init__()
        self.data = bytearray()
        self._named, self._most = named, most_bytes
        self._phase: Literal["start", "data", "end"] = "start"
        self._expected = 0 if named else 1
        self._size: int | None = None
        self._buffer = b""
        self._purging = self._ending = self._is_lone = False

    def begin(self) -> bytes:
        return b"C"

    def hang_up(self) -> None:
        super().hang_up()
        if self._phase == "end":
            self.state = "done"

    def silence(self) -> bytes:
        self._silences += 1
        if self._silences > _MOST_SILENCES:
            return self._fail(f"nothing was heard for {_MOST_SILENCES * SILENCE_S:g} s")
        if self._phase == "end" and self._silences > 2:
            self.state = "done"  # the file itself is whole
            return b""
        self._buffer, self._purging, self.silence_s = b"", False, SILENCE_S
        polls = self._phase != "data" or self._expected == 1
        return b"C" if polls else bytes((NAK,))

    def feed(self, data: bytes) -> bytes:
        if self._purging:
            return b""
        self._silences = 0
        self._is_lone = len(data) == 1 and not self._buffer
        self._buffer += data
        out = b""
        while self._buffer and self.state == "going" and not self._purging:
            taken = self._take()
            if taken is None:
                break
            out += taken
        return out

    def _take(self) -> bytes | None:
        """Take one thing off the buffer; return what answers it, None where more must come."""
        kind = self._buffer[0]
        if kind in (SOH, STX):
            size = _SMALL if kind == SOH else _LARGE
            if len(self._buffer) < size + 5:
                return None
            block, self._buffer = self._buffer[: size + 5], self._buffer[size + 5 :]
            body, check = block[3:-2], int.from_bytes(block[-2:], "big")
            if block[1] ^ block[2] != 0xFF or binascii.crc_hqx(body, 0) != check:
                return self._purge()
            return self._block(block[1], body)
        if kind == CAN and len(self._buffer) < 2:
            return None
        head, self._buffer = self._buffer[:2], self._buffer[1:]
        if head == bytes((CAN, CAN)):
            return self._fail("the other side has cancelled")
        if kind == EOT and self._may_end:
            return self._end()
        return b"" if self._phase != "data" else self._purge()

    @property
    def _may_end(self) -> bool:
        """Tell whether an EOT may be one: before the first block (the file is empty) if alone."""
        return self._phase != "start" or (self._is_lone and not self._named)

    def _purge(self) -> bytes:
        """Let the rest of what is broken pass by; silence then asks for it again."""
        self._errors += 1
        if self._errors > _MOST_ERRORS:
            return self._fail(f"a block did not arrive in {_MOST_ERRORS} tries")
        self._purging, self.silence_s = True, _PURGE_S
        return b""

    def _block(self, number: int, body: bytes) -> bytes:
        if self._phase == "end":
            self.state = "done"
            return bytes((ACK,))
        if number == (self._expected - 1) & 0xFF and self._phase == "data":  # our ACK was lost
            again = self._named and self._expected == 1
            return bytes((ACK, ASK)) if again else bytes((ACK,))
        if number != self._expected & 0xFF:
            return self._fail("blocks are out of step")
        self._errors = 0
        self._expected += 1
        self._ending = False
        if self._phase == "start" and self._named:
            return self._header(body)
        self._phase = "data"
        self.data += body
        if self._size is not None:
            del self.data[self._size :]
        self.done_bytes = len(self.data)
        if self.done_bytes > self._most:
            return self._fail(f"it is longer than {self._most} bytes")
        return bytes((ACK,))

    def _header(self, body: bytes) -> bytes:
        name, _, rest = body.partition(b"\0")
        if not name:
            return self._fail("there is no file")
        word = rest.split(b"\0")[0].split(b" ")[0]
        self._size = int(word) if word.isdigit() else None
        if self._size is not None and self._size > self._most:
            return self._fail(f"it has {self._size} bytes, longer than {self._most} bytes")
        self._phase = "data"
        return bytes((ACK, ASK))

    def _end(self) -> bytes:
        """Ask once more at the first EOT: a broken byte may look like one."""
        if self._phase == "end":  # our ACK was lost
            return bytes((ACK, ASK))
        if not self._ending:
            self._ending = True
            return bytes((NAK,))
        if self._size is not None and len(self.data) < self._size:
            return self._fail(f"it ended after {len(self.data)} of {self._size} bytes")
        if self._named:
            self._phase = "end"
            return bytes((ACK, ASK))
        self.state = "done"
        return bytes((ACK,))
