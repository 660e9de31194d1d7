"""The wrapper by itself: each shell and each poverty that a DUT may have."""

import contextlib
import itertools
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Set
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, strategies as st

from tests.support.debian import need_program
from tests.support.outputs import Output
from tests.support.process_trees import deaf_tree, living
from tests.support.ssh_server import SshServer, a_folder_of_busybox
from tests.support.transport_contract import TransportContract, new_tag, shell
from tests.support.waiting import wait_for
from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.launch import Ended, Splitter, ended, exit_of, quote
from tshrag_agent.transport.ssh import SshTransport
from tshrag_agent.transport.ways import Guard
from tshrag_agent.transport.wrapper import WRAP
from tshrag_common.ids import DutId

DUT = DutId("tiny")
NONCE = "0123456789abcdef"


Boards = Callable[[Set[str]], SshServer]


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boards]:
    """Give a board whose programs are those of busybox, less some."""
    started: dict[frozenset[str], SshServer] = {}

    def board(without: Set[str]) -> SshServer:
        key = frozenset(without)
        if key not in started:
            base = tmp_path_factory.mktemp("tiny")
            path = a_folder_of_busybox(base / "bin", without)
            started[key] = SshServer("board", base / "server", ("--path", path, "--no-sftp"))
            started[key].start()
        return started[key]

    yield board
    for one in started.values():
        one.stop()


class Tiny:
    """A board on which all that the wrapper finds is busybox."""

    without: frozenset[str] = frozenset()

    @pytest.fixture
    async def dut(self, boards: Boards, run_dir: str) -> AsyncIterator[SshTransport]:
        guard = Guard(run_dir=run_dir, grace_s=1, lease_s=3, beat_s=0.5)
        made = SshTransport(DUT, boards(self.without).way(guard=guard))
        yield made
        await made.close()


class TestBusybox(Tiny, TransportContract):
    pass


class TestBusyboxWithoutFlock(Tiny):
    without = frozenset({"flock"})
    test_lower = TransportContract.test_a_lower_fence_is_stale
    test_newer = TransportContract.test_a_newer_fence_ends_the_older_session_first
    test_both = TransportContract.test_two_commands_of_one_fence_may_run_at_once


class TestBusyboxWithoutGrep(Tiny):
    """Some grep sees nothing behind a NUL; then tail, tr and awk look for the marks."""

    without = frozenset({"grep"})
    test_left = TransportContract.test_a_daemon_left_behind_is_ended_with_its_command
    test_end = TransportContract.test_end_stops_a_tree_that_is_deaf_to_sigterm
    test_newer = TransportContract.test_a_newer_fence_ends_the_older_session_first


class TestBusyboxWithoutSetsid(Tiny):
    """Then marks alone find the tree: a child that drops its environment is in no session."""

    without = frozenset({"setsid"})
    test_exit = TransportContract.test_the_streams_stay_apart_and_the_exit_code_is_carried
    test_interrupt = TransportContract.test_sigint_is_not_ignored_by_a_program
    test_limit = TransportContract.test_the_time_limit_ends_the_tree
    test_both = TransportContract.test_two_commands_of_one_fence_may_run_at_once


async def test_dash_alone_cannot_hold_a_lease(boards: Boards, run_dir: str) -> None:
    server = boards({"sh", "ash", "busybox", "hush", "bash"})
    dut = SshTransport(DUT, server.way(guard=Guard(run_dir=run_dir)))
    with pytest.raises(TransportFailed, match="no shell that can hold a lease") as failure:
        await shell(dut, "true", 1, Output())
    assert failure.value.code == "no_shell"
    assert not (await dut.probe(timeout_s=20)).guarded
    await dut.close()


