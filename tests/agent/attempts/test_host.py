import asyncio
import os
import signal
import socket
import struct
from pathlib import Path

import pytest
import uvloop
from msgspec.structs import replace

from tests.support.shepherds import (
    DEAF_TREE,
    a_shepherd,
    a_start,
    is_alive,
    outcome,
    pids_in,
    python,
    running,
)
from tests.support.waiting import wait_until
from tshrag_agent.attempts.host import HostExit, HostLimits, Shepherd, StartRefused
from tshrag_common.errors import LabError


async def test_a_process_gets_its_folder_and_environment_and_nothing_of_ours(
    shepherd: Shepherd, tmp_path: Path
) -> None:
    code = "import os; print(os.getcwd(), os.environ['A'], sorted(os.listdir('/proc/self/fd'))[:5])"
    what = a_start(tmp_path, "a", *python(code + "; print(os.getsid(0) == os.getpid())"))
    said = await outcome(shepherd, replace(what, env={"A": "b c"}))
    assert (said.exit_code, said.signal, said.cause) == (0, None, "exited")
    assert said.cpu_us > 0 and said.max_rss_bytes > 0 and said.wall_us > 0
    text = (tmp_path / "a.out").read_text()
    assert text == f"{tmp_path} b c ['0', '1', '2', '3']\nTrue\n"  # 3 is the listing itself
    assert said.written_bytes == {"stdout": len(text), "stderr": 0}


