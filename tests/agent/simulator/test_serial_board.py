import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.serial_pty import board
from tests.support.waiting import wait_for


class Line:
    """A person at the line of a board."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self.said = b""

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def shows(self, text: bytes) -> bool:
        with suppress(BlockingIOError):
            self.said += os.read(self.fd, 1 << 16)
        return text in self.said

    def wait(self, text: bytes) -> None:
        wait_for(lambda: self.shows(text), within_s=20)
        self.said = self.said.partition(text)[2]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


@contextmanager
def at(path: str) -> Iterator[Line]:
    line = Line(path)
    try:
        yield line
    finally:
        os.close(line.fd)


def test_a_board_boots_asks_and_lets_in(tmp_path: Path) -> None:
    with board(tmp_path, "--password", "pw") as path, at(path) as line:
        line.wait(b"Linux version")
        line.wait(b"board login: ")
        line.type(b"root\rpq\x7fw\r")
        line.wait(b"Password: ")
        line.wait(b"# ")
        assert b"pw" not in line.said
        line.type(b"echo $((6 * 7))\r")
        line.wait(b"42\r\n")
        line.type(b"exit\r")
        line.wait(b"board login: ")


def test_a_wrong_password_is_refused(tmp_path: Path) -> None:
    with board(tmp_path, "--password", "pw") as path, at(path) as line:
        line.wait(b"login: ")
        line.type(b"root\rno\r")
        line.wait(b"Login incorrect")
        line.wait(b"login: ")


def test_a_reboot_ends_every_process_and_boots_anew(tmp_path: Path) -> None:
    with board(tmp_path) as path, at(path) as line:
        line.wait(b"login: ")
        line.type(b"root\r")
        line.wait(b"# ")
        before = (tmp_path / "boot_id").read_text()
        line.type(b"touch ../run/x; setsid sh -c 'echo $$ >pid; exec sleep 401' & sleep 402\r")
        wait_for(lambda: (tmp_path / "root" / "pid").exists(), within_s=20)
        pid = int((tmp_path / "root" / "pid").read_text())
        line.type(b"\x03reboot\r")
        line.wait(b"Restarting system")
        line.wait(b"login: ")
        assert (tmp_path / "boot_id").read_text() != before
        assert not alive(pid)
        assert not (tmp_path / "run" / "x").exists()


def test_a_board_reboots_by_itself_when_asked(tmp_path: Path) -> None:
    with board(tmp_path, "--reboot-after", "0.3") as path, at(path) as line:
        line.wait(b"login: ")
        line.type(b"root\r")
        line.wait(b"Restarting system")
        line.wait(b"login: ")


def test_a_board_ends_with_its_parent_when_asked(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys\n"
        "command = [sys.executable, '-m', 'tshrag_agent.simulator.serial_board', '--with-parent']\n"
        "child = subprocess.Popen([*command, '--dir', sys.argv[1]], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
    wait_for(lambda: not alive(int(said)), within_s=20)
