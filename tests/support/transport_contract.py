"""What every DutTransport promises: the same checks over this host and over each SSH server.

A test class inherits ``TransportContract`` and has fixtures: ``dut`` (the open transport),
``place`` (a directory that every user may write to) and ``run_dir`` below it, where the fences
are; that path is in the arguments of every guard process.
"""

import asyncio
import contextlib
import itertools
import os
import time
from pathlib import Path

import pytest

from tests.support.outputs import Output
from tests.support.process_trees import deaf_tree, living
from tests.support.waiting import wait_until
from tshrag_agent.transport.base import Completed, DutTransport, ShellCommand, TransportFailed
from tshrag_common.errors import Refused, StaleFence
from tshrag_common.ids import Fence

_tags = itertools.count(os.getpid() * 1000)
HOSTILE = {
    "QUOTES": 'it\'s "here" `id` $(id) $HOME \\',
    "LINES": "one\ntwo\n\n  three\t",
    "WORDS": "größe 測試 🚀",
    "EMPTY": "",
    "RS": "\x1e\x01\x7f\r;|&<>*?[]!#~",
    "fence": "lower case names of the wrapper are free",
    "IFS": "abc",
    "LC_ALL": "xx_YY.nonsense",
}


def new_tag() -> int:
    return next(_tags)


async def shell(dut: DutTransport, text: str, fence: int, sink: Output) -> Completed:
    return await dut.execute(
        ShellCommand(text), env={}, cwd="", timeout_s=40, fence=Fence(fence), on_output=sink
    )