async def test_signals_and_rights_are_those_of_a_fresh_process(
    shepherd: Shepherd, tmp_path: Path
) -> None:
    what = a_start(tmp_path, "a", "cat", "/proc/self/status")
    await outcome(shepherd, what)
    status = dict(line.split(":\t", 1) for line in (tmp_path / "a.out").read_text().splitlines())
    ignored = int(status["SigIgn"], 16) & 0x7FFFFFFF  # 32 and 33 belong to the C library
    assert ignored == int(status["SigBlk"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Umask"] == "0027"


async def test_bytes_that_are_no_text_arrive_as_they_are(
    shepherd: Shepherd, tmp_path: Path
) -> None:
    strange = b"\xff\x01 \n'\"$(x)\xc3\xa4".decode("utf-8", "surrogateescape")
    code = "import os,sys; os.write(1, os.fsencode(sys.argv[1]) + b'|' + os.environb[b'K\\xfe'])"
    what = a_start(tmp_path, "a", *python(code, strange))
    env = {"K\udcfe": strange, "LC_ALL": "C.UTF-8"}
    said = await outcome(shepherd, replace(what, env=env))
    raw = strange.encode("utf-8", "surrogateescape")
    assert said.exit_code == 0
    assert (tmp_path / "a.out").read_bytes() == raw + b"|" + raw


@pytest.mark.parametrize(
    ("argv", "more", "line"),
    [
        (("nope",), {}, "not_found: 'nope': no such program in PATH; install it"),
        (("/no/pe",), {}, "not_found: '/no/pe': no such file"),
        (("/etc/passwd",), {}, "not_executable: '/etc/passwd': Permission denied; chmod +x"),
        (("./text",), {}, "not_executable: './text': no program of this machine"),
        (("./lost",), {}, "not_found: './lost': its interpreter is not here"),
        (("true",), {"cwd": "/no/where"}, "bad_cwd: '/no/where': No such file or directory"),
        (("true",), {"stdout_path": "/no/where/x"}, "bad_output: '/no/where/x'"),
        (("true",), {"stdout_path": "x"}, "bad_path: stdout: 'x' is not absolute"),
        (("true", "a\0b"), {}, "bad_command: 'true': embedded null byte"),
        ((), {}, "bad_command: argv: it is empty"),
        (("true",), {"key": ""}, "bad_key"),
        (("true",), {"limits": HostLimits(wall_s=-1)}, "bad_limit: wall_s: -1"),
        (("true", "x" * 3_000_000), {}, "too_large: 'true'"),
    ],
)
async def test_what_cannot_start_is_refused_with_its_reason(
    lone: Shepherd, tmp_path: Path, argv: tuple[str, ...], more: dict[str, object], line: str
) -> None:
    for name, text in (("text", "no program"), ("lost", "#!/no/interpreter\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    what = a_start(tmp_path, "a", *argv)
    with pytest.raises(StartRefused) as refused:
        await lone.start(replace(what, **more))
    assert refused.value.line.startswith(line)
    assert (await lone.list()).alive == ()


async def test_a_rush_of_starts_is_refused_in_the_same_words(
    shepherd: Shepherd, tmp_path: Path
) -> None:
    async def refused(number: int, name: str, cwd: str) -> str:
        with pytest.raises(StartRefused) as error:
            await shepherd.start(a_start(tmp_path, f"{number}{name[-2:]}", name, cwd=cwd))
        return error.value.code

    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(refused(number, name, cwd))
            for number in range(5)
            for name, cwd in (("/no/pe", "/"), ("/etc/passwd", "/"), ("/bin/true", "/no/pe"))
        ]
    assert [task.result() for task in asked] == ["not_found", "not_executable", "bad_cwd"] * 5


async def test_a_fifo_is_no_output_file(lone: Shepherd, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.out")
    with pytest.raises(StartRefused, match=r"no plain file|No such device"):
        await lone.start(a_start(tmp_path, "a", "true"))


async def test_a_key_is_used_once_until_it_is_forgotten(lone: Shepherd, tmp_path: Path) -> None:
    await outcome(lone, a_start(tmp_path, "a", "true"))
    with pytest.raises(StartRefused, match="forget it first"):
        await lone.start(a_start(tmp_path, "a", "true"))
    await lone.forget("a")
    assert (await outcome(lone, a_start(tmp_path, "a", "false"))).exit_code == 1


async def test_a_job_that_kills_the_shepherd_is_lost_and_work_goes_on(
    lone: Shepherd, tmp_path: Path
) -> None:
    async with running(lone):
        code = "sleep 0.2; kill -9 -$(ps -o pgid= -p $PPID | tr -d ' '); sleep 100"
        said = await outcome(lone, a_start(tmp_path, "a", "sh", "-c", code))
        assert said.cause == "lost"
        await wait_until(lambda: is_alive(lone.pid))
        assert (await outcome(lone, a_start(tmp_path, "b", "true"))).exit_code == 0


async def test_after_a_killed_shepherd_nothing_is_left_alive(
    shepherd: Shepherd, tmp_path: Path
) -> None:
    notes = tmp_path / "pids"
    await outcome(shepherd, a_start(tmp_path, "done", "sh", "-c", "exit 9"))
    await shepherd.start(a_start(tmp_path, "a", *python(DEAF_TREE, str(notes))))
    await wait_until(lambda: pids_in(notes, 3))
    async with running(shepherd):
        os.kill(shepherd.pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            said = await shepherd.exited("a")
        assert said.cause == "lost" and said.unkillable == ()
        assert [pid for pid in pids_in(notes, 3) if is_alive(pid)] == []
        exits = {one.key: one for one in (await shepherd.list()).exits}
        assert exits["done"].exit_code == 9 and exits["a"].cause == "lost"
        await shepherd.forget("done", "a")
        assert (await outcome(shepherd, a_start(tmp_path, "b", "true"))).exit_code == 0


async def test_sigterm_ends_a_shepherd_with_all_that_it_holds(
    lone: Shepherd, tmp_path: Path
) -> None:
    started = await lone.start(a_start(tmp_path, "a", "sleep", "100"))
    os.kill(lone.pid, signal.SIGTERM)
    assert (await lone.exited("a")).cause == "shepherd_stopped"
    assert not is_alive(started.pid)
    await wait_until(lambda: not is_alive(lone.pid))


async def test_without_an_agent_everything_ends_and_the_shepherd_leaves(tmp_path: Path) -> None:
    async with a_shepherd(tmp_path, orphan_s=0.4) as first:
        started = await first.start(a_start(tmp_path, "a", "sleep", "100"))
        await first.close()
        await wait_until(lambda: not is_alive(first.pid))
        assert not is_alive(started.pid)
    async with a_shepherd(tmp_path, orphan_s=0.4) as second:
        assert (await second.exited("a")).cause == "orphaned"


async def test_an_agent_that_left_at_once_does_not_count_as_one(tmp_path: Path) -> None:
    async with a_shepherd(tmp_path, orphan_s=0.3) as shepherd:
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as hasty:
                hasty.connect(str(tmp_path / "shepherd.sock"))
                hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await shepherd.close()
        await wait_until(lambda: not is_alive(shepherd.pid))


async def test_five_hundred_jobs_at_once_all_end_as_they_should(
    lone: Shepherd, tmp_path: Path
) -> None:
    async def one(number: int) -> None:
        code = f"echo {number}; exit {number % 7}"
        said = await outcome(lone, a_start(tmp_path, f"j{number}", "sh", "-c", code))
        assert said.exit_code == number % 7
        assert (tmp_path / f"j{number}.out").read_text() == f"{number}\n"
        await lone.forget(said.key)

    async with asyncio.TaskGroup() as group:
        for number in range(500):
            group.create_task(one(number))
    assert (await lone.list()) == (await lone.list()).__class__()


async def test_a_state_folder_with_a_very_long_name_works(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 90) / ("e" * 90)
    folder.mkdir(parents=True)
    async with a_shepherd(folder) as shepherd:
        assert (folder / "shepherd.sock").stat().st_mode & 0o777 == 0o600
        assert (await outcome(shepherd, a_start(tmp_path, "a", "true"))).exit_code == 0


async def test_many_agents_that_open_at_once_share_one_shepherd(tmp_path: Path) -> None:
    (tmp_path / "shepherd.sock").touch()  # something stale
    async with asyncio.TaskGroup() as group:
        opening = [group.create_task(Shepherd.open(tmp_path)) for _ in range(4)]
    async with a_shepherd(tmp_path) as last:
        opened = [task.result() for task in opening]
        assert {one.pid for one in opened} == {last.pid}
        await last.start(a_start(tmp_path, "a", "true"))
        for one in opened:
            assert (await one.exited("a")).exit_code == 0  # everybody hears of it
            await one.close()


async def test_a_shepherd_that_ends_as_it_takes_the_call_is_not_the_last_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "shepherd.sock"

    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path.unlink()
        writer.close()

    async with await asyncio.start_unix_server(hang_up, path), a_shepherd(tmp_path) as shepherd:
        assert (await outcome(shepherd, a_start(tmp_path, "a", "true"))).exit_code == 0


async def test_a_question_without_a_connection_says_so(tmp_path: Path) -> None:
    async with a_shepherd(tmp_path) as shepherd:
        await shepherd.close()
        with pytest.raises(LabError, match="the connection broke"):
            await shepherd.list()


def test_the_client_works_on_uvloop(tmp_path: Path) -> None:
    async def work() -> HostExit:
        async with a_shepherd(tmp_path) as shepherd, running(shepherd):
            return await outcome(shepherd, a_start(tmp_path, "a", "sh", "-c", "exit 6"))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(work()).exit_code == 6