@pytest.fixture(params=["bash", "busybox sh"])
def start(request: pytest.FixtureRequest, run_dir: str) -> Callable[..., subprocess.Popen[bytes]]:
    """Start the wrapper under a shell, with a pipe for its stdin."""
    words: list[str] = request.param.split()
    need_program(words[0], words[0])
    Path(run_dir).mkdir()

    def guard(
        script: str, fence: int, lease_s: int = 10, grace_ds: int = 5
    ) -> subprocess.Popen[bytes]:
        who = [run_dir, "board", f"{fence:021d}", "holder", "1", str(lease_s), str(grace_ds)]
        process = subprocess.Popen(
            [*words, str(WRAP), "guard", *who, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a refusal may be faster
            process.stdin.write(f"{NONCE}\n{script}\n{NONCE}\n".encode())
            process.stdin.flush()
        return process

    return guard


Start = Callable[..., subprocess.Popen[bytes]]


def said_at_the_end(process: subprocess.Popen[bytes]) -> str:
    _, errors = process.communicate(timeout=30)
    return errors.decode().rpartition("\x1e" + NONCE)[2].strip()


def test_a_stop_line_ends_all(start: Start) -> None:
    tag = new_tag()
    process = start(f"exec setsid sh -c {quote(deaf_tree(tag)).decode()}", 1)
    wait_for(lambda: len(living(f".{tag}")) >= 6)
    assert process.stdin is not None
    process.stdin.write(b"stop\n")
    process.stdin.flush()
    wait_for(lambda: process.poll() is not None)
    assert living(f".{tag}") == []
    assert said_at_the_end(process) == "ended 137 stopped"


def test_silence_ends_all_and_nothing_is_said(start: Start) -> None:
    tag = new_tag()
    process = start(f"exec setsid sh -c {quote(deaf_tree(tag)).decode()}", 1, lease_s=1)
    wait_for(lambda: process.poll() is not None, 15)
    assert living(f".{tag}") == []
    assert not said_at_the_end(process).startswith("ended")


def test_after_a_lost_lease_a_long_grace_is_not_waited_for(start: Start) -> None:
    tag = new_tag()
    script = f"exec setsid sh -c {quote(deaf_tree(tag)).decode()}"
    process = start(script, 1, lease_s=1, grace_ds=3000)
    wait_for(lambda: process.poll() is not None, 40)
    assert living(f".{tag}") == []
    process.communicate()


def test_the_end_of_stdin_ends_all(start: Start) -> None:
    tag = new_tag()
    process = start(f"exec setsid sh -c {quote(deaf_tree(tag)).decode()}", 1)
    wait_for(lambda: len(living(f".{tag}")) >= 6)
    process.communicate(timeout=20)
    assert living(f".{tag}") == []


def test_a_killed_guard_is_survived_by_its_watch(start: Start) -> None:
    tag = new_tag()
    process = start(f"exec setsid sh -c {quote(deaf_tree(tag)).decode()}", 1)
    wait_for(lambda: len(living(f".{tag}")) >= 6)
    process.kill()
    process.communicate()
    wait_for(lambda: not living(f".{tag}"), 15)
    assert living(f".{tag}") == []


def test_a_script_that_did_not_arrive_whole_starts_nothing(start: Start, run_dir: str) -> None:
    process = start("touch " + run_dir + f"/started\n{NONCE}x", 1)
    assert process.stdin is not None
    process.communicate(timeout=20)
    assert (Path(run_dir) / "started").exists()
    who = [run_dir, "board", f"{2:021d}", "holder", "1", "1", "5"]
    torn = subprocess.run(
        ["bash", str(WRAP), "guard", *who, "bash"],
        input=f"{NONCE}\ntouch {run_dir}/torn\n".encode(),
        check=False,
    )
    assert torn.returncode == 74
    assert not (Path(run_dir) / "torn").exists()


@pytest.mark.parametrize("text", ["", "12\n", "x" * 21, "00000000000000000000x h\n"])
def test_a_damaged_fence_is_not_taken(start: Start, run_dir: str, text: str) -> None:
    (Path(run_dir) / "board.fence").write_text(text)
    process = start("true", 5)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 74
    assert b"board.fence is damaged" in errors
    assert (Path(run_dir) / "board.fence").read_text() == text


@pytest.mark.parametrize(
    ("seen", "fence", "code"),
    [
        *((1, 2, 0), (2, 1, 73), (8, 10, 0), (9_999_999, 10_000_000, 0)),
        *((10_000_000, 9_999_999, 73), ((1 << 63) - 1, 1 << 62, 73), (1 << 62, (1 << 63) - 1, 0)),
    ],
)
def test_fences_are_compared_as_numbers(
    start: Start, run_dir: str, seen: int, fence: int, code: int
) -> None:
    (Path(run_dir) / "board.fence").write_text(f"{seen:021d} other\n")
    process = start("exit 0", fence)
    process.communicate(timeout=20)
    assert process.returncode == code
    newest = (Path(run_dir) / "board.fence").read_text().split()[0]
    assert newest == f"{max(seen, fence):021d}"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_a_quoted_word_is_one_word_again(text: str) -> None:
    said = subprocess.run(
        [b"/bin/sh", b"-c", b'printf "%s." ' + quote(text)], capture_output=True, check=True
    )
    assert said.stdout == text.encode() + b"."


@given(
    output=st.lists(st.binary(max_size=40) | st.just(b"\x1e" + NONCE.encode()[:5]), max_size=8),
    cuts=st.lists(st.integers(0, 400)),
)
def test_the_lines_of_the_guard_come_out_wherever_the_stream_is_cut(
    output: list[bytes], cuts: list[int]
) -> None:
    marker = b"\x1e" + NONCE.encode()
    body = b"".join(output).replace(marker, b"")
    stream = b"profile\n" + marker + b" started 7\n" + body + marker + b" ended 0 exit\n"
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    split, got, lines = Splitter(NONCE), b"", list[str]()
    for begin, end in itertools.pairwise(edges):
        out, found = split.feed(stream[begin:end])
        got += out
        lines += found
    assert (got + split.rest(), lines) == (body, ["started 7", "ended 0 exit"])
    assert split.noise == b"profile\n"


@given(st.text(max_size=50))
def test_a_damaged_last_word_is_none(line: str) -> None:
    assert ended("ended " + line + " x") is None or line.split()[0].isdigit()


def test_the_last_word_names_what_is_left() -> None:
    assert ended("ended 137 stopped 12 13") == Ended(137, "stopped", (12, 13))
    assert (exit_of(0), exit_of(128), exit_of(137), exit_of(255)) == (
        (0, None),
        (128, None),
        (None, 9),
        (255, None),
    )


def test_the_guard_is_read_from_settings() -> None:
    assert msgspec.convert({}, Guard).lease_s == 10
    with pytest.raises(msgspec.ValidationError, match=r"\$\.run_dir"):
        msgspec.convert({"run_dir": "/run/$(id)"}, Guard)
