"""How host processes end, and what bounds them."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.support.shepherds import (
    DEAF_TREE,
    a_start,
    is_alive,
    outcome,
    pids_in,
    python,
)
from tests.support.waiting import wait_until
from tshrag_agent.attempts.host import HostLimits, Shepherd, StartRefused


async def test_nothing_of_a_deaf_tree_is_alive_after_its_end(
    shepherd: Shepherd, tmp_path: Path
) -> None:
    notes = tmp_path / "pids"
    await shepherd.start(a_start(tmp_path, "a", *python(DEAF_TREE, str(notes)), grace_s=0.3))
    await wait_until(lambda: pids_in(notes, 3))
    said = await shepherd.end("a", "cancel")
    assert [pid for pid in pids_in(notes, 3) if is_alive(pid)] == []
    assert (said.cause, said.signal, said.unkillable) == ("cancel", 9, ())
    assert {one.pid: one.how for one in said.stopped} == dict.fromkeys(pids_in(notes, 3), "kill")
    assert all("SIG_IGN" in one.command for one in said.stopped)


async def test_a_polite_process_has_its_grace(shepherd: Shepherd, tmp_path: Path) -> None:
    code = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    await shepherd.start(a_start(tmp_path, "a", "sh", "-c", code))
    await wait_until(lambda: (tmp_path / "a.out").read_text() == "ready\n")
    said = await shepherd.end("a", "cancel")
    assert (said.exit_code, said.cause) == (3, "cancel")
    assert {one.how for one in said.stopped} == {"term"}
    assert (tmp_path / "a.out").read_text() == "ready\nbye\n"


async def test_what_the_main_process_leaves_behind_is_ended(
    shepherd: Shepherd, tmp_path: Path
) -> None:
    code = "trap '' TERM; setsid sleep 100 & echo $! > pid; exit 4"
    said = await outcome(shepherd, a_start(tmp_path, "a", "sh", "-c", code, grace_s=0.2))
    assert (said.exit_code, said.cause, said.left_behind) == (4, "exited", 1)
    assert not is_alive(int((tmp_path / "pid").read_text()))


async def test_a_process_that_stopped_itself_ends_at_its_limit(
    shepherd: Shepherd, tmp_path: Path
) -> None:
    limits = HostLimits(wall_s=0.3)
    code = "kill -STOP $$; echo never"
    said = await outcome(shepherd, a_start(tmp_path, "a", "sh", "-c", code, limits=limits))
    assert (said.cause, said.signal) == ("timeout", 15)


async def test_a_lease_ends_a_process_unless_it_is_renewed(lone: Shepherd, tmp_path: Path) -> None:
    await lone.start(a_start(tmp_path, "a", "sleep", "100", lease_s=0.3))
    await lone.start(a_start(tmp_path, "b", "sleep", "100", lease_s=0.3))
    assert await lone.renew({"a": 60.0, "x": 60.0}) == {"x"}
    said = await lone.exited("b")
    assert said.cause == "lease" and said.wall_us >= 300_000
    assert [one.key for one in (await lone.list()).alive] == ["a"]


async def test_of_two_ends_the_first_cause_stays(lone: Shepherd, tmp_path: Path) -> None:
    await lone.start(a_start(tmp_path, "a", "sleep", "100"))
    async with asyncio.TaskGroup() as group:
        first = group.create_task(lone.end("a", "cancel"))
        second = group.create_task(lone.end("a", "timeout"))
    assert first.result() == second.result() == await lone.end("a", "late")
    assert first.result().cause == "cancel"
    with pytest.raises(StartRefused, match="no process 'x' is known"):
        await lone.end("x", "cancel")


async def test_a_fork_bomb_is_bounded_and_ends(shepherd: Shepherd, tmp_path: Path) -> None:
    # RLIMIT_NPROC, all that there is without cgroups, does not bind root (decision 0021): there
    # the whole bomb goes off, and all of it must end.
    is_bounded = shepherd.groups != "proc" or os.geteuid() != 0
    code = """
import os, time
made = 0
for _ in range(200):
    try:
        if os.fork() == 0:
            time.sleep(100)
        made += 1
    except OSError:
        break
