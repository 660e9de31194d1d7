"""PURE: has a file that was sent from a console arrived as it was? The board is asked.

A block has 16 bits to be checked by; the whole file is more certain. When the board is silent
behind the file, and what it said last looks like a prompt, its sum is asked for as a person would:
``cksum`` at a shell, ``crc32`` at U-Boot. Whatever cannot be asked is told, with what to compare.
"""

import re
import zlib

import msgspec

from tshrag_common.cksum import cksum

QUIET_S = 0.7
"""Who says nothing for so long waits for a command, if it looks like that."""

_MOST_QUIETS = 5  # without a prompt
_MOST_ANSWER_QUIETS = 60  # a large file, a slow flash
_MOST_BYTES = 8192
_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07)")
_LOADER = re.compile(rb"(?:^|[\r\n])(?:=>|U-Boot>|[\w.-]{1,32}=>) ?\Z")
_SHELL = re.compile(rb"[#$%>] ?\Z")
_ADDRESS = re.compile(rb"download to (0x[0-9a-fA-F]{1,16}) at ")
_CKSUM = re.compile(rb"(?:^|[\r\n])(\d{1,10}) (\d{1,12})(?: |\r|\n)")
_CRC32 = re.compile(rb"==> ([0-9a-fA-F]{8})")


class Sums(msgspec.Struct, frozen=True):
    """What a file sums to, as the board has it."""

    size: int
    posix: int
    crc32: int


def sums_of(data: bytes) -> Sums:
    """Return the sums of `data`; takes some seconds for the largest files."""
    return Sums(len(data), cksum(data), zlib.crc32(data))


class FileCheck:
    """One file; `told` is what came of it, empty while it goes on."""

    def __init__(self, name: str, sums: Sums, before: bytes = b"") -> None:
        """Check a file that is called `name` on the board; empty: XMODEM has told it none.

        `before` is what the board said before: U-Boot tells the address.
        """
        self._name, self._sums = name, sums
        told = _ADDRESS.findall(before)
        self._address = told[-1].decode() if told else "${fileaddr}"
        self._heard = b""
        self._asked = False
        self._quiets = 0
        self.told = ""

    def hear(self, data: bytes) -> None:
        """Take what the board says."""
        self._quiets = 0
        self._heard = (self._heard + _ESCAPES.sub(b"", data))[-_MOST_BYTES:]
        if not self._asked:
            return
        crc32, posix = _CRC32.search(self._heard), _CKSUM.search(self._heard)
        if crc32 is not None:
            self._compare(int(crc32[1], 16) == self._sums.crc32, crc32[1].decode())
        elif posix is not None:
            same = (int(posix[1]), int(posix[2])) == (self._sums.posix, self._sums.size)
            self._compare(same, f"{posix[1].decode()} {posix[2].decode()}")

    def silence(self) -> bytes:
        """Return what to type, after `QUIET_S` without a word."""
        self._quiets += 1
        if self._asked:
            if _SHELL.search(self._heard) or self._quiets > _MOST_ANSWER_QUIETS:
                self.give_up("the board does not say its sum")
            return b""
        if _LOADER.search(self._heard):
            return self._ask(f"crc32 {self._address} ${{filesize}}")
        if _SHELL.search(self._heard) and self._name:
            return self._ask(f"cksum {_quoted(self._name)}")
        if _SHELL.search(self._heard):
            self.give_up("XMODEM tells no name")
        elif self._quiets > _MOST_QUIETS:
            self.give_up("no prompt is seen")
        return b""

    def give_up(self, why: str) -> None:
        sums = self._sums
        self.told = (
            f"not checked ({why}); cksum has to say {sums.posix} {sums.size}, "
            f"crc32 of U-Boot {sums.crc32:08x}"
        )

    def _ask(self, command: str) -> bytes:
        self._asked, self._heard, self._quiets = True, b"", 0
        return f"{command}\r".encode()

    def _compare(self, same: bool, said: str) -> None:
        if same:
            self.told = f"checked: the board has the same {self._sums.size} bytes"
        else:
            self.told = f"NOT what was sent: the board has {said}; send it again"


def _quoted(name: str) -> str:
    """Return a word for a POSIX shell that is no option, whatever the name."""
    inner = name.replace("'", "'\\''")
    return f"'./{inner}'"
