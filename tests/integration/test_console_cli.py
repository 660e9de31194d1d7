"""``tshrag console`` and ``expose`` as people and serial tools use them, on a simulated board."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import serial

from tests.support.command_line import TSHRAG, environment_of, run_cli
from tests.support.debian import need_program
from tests.support.serial_pty import board
from tests.support.waiting import wait_for
from tests.support.wrong_speed import misread
from tshrag_common.cksum import cksum
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("console-lab")]

DUT = '[[dut]]\nid = "b1"\nkind = "sim"\n[dut.serial]\nurl = "{path}"\n'
PATIENCE_S = 45.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the state folder of a lab with accounts, an agent, and a simulated board ``b1``."""
    folder = tmp_path_factory.mktemp("console-lab")
    state = folder / "lab"
    (folder / "board").mkdir()
    processes = LabProcesses(state, {"TSHRAG_STATE": str(state)})
    with board(folder / "board") as path:
        try:
            processes.start_controller()
            asyncio.run(processes.wait_ready())
            processes.start_agent("a1", DUT.format(path=path))
            asyncio.run(processes.wait_agents(1))
            log_in(state)
            yield state
        finally:
            processes.stop()


@contextmanager
def tshrag(lab: Path, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command in the background; end it by Ctrl-C."""
    with subprocess.Popen(
        (*TSHRAG, *words), stdin=-1, stdout=-1, stderr=-1, env=environment_of(lab)
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def said_by(process: "subprocess.Popen[bytes]") -> str:
    """Return the first line that a command says of itself."""
    assert process.stderr is not None
    return process.stderr.readline().decode()


def raw(lab: Path, typed: str) -> str:
    done = run_cli("console", "b1", "--raw", "--linger", "1.5", state=lab, stdin=typed)
    assert done.returncode == 0, done.stderr
    return done.stdout


def log_in(lab: Path) -> None:
    """Bring the board to its shell, wherever it is."""
    said = ""
    for _ in range(8):
        said = raw(lab, "root\r" if said.rstrip().endswith("login:") else "\r")
        if said.rstrip().endswith(("#", "$")):
            return
    raise AssertionError(f"the board is not at its shell: {said!r}")


def test_programs_talk_to_the_board_by_stdin_and_stdout(lab: Path) -> None:
    assert "sum-42" in raw(lab, "echo sum-$((40+2))\r")
    assert "nobody holds" in run_cli("lease", "list", state=lab).stdout


def test_the_record_shows_who_typed_what_and_finds_lines(lab: Path) -> None:
    raw(lab, "echo mark-$((1000+1))\r")

    def is_there() -> bool:
        return "mark-1001" in run_cli("console", "b1", "--log", "--plain", state=lab).stdout

    wait_for(is_there, PATIENCE_S)
    shown = run_cli("console", "b1", "--log", "--since", "10m", state=lab).stdout
    assert re.search(r">> echo mark-\$\(\(1000\+1\)\)\\x0d \(default/owner-\d+\)", shown)
    assert re.search(r"^\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}  mark-1001$", shown, re.MULTILINE)
    found = run_cli("console", "--grep", r"^mark-\d+", "--all", state=lab)
    assert found.stdout.rstrip().endswith("b1: mark-1001")
    assert run_cli("console", "b1", "--grep", "nothing-like-it", state=lab).returncode == 1
    bad = run_cli("console", "b1", "--grep", "(", state=lab)
    assert (bad.returncode, bad.stderr.split(":")[0]) == (2, "pattern")


def logged(lab: Path) -> str:
    return run_cli("console", "b1", "--log", "--since", "10m", state=lab).stdout


class Tmux:
    """A terminal that people use, driven by keys."""

    def __init__(self, lab: Path, folder: Path, columns: int = 100) -> None:
        self._command = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._env = {**environment_of(lab), "TERM": "xterm", "PS1": "$ ", "PATH": path}
        shell = ["new-session", "-d", "-x", str(columns), "-y", "40", "sh"]
        subprocess.run([*self._command, *shell], check=True, env=self._env)

    def keys(self, *keys: str) -> None:
        subprocess.run([*self._command, "send-keys", *keys], check=True, env=self._env)

    def leave(self) -> None:
        """Leave the console; what is typed before the shell has the terminal again may be lost."""
        self.keys("C-]", "q")
        wait_for(lambda: self._asked("#{pane_current_command}") in ("sh", "dash"), PATIENCE_S)

    def _asked(self, what: str) -> str:
        words = [*self._command, "display-message", "-p", what]
        done = subprocess.run(words, check=True, env=self._env, capture_output=True, text=True)
        return done.stdout.strip()

    def screen(self) -> str:
        words = [*self._command, "capture-pane", "-p", "-S", "-200"]
        return subprocess.run(words, check=True, env=self._env, capture_output=True,
                              text=True).stdout  # fmt: skip

    def sees(self, text: str) -> None:
        try:
            wait_for(lambda: text in self.screen().replace("\n", ""), PATIENCE_S)
        except AssertionError:
            raise AssertionError(f"{text!r} is not on\n{self.screen()}") from None

    def close(self) -> None:
        subprocess.run([*self._command, "kill-server"], check=False, env=self._env)


@pytest.fixture
def tmux(lab: Path, tmp_path: Path) -> Iterator[Tmux]:
    terminal = Tmux(lab, tmp_path)
    yield terminal
    terminal.close()


def start_console(tmux: Tmux, *options: str) -> None:
    words = " ".join(f"'{word}'" for word in (*TSHRAG, "console", "b1", *options))
    tmux.keys(words, "Enter")
    tmux.sees("for help")


def test_a_person_sits_at_the_console_in_tmux(lab: Path, tmux: Tmux) -> None:
    start_console(tmux)
    tmux.sees("you write, until")
    tmux.keys("echo from-$((20+3))", "Enter")
    tmux.sees("from-23")
    tmux.keys("echo begun-$((1+1)); sleep 100", "Enter")
    tmux.sees("begun-2")
    tmux.keys("C-c")  # is the board's, not ours
    tmux.keys("C-]", "w")
    tmux.keys("stty size", "Enter")
    tmux.sees("40 100")
    tmux.keys("C-]", "i")
    tmux.sees("writer: default/owner-")
    tmux.keys("C-]", "p")
    tmux.sees("type yes:")
    tmux.keys("no", "Enter")
    tmux.sees("not done")
    tmux.keys("C-]", "p")
    tmux.keys("yes", "Enter")
    tmux.sees("power cycle of b1: it is not set up")
    tmux.keys("C-]", "b")
    wait_for(lambda: "-- break (default/owner-" in logged(lab), PATIENCE_S)
    tmux.leave()
    tmux.keys("echo terminal-is-$((1+1))-again", "Enter")
    tmux.sees("terminal-is-2-again")
    assert "nobody holds" in run_cli("lease", "list", state=lab).stdout


RECORDING = Path(__file__).parents[2] / "docs" / "how-to" / "share-a-console.md"


def recorded() -> list[str]:
    """Return the lines of the recording in the docs."""
    text = RECORDING.read_text().split("<!-- replayed: console -->")[1]
    return text.split("```text\n")[1].split("```")[0].splitlines()


@pytest.mark.timeout(150)
def test_the_recording_in_the_docs_is_what_one_sees(lab: Path, tmp_path: Path) -> None:
    """Replay it key by key: ``$`` is our shell, ``#`` that of the board, ``…`` is anything."""
    terminal = Tmux(lab, tmp_path, columns=180)
    typed = ""
    try:
        for line in recorded():
            if line.startswith(("$ ", "# ")):
                typed = line[2:]
                if typed == "Ctrl-] q":
                    terminal.leave()
                else:
                    is_escape = typed.startswith("Ctrl-] ")
                    terminal.keys(*(["C-]", typed[-1]] if is_escape else [typed, "Enter"]))
                continue
            pattern = ".*".join(re.escape(part) for part in line.split("…"))
            wait_for(partial(sees_line, terminal, pattern), PATIENCE_S)
    except AssertionError as error:
        raise AssertionError(f"after {typed!r}: {line!r} is not on\n{terminal.screen()}") from error
    finally:
        terminal.close()


def sees_line(terminal: Tmux, pattern: str) -> bool:
    lines = terminal.screen().splitlines()
    return any(re.fullmatch(pattern, line.rstrip()) for line in lines)


def test_a_file_is_sent_as_it_is(lab: Path, tmux: Tmux, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("echo file-$((6*7))\r")
    start_console(tmux)
    tmux.keys("C-]", "s")
    tmux.sees("send file:")
    tmux.keys(str(tmp_path / "script"), "Enter")
    tmux.sees("file-42")
    tmux.leave()


def test_a_file_is_sent_by_ymodem_to_a_board_that_waits(
    lab: Path, tmux: Tmux, tmp_path: Path
) -> None:
    need_program("rb", package="lrzsz")
    data = bytes(range(256)) * 20
    (tmp_path / "image").write_bytes(data)
    (tmp_path / "there").mkdir()
    start_console(tmux)
    tmux.keys(f"cd {tmp_path}/there; rb", "Enter")
    tmux.keys("C-]", "y")
    tmux.sees("send file by YMODEM:")
    tmux.keys(str(tmp_path / "image"), "Enter")
    tmux.sees("by YMODEM: 5 KiB")
    tmux.sees("checked: the board has the same 5120 bytes")
    assert (tmp_path / "there" / "image").read_bytes() == data
    tmux.keys("clear; rx -c other; cksum other", "Enter")
    tmux.keys("C-]", "x")
    tmux.sees("send file by XMODEM:")
    tmux.keys(str(tmp_path / "image"), "Enter")
    tmux.sees(f"not checked (XMODEM tells no name); cksum has to say {cksum(data)} 5120")
    tmux.sees(f"{cksum(data)} 5120 other")
    tmux.keys("cd /", "Enter")
    tmux.keys("cat > /dev/null", "Enter")
    tmux.keys("C-]", "x")
    tmux.sees("send file by XMODEM:")
    tmux.keys(str(tmp_path / "image"), "Enter")
    tmux.sees("any key stops it")
    tmux.keys("q")
    tmux.sees("cancelled here")
    tmux.keys("C-c")
    tmux.leave()


def test_who_comes_second_watches_and_says_so(lab: Path, tmux: Tmux) -> None:
    with tshrag(lab, "expose", "b1", "console", "--tcp", "0") as first:
        assert "tcp://127.0.0.1:" in said_by(first)
        start_console(tmux, "--watch")
        tmux.sees("you watch: as asked")
        tmux.keys("x")
        tmux.sees("you only watch")
        tmux.leave()


def port_of(line: str) -> int:
    return int(line.rsplit(":", 1)[1])


def test_socat_talks_to_an_exposed_port(lab: Path) -> None:
    with tshrag(lab, "expose", "b1", "console", "--tcp", "0") as exposing:
        port = port_of(said_by(exposing))
        with subprocess.Popen(
            ["socat", "-t", "20", "-", f"TCP:127.0.0.1:{port}"], stdin=-1, stdout=-1
        ) as socat:
            assert socat.stdin is not None and socat.stdout is not None
            socat.stdin.write(b"echo socat-$((2+3)); echo last\r")
            socat.stdin.flush()
            got = b""
            while b"socat-5" not in got:
                got += os.read(socat.stdout.fileno(), 4096)
            socat.kill()


def test_an_8_bit_clean_port_keeps_every_byte(lab: Path) -> None:
    every = bytes(byte for byte in range(256)) * 20
    raw(lab, f"stty raw -echo; head -c {len(every)}; stty sane\r")  # it says back what comes
    with (
        tshrag(lab, "expose", "b1", "console", "--tcp", "0") as exposing,
        socket.create_connection(("127.0.0.1", port_of(said_by(exposing))), 30) as wire,
    ):
        wire.settimeout(PATIENCE_S)
        wire.sendall(every)
        got = b""
        while every not in got:
            got += wire.recv(65536)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in pyserial
def test_pyserial_sets_speed_and_break_by_rfc2217(lab: Path) -> None:
    with tshrag(lab, "expose", "b1", "console", "--tcp", "0", "--rfc2217") as exposing:
        url = said_by(exposing).split(" ")[-1].strip()
        with serial.serial_for_url(url, baudrate=9600, timeout=PATIENCE_S) as port:
            port.write(b"echo rfc-$((2217*2))\r")
            assert b"rfc-4434" in port.read_until(b"rfc-4434")
            port.send_break(0.01)
            port.baudrate, port.parity, port.stopbits = 115200, "O", 2
            port.write(b"echo fast-\xff$((1+1))\r")
            assert port.read_until(b"fast-\xff2").endswith(b"fast-\xff2")
    found = run_cli("console", "b1", "--log", "--since", "5m", state=lab).stdout
    assert "-- baud 9600" in found
    assert "-- parity odd (default/owner-" in found
    assert "-- stop_bits 2 (default/owner-" in found


def answers_typed(lab: Path) -> bool:
    """Tell whether a terminal has answered to the board, since the last line was typed."""
    shown = run_cli("console", "b1", "--log", "--since", "5m", state=lab).stdout
    typed = [line for line in shown.splitlines() if " >> " in line]
    return any(r">> \x1b[" in line or r"\x1b[?" in line for line in typed)


def test_what_a_board_said_before_is_not_answered_by_the_terminal(lab: Path, tmux: Tmux) -> None:
    """Questions in the scrollback would be answered by tmux, and the answers typed to the board."""
    raw(lab, "printf 'quest-%s\\033[c\\033[6n\\033[5n\\033]2;evil\\007' ion\r")
    start_console(tmux)
    tmux.sees("quest-ion")
    tmux.keys("echo asked-$((1+1))", "Enter")
    tmux.sees("asked-2")
    assert not answers_typed(lab)
    tmux.leave()
    raw(lab, "printf 'quest-%s\\033[c' again\r")
    start_console(tmux, "--exact")
    wait_for(partial(answers_typed, lab), PATIENCE_S)  # as every terminal does with what is said
    tmux.keys("C-c")
    tmux.leave()


PTY_TOOLS = {
    "picocom": ["picocom", "-q", "-b", "115200", "--noreset", "{path}"],
    "tio": ["tio", "-b", "115200", "{path}"],
    "socat": ["socat", "-", "{path},rawer"],
    "minicom": ["minicom", "-o", "-b", "115200", "-D", "{path}"],
    "screen": ["screen", "{path}", "115200"],
}


def answers(tmux: Tmux, tool: str) -> bool:
    """Ask the board once more: a tool flushes what was typed before it had the terminal."""
    tmux.keys(f"echo {tool}-$((50+5))", "Enter")
    ends = time.monotonic() + 2.0
    while time.monotonic() < ends:
        if f"{tool}-55" in tmux.screen():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("tool", PTY_TOOLS)
def test_serial_tools_open_the_pty(lab: Path, tool: str, tmp_path: Path, tmux: Tmux) -> None:
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed: make packages")
    path = tmp_path / "tty-b1"
    with tshrag(lab, "console", "b1", "--pty", str(path)) as serving:
        assert str(path) in said_by(serving)
        tmux.keys(" ".join(PTY_TOOLS[tool]).format(path=path), "Enter")
        answered = partial(answers, tmux, tool)
        wait_for(answered, PATIENCE_S)
    assert not path.is_symlink()


def test_a_name_that_is_taken_is_not_overwritten(lab: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("precious")
    done = run_cli("console", "b1", "--pty", str(tmp_path / "kept"), state=lab)
    assert (done.returncode, done.stderr.split(":")[0]) == (2, "exists")
    assert (tmp_path / "kept").read_text() == "precious"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("console",), "dut: console: which board?; see 'tshrag dut list'"),
        (("console", "b2", "--raw"), "unknown_dut: 'b2' is not known; nearest: b1"),
        (("console", "--log"), "dut: console: which board?; name one, or say --all"),
        (("expose", "b1", "console", "--tcp", "x"), "usage: --tcp: 'x' is no [HOST:]PORT"),
    ],
)
def test_what_cannot_be_is_one_line(lab: Path, words: tuple[str, ...], line: str) -> None:
    done = run_cli(*words, state=lab)
    assert (done.returncode, done.stderr.strip()) == (2, line)


