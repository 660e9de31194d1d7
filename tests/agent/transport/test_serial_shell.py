import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.debian import need_program
from tests.support.serial_pty import board, running, simulated
from tests.support.waiting import wait_until
from tshrag_agent.transport.base import Completed, ShellCommand, Stream, TransportFailed
from tshrag_agent.transport.console import SerialConsole
from tshrag_agent.transport.login import Login
from tshrag_agent.transport.serial_shell import SerialTransport
from tshrag_agent.transport.serial_way import SerialWay
from tshrag_common.errors import Refused, StaleFence
from tshrag_common.ids import DutId, Fence

PASSWORD = "open sesame"


class Dut:
    """A transport to a simulated board, and what was said on it."""

    def __init__(self, folder: Path, path: str, console: SerialConsole) -> None:
        self.folder, self.path, self.console = folder, path, console
        self.transport = SerialTransport(DutId("board1"), console, way(path, folder))
        self.output = bytearray()

    async def sh(
        self, text: str, *, timeout_s: float = 20.0, fence: int = 7, **env: str
    ) -> Completed:
        return await self.transport.execute(
            ShellCommand(text),
            env=env,
            cwd="",
            timeout_s=timeout_s,
            fence=Fence(fence),
            on_output=self.hear,
        )

    def hear(self, stream: Stream, data: bytes) -> None:
        assert stream == "stdout"
        self.output += data


def way(path: str, folder: Path) -> SerialWay:
    folder.mkdir(parents=True, exist_ok=True)
    secret = folder / "password"
    secret.write_text(PASSWORD + "\n")
    login = Login(password_file=str(secret), silence_s=0.5, timeout_s=20.0)
    return SerialWay(url=path, login=login, grace_s=1.0)


@asynccontextmanager
async def dut_on(folder: Path, *arguments: str) -> AsyncIterator[Dut]:
    with board(folder / "board", "--password", PASSWORD, *arguments) as path:
        line = way(path, folder / "board").line
        async with running(SerialConsole("board1", line)) as console:
            yield Dut(folder / "board", path, console)


@pytest.fixture
async def dut(tmp_path: Path) -> AsyncIterator[Dut]:
    async with dut_on(tmp_path) as made:
        yield made


async def test_a_command_executes_behind_a_login(dut: Dut) -> None:
    done = await dut.sh("echo hello; echo oops >&2")
    assert bytes(dut.output) == b"hello\noops\n"
    assert done.succeeded and not done.guarded


async def test_probe_says_what_the_dut_is(dut: Dut) -> None:
    probe = await dut.transport.probe(timeout_s=20)
    assert (probe.os, probe.guarded) == ("linux", False)
    assert probe.run_dir == str(dut.folder / "run")
    assert probe.boot == (dut.folder / "boot_id").read_text().strip()


async def test_the_clock_is_read_between_commands_and_not_during_one(dut: Dut) -> None:
    before = time.time()
    found = await dut.transport.read_clock(timeout_s=20)
    assert found is not None and found.sent < found.heard
    assert before - 1 <= found.board_us / 1e6 <= time.time()
    running = asyncio.create_task(dut.sh("echo begun; sleep 1"))
    await wait_until(lambda: b"begun" in dut.output, 20)
    assert await dut.transport.read_clock(timeout_s=20) is None
    assert (await running).succeeded


@pytest.mark.parametrize(
    ("text", "code", "signal"),
    [
        ("exit 0", 0, None),
        ("exit 3", 3, None),
        ("no-such-program-at-all", 127, None),
        ("kill -KILL $$", None, 9),
        ("kill -INT $$", None, 2),
        ("kill -TERM $$", None, 15),
    ],
)
async def test_the_exit_status_is_that_of_the_command(
    dut: Dut, text: str, code: int | None, signal: int | None
) -> None:
    done = await dut.sh(text)
    assert (done.exit_code, done.signal, done.cause) == (code, signal, "exit")


async def test_an_argv_is_never_read_by_a_shell(dut: Dut) -> None:
    words = ["printf", "%s|", "a b", "$HOME", "'\"`;&|!\\", "ünï\tcode\n", "", "-n", "\x1b[31m\x03"]
    await dut.transport.execute(
        words, env={}, cwd="", timeout_s=20, fence=Fence(1), on_output=dut.hear
    )
    assert bytes(dut.output).decode() == "|".join(words[2:]) + "|"


async def test_environment_and_folder_arrive_whatever_is_in_them(dut: Dut, tmp_path: Path) -> None:
    odd = tmp_path / "it's a $(folder)"
    odd.mkdir()
    await dut.transport.execute(
        ShellCommand('printf %s "$A"; pwd'),
        env={"A": 'x\'y\n"$HOME"\t!'},
        cwd=str(odd),
        timeout_s=20,
        fence=Fence(1),
        on_output=dut.hear,
    )
    assert bytes(dut.output).decode() == 'x\'y\n"$HOME"\t!' + f"{odd}\n"


