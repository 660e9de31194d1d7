"""A simulated board with a serial console: a boot, a login prompt, a real shell.

    python -m tshrag_agent.simulator.serial_board --dir DIR

It makes a pty, says where on one line of JSON, and stays at its other end. Behind the login is a
real ``/bin/sh`` on a pty of its own, so that job control, echo and Ctrl-C are those of a real
board. ``reboot`` ends every process of the board and boots it again. A board shares the kernel of
this machine: its own boot id is in the file that ``TSHRAG_BOOT_ID`` names.
"""

import argparse
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
import tty
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import msgspec

from tshrag_agent.simulator.processes import end_marked, kill, take_terminal

_TICK_S = 0.05
_CHUNK_BYTES = 4096
_FIFO_BYTES = 64  # of a lossy board's UART, and how fast that is emptied:
_FIFO_BYTES_PER_S = 4000
_ENDED = (b"The system is going down NOW!\r\n", b"[  99.000000] reboot: Restarting system\r\n")
_REBOOT = '#!/bin/sh\nkill -USR1 "$TSHRAG_BOARD_PID"\nexec sleep 10\n'


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of board it is. An empty password: none is asked for."""

    directory: Path
    hostname: str = "board"
    user: str = "root"
    password: str = ""
    shell: str = "/bin/sh"
    path: str = ""  # where its programs are; empty: those of this machine
    boot_s: float = 0.3
    reboot_after_s: tuple[float, ...] = ()
    lossy: bool = False
    with_parent: bool = False


class Board:
    """One board; ``serve`` is its life."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._parent = os.getppid()  # before anybody is told that we are there
        self._id = uuid.uuid4().hex
        self._outer, slave = pty.openpty()
        self.path = os.ttyname(slave)
        tty.setraw(slave)  # kept by the pty: nothing echoes before an agent opens it
        os.close(slave)
        os.set_blocking(self._outer, False)
        self._inner: int | None = None  # the shell's pty; None before the login
        self._shell: subprocess.Popen[bytes] | None = None
        self._out = bytearray()
        self._line = bytearray()
        self._user: str | None = None  # named, and the password is awaited
        self._booting: list[tuple[float, bytes]] = []
        self._reboots = list(options.reboot_after_s)
        self._reboot_at: float | None = None
        self._reboot_asked = self._stopped = False
        self._room, self._room_at = float(_FIFO_BYTES), time.monotonic()

    def reboot(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        self._reboot_asked = True

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        self._stopped = True

    def serve(self) -> None:
        """Be a board until it is stopped, or its parent has gone when that was asked for."""
        self._prepare()
        self._boot()
        try:
            while not self._stopped:
                if self._options.with_parent and os.getppid() != self._parent:
                    return
                self._turn()
        finally:
            self._end_all()
            os.close(self._outer)

    def _turn(self) -> None:
        now = time.monotonic()
        while self._booting and self._booting[0][0] <= now:
            self._out += self._booting.pop(0)[1]
        if self._reboot_asked or (self._reboot_at is not None and now >= self._reboot_at):
            self._restart()
        if self._shell and self._shell.poll() is not None and not self._readable(self._inner):
            self._log_out()
        reads = [self._outer]
        if self._inner is not None and len(self._out) < _CHUNK_BYTES:
            reads.append(self._inner)  # else the shell waits until the line has taken its output
        ready, _, _ = select.select(reads, [self._outer] if self._out else [], [], _TICK_S)
        if self._inner in ready:
            self._say_of_shell()
        if self._outer in ready:
            self._hear()
        self._send()

    def _hear(self) -> None:
        try:
            data = os.read(self._outer, _CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:  # nobody has the line open
            self._out.clear()
            time.sleep(_TICK_S)
            return
        if self._options.lossy:
            data = self._what_fits(data)
        if self._inner is not None:
            self._type(data)
        elif not self._booting:
            for byte in data:
                self._key(byte)

    def _type(self, data: bytes) -> None:
        try:
            os.write(self._inner or 0, data)
        except (BlockingIOError, OSError):
            return  # the shell has ended, or does not read: a UART drops, too

    def _what_fits(self, data: bytes) -> bytes:
        """Return what a small FIFO keeps of `data` when it comes faster than it is emptied."""
        now = time.monotonic()
        self._room += (now - self._room_at) * _FIFO_BYTES_PER_S
        self._room, self._room_at = min(self._room, _FIFO_BYTES), now
        kept = data[: int(self._room)]
        self._room -= len(kept)
        return kept

    def _send(self) -> None:
        if not self._out:
            return
        try:
            del self._out[: os.write(self._outer, self._out[:_CHUNK_BYTES])]
        except BlockingIOError:
            return
        except OSError:
            self._out.clear()

    def _say_of_shell(self) -> None:
        try:
            self._out += os.read(self._inner or 0, _CHUNK_BYTES)
        except OSError:
            return  # it has ended; the next turn sees that

    # -- boot, login, shell

    def _prepare(self) -> None:
        programs = self._options.directory / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        for folder in ("root", "run"):
            (self._options.directory / folder).mkdir(exist_ok=True)
        (programs / "reboot").write_text(_REBOOT)
        (programs / "reboot").chmod(0o755)

    def _boot(self) -> None:
        boot_id = str(uuid.uuid4())
        (self._options.directory / "boot_id").write_text(boot_id + "\n")
        for state in (self._options.directory / "run").iterdir():
            state.unlink()  # a RAM disk does not outlive a reboot
        lines = (
            "U-Boot 2026.01 (simulated)",
            "Starting kernel ...",
            "[    0.000000] Booting Linux on physical CPU 0x0",
            "[    0.000000] Linux version 6.12.0-board (tshrag@lab) #1 SMP",
            "[    0.000000] Kernel command line: console=ttyS0,115200 root=/dev/mmcblk0p2",
            "[    0.412345] Run /sbin/init as init process",
            f"Welcome to {self._options.hostname}",
        )
        begins, step = time.monotonic(), self._options.boot_s / len(lines)
        self._booting = [
            (begins + step * (number + 1), line.encode() + b"\r\n")
            for number, line in enumerate(lines)
        ]
        self._booting.append((begins + self._options.boot_s, self._prompt()))

    def _prompt(self) -> bytes:
        return f"\r\n{self._options.hostname} login: ".encode()

    def _key(self, byte: int) -> None:
        """Take one byte as getty and login do: echo the name, not the password."""
        if byte in b"\r\n":
            line, self._line = self._line.decode("latin-1"), bytearray()
            self._enter(line)
        elif byte in b"\x7f\x08":
            del self._line[-1:]
        elif len(self._line) < 256:
            self._line.append(byte)
            if self._user is None:
                self._out.append(byte)

    def _enter(self, line: str) -> None:
        self._out += b"\r\n"
        if self._user is not None:
            right = (self._user, line) == (self._options.user, self._options.password)
            self._user = None
            self._log_in() if right else self._refuse()
        elif not line:
            self._out += self._prompt().lstrip()
        elif line == self._options.user and not self._options.password:
            self._log_in()
        else:
            self._user = line
            self._out += b"Password: "

    def _refuse(self) -> None:
        self._out += b"\r\nLogin incorrect\r\n" + self._prompt().lstrip()

    def _log_in(self) -> None:
        home = self._options.directory
        environment = {
            "PATH": f"{home / 'bin'}:{self._options.path or os.environ.get('PATH', os.defpath)}",
            "HOME": str(home / "root"),
            "PS1": "# ",
            "TERM": "vt100",
            "USER": self._options.user,
            "TSHRAG_BOARD": self._id,
            "TSHRAG_BOARD_PID": str(os.getpid()),
            "TSHRAG_BOOT_ID": str(home / "boot_id"),
            "TSHRAG_RUN_DIR": str(home / "run"),
        }
        master, slave = pty.openpty()
        os.set_blocking(master, False)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x18\x00\x50\x00\x00\x00\x00\x00")  # 24 x 80
        self._shell = subprocess.Popen(
            [*self._options.shell.split(), "-i"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=home / "root",
            env=environment,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(slave)
        self._inner = master
        if self._reboots:
            self._reboot_at = time.monotonic() + self._reboots.pop(0)

    def _log_out(self) -> None:
        self._hang_up()
        self._out += self._prompt()

    def _restart(self) -> None:
        self._reboot_asked, self._reboot_at = False, None
        self._end_all()
        self._line.clear()
        self._user = None
        self._out += b"\r\n" + b"".join(_ENDED)
        self._boot()

    def _end_all(self) -> None:
        """Kill every process of the board, also those that left the session."""
        end_marked(f"TSHRAG_BOARD={self._id}")
        self._hang_up()

    def _hang_up(self) -> None:
        if self._shell:
            kill(self._shell.pid)
            self._shell.wait()
        if self._inner is not None:
            os.close(self._inner)
        self._shell, self._inner = None, None

    @staticmethod
    def _readable(fd: int | None) -> bool:
        if fd is None:
            return False
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return any(event & select.POLLIN for _, event in poll.poll(0))


def options_of(argv: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="serial_board", description="a simulated serial board")
    parser.add_argument("--dir", type=Path, required=True, help="the board's own folder")
    parser.add_argument("--hostname", default="board")
    parser.add_argument("--user", default="root")
    parser.add_argument("--password", default="", help="none is asked for without it")
    parser.add_argument("--shell", default="/bin/sh")
    parser.add_argument("--path", default="", help="its PATH, behind its own bin")
    parser.add_argument("--boot-s", type=float, default=0.3)
    parser.add_argument("--reboot-after", type=float, nargs="*", default=[], metavar="SECONDS")
    parser.add_argument("--lossy", action="store_true", help="lose what is typed too fast")
    parser.add_argument("--with-parent", action="store_true", help="end when the parent ends")
    given = parser.parse_args(argv)
    return Options(
        directory=given.dir.resolve(),
        hostname=given.hostname,
        user=given.user,
        password=given.password,
        shell=given.shell,
        path=given.path,
        boot_s=given.boot_s,
        reboot_after_s=tuple(given.reboot_after),
        lossy=given.lossy,
        with_parent=given.with_parent,
    )


def main() -> None:
    board = Board(options_of(sys.argv[1:]))
    signal.signal(signal.SIGUSR1, board.reboot)
    signal.signal(signal.SIGTERM, board.stop)
    signal.signal(signal.SIGINT, board.stop)
    sys.stdout.write(json.dumps({"path": board.path, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    board.serve()


if __name__ == "__main__":
    main()