class TransportContract:
    async def test_the_streams_stay_apart_and_the_exit_code_is_carried(
        self, dut: DutTransport
    ) -> None:
        sink = Output()
        done = await shell(dut, "echo out; echo err >&2; exit 73", 1, sink)
        assert (done.exit_code, done.signal, done.cause) == (73, None, "exit")
        assert (sink.stdout, sink.stderr) == (b"out\n", b"err\n")

    async def test_the_clock_is_read_within_its_bounds(self, dut: DutTransport) -> None:
        before = time.time()
        found = await dut.read_clock(timeout_s=20)
        after = time.time()
        assert found is not None and found.sent <= found.heard
        assert before - 1 <= found.board_us / 1e6 <= after

    async def test_a_program_killed_by_a_signal_is_told(self, dut: DutTransport) -> None:
        done = await shell(dut, "kill -SEGV $$", 1, Output())
        assert (done.exit_code, done.signal) == (None, 11)
        assert done.said == "killed by SIGSEGV"

    async def test_hostile_values_arrive_as_they_are(self, dut: DutTransport) -> None:
        sink = Output()
        await dut.execute(
            ["/usr/bin/env", "-0"],
            env=HOSTILE,
            cwd="/",
            timeout_s=20,
            fence=Fence(1),
            on_output=sink,
        )
        got = dict(line.split("=", 1) for line in sink.stdout.decode().split("\0") if line)
        assert {name: got.get(name) for name in HOSTILE} == HOSTILE
        assert sink.stderr == b""

    async def test_hostile_arguments_and_directories_arrive_as_they_are(
        self, dut: DutTransport, place: Path
    ) -> None:
        odd = place / "-a 'b'\n$(id)"
        odd.mkdir()
        sink = Output()
        words = ["a b", "", "-n", "'", "\n", "$(id)", "*", "ü"]
        await dut.execute(
            ["/bin/sh", "-c", 'pwd; for word; do printf "%s\\0" "$word"; done', "sh", *words],
            env={},
            cwd=str(odd),
            timeout_s=20,
            fence=Fence(1),
            on_output=sink,
        )
        where, _, said = sink.stdout.decode().partition(f"{odd}\n")
        assert where == ""
        assert said.split("\0")[:-1] == words

    async def test_a_missing_directory_is_126_and_a_missing_program_127(
        self, dut: DutTransport
    ) -> None:
        sink = Output()
        done = await dut.execute(
            ["true"], env={}, cwd="/nowhere", timeout_s=20, fence=Fence(1), on_output=sink
        )
        assert done.exit_code == 126
        assert b"/nowhere" in sink.stderr
        done = await dut.execute(
            ["no-such"], env={}, cwd="", timeout_s=20, fence=Fence(1), on_output=sink
        )
        assert done.exit_code == 127
        assert b"no-such" in sink.stderr

    async def test_a_variable_that_the_shell_keeps_is_refused(self, dut: DutTransport) -> None:
        for name in ("UID", "TSHRAG_MARK", "a-b", "", "A=B"):
            with pytest.raises(Refused, match="cannot be set on a DUT"):
                await dut.execute(
                    ["true"],
                    env={name: "1"},
                    cwd="",
                    timeout_s=20,
                    fence=Fence(1),
                    on_output=Output(),
                )

    async def test_binary_output_is_untouched(self, dut: DutTransport) -> None:
        every = bytes(range(256)) * 64
        octal = "".join(f"\\{byte:03o}" for byte in range(256))
        sink = Output()
        text = (
            f"i=0; while [ $i -lt 64 ]; do printf '{octal}'; i=$((i+1)); done; printf '\\036' >&2"
        )
        await shell(dut, text, 1, sink)
        assert sink.stdout == every
        assert sink.stderr == b"\x1e"

    async def test_stdin_is_empty(self, dut: DutTransport) -> None:
        sink = Output()
        assert (await shell(dut, "cat; echo end", 1, sink)).exit_code == 0
        assert sink.stdout == b"end\n"

    async def test_sigint_is_not_ignored_by_a_program(self, dut: DutTransport) -> None:
        done = await shell(dut, "kill -INT $$; sleep 1", 1, Output())
        assert done.signal == 2

    async def test_a_daemon_left_behind_is_ended_with_its_command(
        self, dut: DutTransport, run_dir: str
    ) -> None:
        tag = new_tag()
        text = f"setsid sleep 300.{tag} >/dev/null 2>&1 & env -i sleep 301.{tag} & exit 5"
        done = await shell(dut, text, 1, Output())
        assert (done.exit_code, done.cause) == (5, "exit")
        assert living(f".{tag}") == []
        await wait_until(lambda: not living(run_dir), 5)

    async def test_end_stops_a_tree_that_is_deaf_to_sigterm(
        self, dut: DutTransport, run_dir: str
    ) -> None:
        tag, sink = new_tag(), Output()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(shell(dut, deaf_tree(tag), 1, sink))
            await wait_until(lambda: sink.stdout == b"ready\n" and len(living(f".{tag}")) >= 6)
            await dut.end(Fence(1))
            assert living(f".{tag}") == []
        done = task.result()
        assert (done.cause, done.exit_code) == ("stopped", None)
        await wait_until(lambda: not living(run_dir), 5)

    async def test_the_time_limit_ends_the_tree(self, dut: DutTransport) -> None:
        tag = new_tag()
        done = await dut.execute(
            ["sleep", f"300.{tag}"],
            env={},
            cwd="",
            timeout_s=0.5,
            fence=Fence(1),
            on_output=Output(),
        )
        assert (done.cause, done.signal) == ("deadline", 15)
        assert living(f".{tag}") == []

    async def test_cancelling_the_call_ends_the_tree(self, dut: DutTransport) -> None:
        tag, sink = new_tag(), Output()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(shell(dut, deaf_tree(tag), 1, sink))
            await wait_until(lambda: sink.stdout == b"ready\n")
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert living(f".{tag}") == []

    async def test_a_lower_fence_is_stale(self, dut: DutTransport) -> None:
        newest = 1 << 62
        await shell(dut, "true", newest, Output())
        with pytest.raises(StaleFence, match=f"fence {newest - 1} is stale: {newest} has been"):
            await shell(dut, "true", newest - 1, Output())

    async def test_a_newer_fence_ends_the_older_session_first(self, dut: DutTransport) -> None:
        tag, sink, seen = new_tag(), Output(), list[list[int]]()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(shell(dut, deaf_tree(tag), 1, sink))
            await wait_until(lambda: sink.stdout == b"ready\n" and len(living(f".{tag}")) >= 6)
            await dut.execute(
                ["echo", "mine"],
                env={},
                cwd="",
                timeout_s=40,
                fence=Fence(2),
                on_output=lambda *_: seen.append(living(f".{tag}")),
            )
        assert seen == [[]]
        assert task.result().cause == "superseded"

    async def test_two_commands_of_one_fence_may_run_at_once(self, dut: DutTransport) -> None:
        tag, sink = new_tag(), Output()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(shell(dut, f"echo on; sleep 300.{tag}", 1, sink))
            await wait_until(lambda: sink.stdout == b"on\n")
            assert (await shell(dut, "true", 1, Output())).succeeded
            assert len(living(f"sleep\x00300.{tag}")) == 1
            await dut.end(Fence(1))
        assert task.result().cause == "stopped"

    async def test_trees_travel_with_their_modes(self, dut: DutTransport, place: Path) -> None:
        source, target = place / "source", place / "far" / "load 'x'"
        (source / "bin").mkdir(parents=True)
        (source / "empty").mkdir()
        (source / "bin" / "go").write_text("#!/bin/sh\necho went\n")
        (source / "bin" / "go").chmod(0o755)
        (source / "data ü.bin").write_bytes(os.urandom(300_000))
        await dut.upload(source, str(target), timeout_s=30)
        await dut.upload(source, str(target), timeout_s=30)
        sink = Output()
        await dut.execute(
            ["./bin/go"], env={}, cwd=str(target), timeout_s=20, fence=Fence(1), on_output=sink
        )
        assert sink.stdout == b"went\n"
        assert (target / "data ü.bin").read_bytes() == (source / "data ü.bin").read_bytes()
        assert (target / "empty").is_dir()
        back = place / "back"
        assert await dut.download(str(target), back, most_bytes=400_000, timeout_s=30) > 300_000
        assert (back / "data ü.bin").read_bytes() == (source / "data ü.bin").read_bytes()
        assert (back / "bin" / "go").stat().st_mode & 0o777 == 0o755
        with pytest.raises(TransportFailed, match=r"more than|at most"):
            await dut.download(str(target), place / "no", most_bytes=1000, timeout_s=30)

    async def test_a_file_travels_alone(self, dut: DutTransport, place: Path) -> None:
        (place / "one").write_bytes(b"1" * 70_000)
        target = place / "there" / "two"
        await dut.upload(place / "one", str(target), timeout_s=30)
        assert target.read_bytes() == b"1" * 70_000
        assert await dut.download(str(target), place / "b", most_bytes=80_000, timeout_s=30)
        assert (place / "b").read_bytes() == b"1" * 70_000

    async def test_the_probe_says_what_the_dut_is(self, dut: DutTransport, run_dir: str) -> None:
        probe = await dut.probe(timeout_s=20)
        assert (probe.os, probe.guarded, probe.run_dir) == ("linux", True, run_dir)
        assert probe.arch and probe.boot and probe.shell and probe.uptime_s > 0

    async def test_the_files_of_the_sampler_come_raw(self, dut: DutTransport) -> None:
        files = await dut.read_proc(timeout_s=20)
        assert files["/proc/stat"].startswith("cpu ")
        assert "MemTotal:" in files["/proc/meminfo"]
        assert "Inter-|" in files["/proc/net/dev"]