async def test_a_folder_that_is_not_there_is_no_success(dut: Dut) -> None:
    done = await dut.transport.execute(
        ["true"], env={}, cwd="/no/such", timeout_s=20, fence=Fence(1), on_output=dut.hear
    )
    assert done.exit_code == 126
    assert b"/no/such" in dut.output


async def test_every_byte_of_the_output_is_kept(dut: Dut) -> None:
    raw = bytes(range(256)) * 4
    (dut.folder / "raw").write_bytes(raw)
    await dut.sh(f"cat {dut.folder}/raw")
    assert bytes(dut.output) == raw


async def test_output_without_a_newline_and_with_escapes_is_not_mistaken(dut: Dut) -> None:
    text = r"printf '\033[2J\033[31mred\033]0;title\007\r# login? \036deadbeefE0\036 E0'"
    done = await dut.sh(text)
    assert done.exit_code == 0
    assert bytes(dut.output) == (
        b"\x1b[2J\x1b[31mred\x1b]0;title\x07\r# login? \x1edeadbeefE0\x1e E0"
    )


async def test_a_megabyte_arrives_whole(dut: Dut) -> None:
    line = b"0123456789abcdef" * 4 + b"\n"
    (dut.folder / "big").write_bytes(line * 16384)
    done = await dut.sh(f"cat {dut.folder}/big")
    assert done.succeeded
    assert bytes(dut.output) == line * 16384


async def test_many_steps_follow_one_another(dut: Dut) -> None:
    for number in range(10):
        assert (await dut.sh(f"echo {number}; exit {number}")).exit_code == number
    assert bytes(dut.output) == b"".join(b"%d\n" % number for number in range(10))


async def test_a_long_script_is_typed_in_pieces(dut: Dut) -> None:
    text = "\n".join(f"echo 'line {number} of a \"long\" script'" for number in range(100))
    await dut.sh(text)
    assert bytes(dut.output).count(b"\n") == 100
    assert bytes(dut.output).endswith(b'line 99 of a "long" script\n')


async def test_nothing_of_a_command_outlives_it(dut: Dut) -> None:
    await dut.sh("(trap '' TERM HUP; sleep 300) & setsid sleep 301 & echo $! $!", TSHRAG_JOB_ID="j")
    assert (await alive(dut)) == []


async def alive(dut: Dut) -> list[str]:
    """Return the sleeps of this board that are left."""

    def look() -> list[str]:
        found = list[str]()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if str(dut.folder).encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return [line for line in found if line.startswith("sleep")]

    return await asyncio.to_thread(look)


async def test_a_deadline_ends_the_whole_tree(dut: Dut) -> None:
    text = (
        "echo begun; trap '' INT QUIT TSTP TERM; (trap '' TERM; sleep 302) & sleep 303; sleep 304"
    )
    done = await dut.sh(text, timeout_s=1.0)
    assert (done.cause, done.signal) == ("deadline", 9)
    assert bytes(dut.output).startswith(b"begun\n")
    assert (await alive(dut)) == []
    assert (await dut.sh("exit 4")).exit_code == 4


async def test_cancelling_ends_the_whole_tree(dut: Dut) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(4.0):
            await dut.sh("sleep 305 & sleep 306")
    assert (await alive(dut)) == []
    assert (await dut.sh("exit 5")).exit_code == 5


async def test_end_stops_what_executes_under_its_fence(dut: Dut) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(dut.sh("echo begun; sleep 307", fence=9))
        await wait_until(lambda: b"begun" in dut.output)
        await dut.transport.end(Fence(8))  # of another attempt: nothing happens
        assert not task.done()
        await dut.transport.end(Fence(9))
    assert task.result().cause == "stopped"
    assert (await alive(dut)) == []


async def test_a_newer_fence_ends_the_older_and_locks_it_out(dut: Dut) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(dut.sh("echo begun; sleep 308", fence=9))
        await wait_until(lambda: b"begun" in dut.output)
        assert (await dut.sh("exit 6", fence=10)).exit_code == 6
    assert task.result().cause == "superseded"
    with pytest.raises(StaleFence):
        await dut.sh("echo no", fence=9)


async def test_the_dut_itself_refuses_an_older_fence(dut: Dut) -> None:
    await dut.sh("true", fence=20)
    await dut.transport.close()
    other = SerialTransport(DutId("board1"), dut.console, way(dut.path, dut.folder))
    for fence in (19, 20):
        with pytest.raises(StaleFence, match="20 has been seen"):
            await other.execute(
                ["true"], env={}, cwd="", timeout_s=9, fence=Fence(fence), on_output=dut.hear
            )
        await other.close()


async def test_what_an_agent_before_left_is_ended_by_the_next_fence(dut: Dut) -> None:
    await dut.sh("true")
    base = f"{dut.folder}/run/board1"
    mark = f"tree:{base}:{5:021d}:somebody:1:"
    await dut.sh(f"TSHRAG_MARK={mark} setsid sleep 309 >/dev/null &")
    assert await alive(dut)
    await dut.sh("true", fence=8)
    assert (await alive(dut)) == []