def test_hostile_output_is_escaped_in_the_record(lab: Path) -> None:
    raw(lab, "printf 'evil-%s\\033]52;c;eA==\\007\\033[2J\\n' 1\r")

    def is_there() -> bool:
        return r"evil-1\x1b]52" in run_cli("console", "b1", "--log", "--plain", state=lab).stdout

    wait_for(is_there, PATIENCE_S)
    for words in (("--log",), ("--grep", "evil-1")):
        assert "\x1b" not in run_cli("console", "b1", *words, state=lab).stdout
    assert "\x1b]52" in run_cli("console", "b1", "--log", "--raw", state=lab).stdout


def test_garbage_of_a_wrong_speed_is_recorded_and_harmless(lab: Path, tmp_path: Path) -> None:
    """Bytes that are no UTF-8, NULs, escapes: kept as they are, shown as text, no boot is seen."""
    boot = b"U-Boot 2024.01\r\nLinux version 6.1\r\nKernel panic - not syncing: x\r\nb1 login: "
    garbage = misread(boot * 40, 115200, 38400) + bytes(range(256)) + "\x9b2J".encode()
    (tmp_path / "garbage").write_bytes(garbage)
    before = run_cli("console", "b1", "--signs", state=lab).stdout
    raw(lab, f"stty -opost; cat {tmp_path}/garbage; stty opost; echo after-$((1+1))-garbage\r")

    def shown(*words: str) -> str:
        return run_cli("console", "b1", "--log", *words, state=lab).stdout

    wait_for(lambda: "after-2-garbage" in shown("--plain"), PATIENCE_S)
    for words in (("--plain",), (), ("-o", "json")):
        text = shown(*words)
        assert not set(text) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}
    kept = subprocess.run(
        [*TSHRAG, "console", "b1", "--log", "--raw"],
        env=environment_of(lab), capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert garbage in kept
    assert run_cli("console", "b1", "--signs", state=lab).stdout == before
