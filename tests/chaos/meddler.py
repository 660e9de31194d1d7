"""Sits in a serial line and spoils it: floods, drops, garbage, a plug that is pulled.

    python -m tests.chaos.meddler LINK TTY

LINK becomes a path to a pty: what is typed there goes to TTY, and what TTY says comes back.
On stdin, a line each: ``pass``; ``flood``: 64 KiB of console output at a time, as fast as it is
taken; ``drop N``: of a thousand bytes that the board says, N are lost; ``garbage``: every byte,
either way, is another one, as at a wrong baud rate; ``vanish``; ``back``: the device is there
again, under another number. Each is answered with itself when it holds.
"""

import contextlib
import os
import pty
import random
import select
import sys
import time
import tty
from pathlib import Path

_CHUNK = 65536
_SAID = b"[ 1234.567890] usb 1-1: device descriptor read/64, error -71: \x1b[31mretry\x1b[0m\r\n"
_FLOOD = _SAID * (_CHUNK // len(_SAID))
_TAKEN = 1 << 20


class Meddler:
    """One line; ``serve`` is its life."""

    def __init__(self, link: Path, device: str) -> None:
        self._link, self._chance = link, random.Random(1)
        self._board = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self._outer = -1
        self._mode, self._per_mille = "pass", 0
        self._to_agent = b""

    def serve(self) -> None:
        self._plug_in()
        commands = b""
        while True:
            reads = [0, self._board, *([self._outer] if self._outer >= 0 else [])]
            writes = [self._outer] if self._outer >= 0 and self._has_words else []
            ready, free, _ = select.select(reads, writes, [], 1.0)
            if 0 in ready:
                data = os.read(0, _CHUNK)
                if not data:
                    return
                *lines, commands = (commands + data).split(b"\n")
                for line in lines:
                    self._obey(line.decode())
                continue
            if self._board in ready:
                self._hear_board()
            if self._outer in ready:
                self._hear_agent()
            if self._outer in free:
                self._say()

    @property
    def _has_words(self) -> bool:
        return bool(self._to_agent) or self._mode == "flood"

    def _obey(self, line: str) -> None:
        mode, _, number = line.partition(" ")
        if mode == "vanish":
            self._unplug()
        elif mode == "back":
            self._plug_in()
        else:
            self._mode, self._per_mille = mode, int(number or 0)
        print(line, flush=True)

    def _hear_board(self) -> None:
        with contextlib.suppress(OSError):
            data = os.read(self._board, _CHUNK)
            if self._outer >= 0 and len(self._to_agent) < _TAKEN:
                self._to_agent += self._spoilt(data, drops=True)

    def _hear_agent(self) -> None:
        try:
            data = os.read(self._outer, _CHUNK)
        except OSError:  # nobody has it open
            self._to_agent = b""
            time.sleep(0.02)
            return
        with contextlib.suppress(OSError):
            os.write(self._board, self._spoilt(data, drops=False))

    def _say(self) -> None:
        with contextlib.suppress(OSError):
            if not self._to_agent:
                self._to_agent = _FLOOD
            self._to_agent = self._to_agent[os.write(self._outer, self._to_agent) :]

    def _spoilt(self, data: bytes, *, drops: bool) -> bytes:
        if self._mode == "garbage":
            return bytes(self._chance.choice((0, 0x80, 0xF8, byte ^ 0xA5, 0xFF)) for byte in data)
        if self._mode == "drop" and drops:
            return bytes(byte for byte in data if self._chance.randrange(1000) >= self._per_mille)
        return data

    def _plug_in(self) -> None:
        if self._outer >= 0:
            return
        self._outer, slave = pty.openpty()
        tty.setraw(slave)
        os.set_blocking(self._outer, False)
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(os.ttyname(slave))
        os.close(slave)  # an agent wants to be the only one that has it

    def _unplug(self) -> None:
        self._link.unlink(missing_ok=True)
        os.close(self._outer)
        self._outer, self._to_agent = -1, b""


if __name__ == "__main__":
    meddler = Meddler(Path(sys.argv[1]), sys.argv[2])
    print("pass", flush=True)
    meddler.serve()