async def test_what_a_kernel_says_in_the_middle_is_no_answer(dut: Dut) -> None:
    for name in ("cat", "grep"):  # of the fence, and of what is left alive
        path = dut.folder / "bin" / name
        talk = f"mkdir {dut.folder}/{name} && echo '[ 9.1] usb 1-1: error -71' >/dev/tty"
        path.write_text(f'#!/bin/sh\n{{ {talk}; }} 2>/dev/null\nexec /bin/{name} "$@"\n')
        path.chmod(0o755)
    assert (await dut.sh("echo well")).succeeded
    assert bytes(dut.output).endswith(b"well\n")
    assert all((dut.folder / name).is_dir() for name in ("cat", "grep")), "it has spoken"


async def test_a_reboot_in_the_middle_is_said(dut: Dut) -> None:
    with pytest.raises(TransportFailed) as caught:
        await dut.sh("echo begun; reboot")
    assert caught.value.code == "dut_rebooted"
    assert (await dut.sh("exit 7")).exit_code == 7


async def test_text_that_looks_like_a_boot_is_only_text(dut: Dut) -> None:
    done = await dut.sh("echo Linux version 6.1; printf 'board login: '; sleep 3; echo on")
    assert done.succeeded
    assert bytes(dut.output) == b"Linux version 6.1\nboard login: on\n"


async def test_a_line_that_is_lost_in_the_middle_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "board"
    with simulated(folder, "--password", PASSWORD) as process:
        async with running(SerialConsole("b", way(process.path, folder).line)) as console:
            dut = Dut(folder, process.path, console)

            async def die() -> None:
                await wait_until(lambda: b"begun" in dut.output)
                process.kill()

            async with asyncio.TaskGroup() as group:
                group.create_task(die())
                with pytest.raises(TransportFailed) as caught:
                    await dut.sh("echo begun; sleep 300")
    assert caught.value.code == "serial_lost"


async def test_a_lossy_board_is_typed_to_slowly(tmp_path: Path) -> None:
    async with dut_on(tmp_path, "--lossy") as dut:
        done = await dut.sh("echo through; exit 8")
        assert (done.exit_code, bytes(dut.output)) == (8, b"through\n")


@pytest.mark.parametrize("shell", ["bash", "busybox ash"])
async def test_other_shells_do_as_well(tmp_path: Path, shell: str) -> None:
    program = need_program(shell.split()[0], package=shell.split()[0])
    async with dut_on(tmp_path, "--shell", " ".join([program, *shell.split()[1:]])) as dut:
        assert (await dut.sh("echo 'it works!'; exit 9")).exit_code == 9
        assert bytes(dut.output) == b"it works!\n"
        assert (await dut.sh("sleep 310 & sleep 311", timeout_s=0.5)).cause == "deadline"
        assert (await alive(dut)) == []


async def test_where_echo_cannot_be_switched_off_the_output_is_clean_all_the_same(
    tmp_path: Path,
) -> None:
    busybox = need_program("busybox", package="busybox")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cat", "env", "grep", "id", "mkdir", "mv", "sleep", "tr", "uname"):
        (tools / name).symlink_to(busybox)  # no stty, no cksum
    async with dut_on(tmp_path, "--path", str(tools), "--shell", f"{busybox} ash") as dut:
        text = "echo one; printf 'two\\r\\n'; echo 'a long line' | cat; exit 3"
        assert (await dut.sh(text)).exit_code == 3
        assert bytes(dut.output) == b"one\ntwo\r\na long line\n"


async def test_a_person_with_a_newer_fence_takes_the_console(dut: Dut) -> None:
    await dut.sh("true", fence=7)
    person = dut.console.drive(Fence(8), "ann")
    with pytest.raises(StaleFence, match="fence 7 is stale: 8 has been seen"):
        await dut.sh("true", fence=7)
    assert person.drives
    assert (await dut.sh("exit 2", fence=9)).exit_code == 2


async def test_a_name_that_no_shell_can_set_is_refused(dut: Dut) -> None:
    with pytest.raises(Refused, match="cannot be set on a DUT"):
        await dut.transport.execute(
            ["true"], env={"A;reboot": "1"}, cwd="", timeout_s=5, fence=Fence(1), on_output=dut.hear
        )


async def test_proc_is_read_for_the_sampler(dut: Dut) -> None:
    reading = await dut.transport.read_proc(timeout_s=20)
    assert reading["/proc/stat"].startswith("cpu ")
    assert "/proc/uptime" in reading


def test_it_does_as_well_on_uvloop(tmp_path: Path) -> None:
    import uvloop

    async def talk() -> None:
        async with dut_on(tmp_path) as dut:
            assert (await dut.sh("echo hello; exit 2")).exit_code == 2
            assert bytes(dut.output) == b"hello\n"

    uvloop.run(talk())