print(made, flush=True)
time.sleep(100)
"""
    limits = HostLimits(pids=20)
    await shepherd.start(a_start(tmp_path, "a", *python(code), limits=limits, grace_s=0.1))
    await wait_until(lambda: (tmp_path / "a.out").read_text())
    made = int((tmp_path / "a.out").read_text())
    assert (made <= 20) if is_bounded else (made == 200)
    said = await shepherd.end("a", "cancel")
    assert said.unkillable == () and said.stopped_count > 1


async def test_a_tree_that_forks_for_ever_is_ended(shepherd: Shepherd, tmp_path: Path) -> None:
    code = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    time.sleep(float(sys.argv[1]))
    if os.fork():
        time.sleep(0.003)
        os._exit(0)
    os.setsid()
"""
    # Who only walks /proc can be outrun by a job that does nothing but fork (decision 0021).
    pause = "0.03" if shepherd.groups == "proc" else "0"
    await shepherd.start(a_start(tmp_path, "a", *python(code, pause), grace_s=0.05))
    said = await shepherd.exited("a")  # the first one leaves at once, its heirs go on
    assert said.unkillable == () and said.left_behind >= 1


async def test_memory_is_bounded(shepherd: Shepherd, tmp_path: Path) -> None:
    limits = HostLimits(memory_bytes=64 * 1024 * 1024)
    code = "print(len(bytearray(300_000_000)))"
    said = await outcome(shepherd, a_start(tmp_path, "a", *python(code), limits=limits))
    assert (tmp_path / "a.out").read_text() == ""
    if shepherd.groups == "proc":
        assert "MemoryError" in (tmp_path / "a.err").read_text()
    else:
        assert said.oom_kills == 1 or "MemoryError" in (tmp_path / "a.err").read_text()


async def test_small_limits_are_carried_by_the_process(shepherd: Shepherd, tmp_path: Path) -> None:
    limits = HostLimits(open_files=77, file_bytes=4096 * 1024, cpu_s=9)
    code = "ulimit -n; ulimit -Hn; ulimit -f; ulimit -t"
    await outcome(shepherd, a_start(tmp_path, "a", "bash", "-c", code, limits=limits))
    assert (tmp_path / "a.out").read_text().split() == ["77", "77", "4096", "9"]


async def test_without_limits_a_process_has_those_of_the_agent(
    lone: Shepherd, tmp_path: Path
) -> None:
    await outcome(lone, a_start(tmp_path, "a", "sh", "-c", "ulimit -n"))
    whole = [lone.start(a_start(tmp_path, f"b{n}", "sh", "-c", "ulimit -n")) for n in range(20)]
    async with asyncio.TaskGroup() as group:
        for start in whole:
            group.create_task(start)
    await asyncio.wait([lone.exited(f"b{n}") for n in range(20)], timeout=20)
    said = {(tmp_path / f"{key}.out").read_text() for key in ["a", *(f"b{n}" for n in range(20))]}
    assert len(said) == 1


async def test_output_beyond_its_bound_is_cut_out_of_the_middle(
    shepherd: Shepherd, tmp_path: Path
) -> None:
    code = "import os\nfor n in range(40000): os.write(1, b'%09d\\n' % n * 100)"
    limits = HostLimits(output_bytes=1024 * 1024)
    said = await outcome(shepherd, a_start(tmp_path, "a", *python(code), limits=limits))
    status = (tmp_path / "a.out").stat()
    assert said.exit_code == 0
    assert said.written_bytes["stdout"] == status.st_size == 40_000_000
    kept = status.st_size - said.cut_bytes["stdout"]
    assert 1024 * 1024 - 8 * 1024 <= kept <= 1024 * 1024
    assert status.st_blocks * 512 <= kept + 64 * 1024
    text = (tmp_path / "a.out").read_bytes()
    assert text.startswith(b"000000000\n") and text.endswith(b"000039999\n" * 100)
    assert text.count(0) == said.cut_bytes["stdout"]


async def test_a_job_that_closes_its_output_goes_on(shepherd: Shepherd, tmp_path: Path) -> None:
    code = "exec >&- 2>&- <&-; sleep 0.2; exit 5"
    said = await outcome(shepherd, a_start(tmp_path, "a", "sh", "-c", code))
    assert (said.exit_code, said.cause) == (5, "exited")


async def test_a_job_may_kill_its_own_group_and_nobody_else(
    shepherd: Shepherd, tmp_path: Path
) -> None:
    said = await outcome(shepherd, a_start(tmp_path, "a", "sh", "-c", "kill -9 0; sleep 9"))
    assert (said.signal, said.cause) == (9, "exited")
    assert is_alive(shepherd.pid)
